"""Live tables at a terminal whose size changes: what the user sees, in two terminals.

tmux wraps its lines anew when it is resized, as most terminals of today do; pyte cuts
them, as xterm does. The program is stopped meanwhile: no program can know of a new size
before the terminal tells the kernel, which tmux does later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import commands
import pytest

from coresize.batch.journal.status import StatusFile
from coresize.batch.progress import Progress


PATIENCE = 120
HIGH = 24
EARLIER = "earlier output"


class Tmux:
    """A terminal that wraps lines anew, and keeps those that scroll away."""

    def __init__(self, folder, line, wide, env):
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        self._tmux = ["tmux", "-f", "/dev/null", "-S", str(folder / "tmux")]
        self._run("new-session", "-d", "-x", wide, "-y", HIGH, line, env=env)
        self._pty = self._run("display-message", "-p", "#{pane_tty}").strip()

    def _run(self, *words, env=None):
        return subprocess.run(
            [*self._tmux, *map(str, words)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout

    def resize(self, wide):
        self._run("resize-window", "-x", wide, "-y", HIGH)

        def is_told():
            opened = os.open(self._pty, os.O_RDONLY | os.O_NOCTTY)
            try:
                return os.get_terminal_size(opened).columns == wide
            finally:
                os.close(opened)

        wait_for(is_told)

    def rows(self):
        return self._run("capture-pane", "-p").split("\n")

    def close(self):
        self._run("kill-server")


class Pyte:
    """A terminal that cuts lines."""

    def __init__(self, _folder, line, wide, env):
        pyte = pytest.importorskip("pyte")
        self._screen = pyte.Screen(wide, HIGH)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            text = f"stty cols {wide} rows {HIGH}; {line}"
            os.execvpe("sh", ["sh", "-c", text], {**env, "TERM": "xterm"})

    def _read(self):
        while select.select([self._terminal], [], [], 0.02)[0]:
            self._stream.feed(os.read(self._terminal, 65536))

    def resize(self, wide):
        self._read()
        self._screen.resize(HIGH, wide)
        size = struct.pack("HHHH", HIGH, wide, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def rows(self):
        self._read()
        return [row.rstrip() for row in self._screen.display]

    def close(self):
        os.close(self._terminal)  # SIGHUP
        os.waitpid(self._pid, 0)


TERMINALS = {"wraps": Tmux, "cuts": Pyte}


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Shown:
    """A command at a terminal of 80 columns."""

    def __init__(self, kind, folder, words):
        self._folder = folder
        # A variable of the shell's that is exported stays as it is.
        env = commands.environment(folder, {"COLUMNS": "80"})
        line = (
            f"cd {shlex.quote(str(folder))}; echo {EARLIER}; sh -c "
            f"{shlex.quote(f'echo $$ > pid; exec {shlex.join(words)}')}; exec sleep 600"
        )
        self._terminal = TERMINALS[kind](folder, line, 80, env)

    def _pid(self):
        return int((self._folder / "pid").read_text())

    def resize(self, wide):
        """Change the width; the rows that are there before anything else is drawn."""
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        self._terminal.resize(wide)
        rows = self.rows()
        os.kill(pid, signal.SIGCONT)
        return rows

    def rows(self):
        rows = [row for row in self._terminal.rows() if row]
        return rows[1:] if rows[:1] == [EARLIER] else rows

    def close(self):
        with contextlib.suppress(OSError):  # it has not begun, or has ended
            os.kill(self._pid(), signal.SIGKILL)
        self._terminal.close()


@pytest.fixture
def shown(tmp_path):
    """A function that shows a command at a terminal."""
    opened = []

    def show(kind, *words):
        opened.append(Shown(kind, tmp_path, words))
        return opened[0]

    yield show
    (tmp_path / "over").touch()
    for one in opened:
        one.close()


COMMAND = (sys.executable, "-m", "coresize")
LONG = "日本語の名前の長いフォルダ/of a long path/資料"


class Shards:
    """Three shards, whose times go on."""

    marks = ("SHARD", "0/3", "1/3", "2/3")

    def __init__(self, _folder):
        script = "while ! test -e over; do sleep 0.1; done"
        self.words = ("shards", "3", "--logs", LONG, "--", "sh", "-c", script)

    def step(self, _number):
        pass


class Watch:
    """Three runs whose journals have long names."""

    marks = Shards.marks
    words = ("status", "--watch")

    def __init__(self, folder):
        (folder / LONG).mkdir(parents=True)
        names = [f"{LONG}/結果-{shard}.sqlite.status.json" for shard in range(3)]
        self.words += tuple(names)
        self._files = [
            StatusFile(str(folder / name), f"{shard}/3")
            for shard, name in enumerate(names)
        ]
        self.step(0)

    def step(self, number):
        fields = {**dict.fromkeys(Progress.__slots__), "failed": 0, "rate": 1.0}
        progress = Progress(**{**fields, "done": number, "total": 9, "workers": 1})
        for file in self._files:
            file.write(progress, "running")


JOBS = """\
import os, time
def wait(item):
    while not os.path.exists(f"step-{item}"):
        time.sleep(0.02)
"""


class Batch:
    """A batch whose bar is drawn when a task has ended, or the terminal has changed."""

    marks = ("/20",)

    def __init__(self, folder):
        self._folder = folder
        (folder / "jobs.py").write_text(JOBS)
        (folder / "items.txt").write_text("\n".join(map(str, range(20))))
        journal = f"{'結果' * 30}.sqlite"
        words = ("--items", "items.txt", "--max-workers", "2", "--executor", "thread")
        self.words = ("batch", "jobs:wait", *words, "--journal", journal)
        self.step(0)

    def step(self, number):
        (self._folder / f"step-{number}").touch()


@pytest.mark.parametrize("kind", TERMINALS)
@pytest.mark.parametrize("what", [Shards, Watch, Batch])
def test_what_is_drawn_stays_whole_when_the_terminal_changes_its_size(
    tmp_path, shown, what, kind
):
    drawn = what(tmp_path)
    terminal = shown(kind, *COMMAND, *drawn.words)

    def is_drawn_anew(before):
        rows = terminal.rows()
        whole = len(rows) == len(drawn.marks)
        return (
            whole and rows != before and all(map(str.__contains__, rows, drawn.marks))
        )

    wait_for(lambda: is_drawn_anew([]))
    for number, wide in enumerate((40, 120, 33, 80, 41, 120), 1):
        before = terminal.resize(wide)
        drawn.step(number)
        wait_for(lambda before=before: is_drawn_anew(before))
