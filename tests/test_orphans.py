"""What coresize has started ends with it, and with the worker that it belongs to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tasks

from coresize import ProcessPoolExecutor, TaskKilledError, processes, profile_task
from coresize.host import MARK


pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="told by the kernel, found in /proc"
)

HERE = Path(__file__).parent
METHODS = ["fork", "forkserver", "spawn"]

#: Begins each program: what it notes is read by the test.
HEAD = f"""\
import os, signal, subprocess, sys, time
from multiprocessing import get_context
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
import tasks

def note(name, *pids):
    "Write numbers of processes, all or nothing."
    Path(sys.argv[1], name + ".new").write_text(" ".join(map(str, pids)))
    Path(sys.argv[1], name + ".new").rename(Path(sys.argv[1], name))

def stay(name):
    "Note this process, and stay until it is ended."
    note(name, os.getpid())
    while True:
        time.sleep(1)

def tool(name, **more):
    "Start a tool, note it."
    note(name, subprocess.Popen(["sleep", "1000"], **more).pid)

def tool_and_stay(name):
    tool(name)
    stay(name + "-worker")
"""


class Program:
    """A program that notes the numbers of processes, of which none is left behind."""

    def __init__(self, folder, text, *words):
        self.folder = folder
        self.script = folder / "program.py"
        self.script.write_text(HEAD + text)
        words = [*words] or [sys.executable, str(self.script), str(folder)]
        self.process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL)

    def pid(self, name):
        """The process that was noted under a name, and when that was started."""
        path = self.folder / name
        wait_for(path.exists, f"{name} was noted")
        pid = int(path.read_text())
        return pid, processes.start_ticks(pid)

    def end(self):
        self.process.kill()
        self.process.wait()
        for path in self.folder.iterdir():
            if path.is_file() and path.read_text().strip().isdigit():
                pid = int(path.read_text())
                if str(self.folder).encode() in _words(pid) or b"sleep" in _words(pid):
                    os.kill(pid, signal.SIGKILL)


def _words(pid):
    return processes.read(pid, "cmdline").encode()


@pytest.fixture
def program(tmp_path):
    """Starts a program in a folder of its own."""
    started = []

    def start(text, *words):
        started.append(Program(tmp_path, text, *words))
        return started[-1]

    yield start
    for one in started:
        one.end()


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_there(who):
    """Whether it is there, and no zombie."""
    pid, start = who
    return bool(_words(pid)) and processes.start_ticks(pid) == start


def gone(*them):
    for who in them:
        wait_for(lambda who=who: not is_there(who), f"{_words(who[0])} is gone")


MAIN = "from coresize import ProcessPoolExecutor\n"
POOL = "if __name__ == '__main__':\n    pool = ProcessPoolExecutor(1, get_context({!r})"


# --- The parent is killed -------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_who_still_imports_ends_with_the_parent(program, method):
    running = program(
        f"{MAIN}if __name__ == '__mp_main__':\n    stay('worker')\n"
        f"{POOL.format(method)})\n    pool.submit(tool, 'tool').result()\n"
    )
    worker = running.pid("worker")
    running.process.kill()
    gone(worker)


@pytest.mark.parametrize("method", METHODS)
def test_who_still_is_initialized_ends_with_the_parent(program, method):
    running = program(
        f"{MAIN}{POOL.format(method)}, initializer=stay, initargs=('worker',))\n"
        "    pool.submit(tool, 'tool').result()\n"
    )
    worker = running.pid("worker")
    running.process.kill()
    gone(worker)


FORKS = {
    "os.fork": "os.fork() or stay('fork')",
    "process": "get_context('fork').Process(target=stay, args=('fork',)).start()",
    "pool": "get_context('fork').Pool(1).apply_async(stay, ('fork',))",
    "pty": "import pty; pty.fork()[0] or stay('fork')",
    "inherits": "subprocess.Popen(['sh', '-c', 'echo $$ > fork.new; mv fork.new fork; "
    "exec sleep 1000'], close_fds=False)",
}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_fork_of_the_parent_keeps_no_worker(program, method, fork):
    running = program(
        f"{MAIN}{POOL.format(method)})\n"
        "    future = pool.submit(stay, 'worker')\n"
        "    while not Path(sys.argv[1], 'worker').exists(): time.sleep(0.02)\n"
        f"    {FORKS[fork]}\n    time.sleep(1000)\n"
    )
    worker, forked = running.pid("worker"), running.pid("fork")
    running.process.kill()
    gone(worker)
    if fork != "pty":  # whose terminal is gone
        assert is_there(forked)  # it is the user's


ENDS = {
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "terminate": "os.kill(os.getpid(), signal.SIGTERM)",
    "exit": "os._exit(0)",
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exec": "os.execvp('true', ['true'])",
    "group": "os.setpgid(0, 0); os.killpg(0, signal.SIGKILL)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_worker_and_its_tool_end_with_the_program(program, end):
    running = program(
        f"{MAIN}{POOL.format('spawn')})\n    pool.submit(tool_and_stay, 'tool')\n"
        "    while not Path(sys.argv[1], 'go').exists(): time.sleep(0.02)\n"
        f"    {ENDS[end]}\n"
    )
    them = running.pid("tool"), running.pid("tool-worker")
    (running.folder / "go").touch()
    running.process.wait(60)
    gone(*them)


@pytest.mark.parametrize("method", METHODS)
def test_tools_end_with_the_program_however_workers_are_started(program, method):
    running = program(
        f"{MAIN}{POOL.format(method)})\n"
        "    pool.submit(tool_and_stay, 'tool').result()\n"
    )
    them = running.pid("tool"), running.pid("tool-worker")
    running.process.kill()
    gone(*them)


def test_all_levels_end_with_the_outermost(program):
    running = program(
        "from coresize import ProcessPoolExecutor\n"
        "def nested():\n"
        "    note('outer', os.getpid())\n"
        "    ProcessPoolExecutor(1).submit(tool_and_stay, 'tool').result()\n"
        "if __name__ == '__main__':\n"
        "    ProcessPoolExecutor(1).submit(nested).result()\n"
    )
    them = running.pid("outer"), running.pid("tool"), running.pid("tool-worker")
    running.process.kill()
    gone(*them)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("run_batch", "list(run_batch(tool_and_stay, ['tool']))"),
        ("profile_task", "profile_task(tool_and_stay, 'tool')"),
    ],
)
def test_what_starts_workers_by_itself_ends_with_its_program(program, name, call):
    running = program(
        f"from coresize import {name}\nif __name__ == '__main__':\n    {call}\n"
    )
    them = running.pid("tool"), running.pid("tool-worker")
    running.process.kill()
    gone(*them)


#: A program as it is given to commands: with a tool, both noted.
TOOL = "if __name__ == '__main__':\n    tool_and_stay('tool')\n"
COMMANDS = {
    "shards": ("shards", "1", "--"),
    "profile": ("profile", "--"),
    "sweep": ("sweep", "--workers", "1", "--", "env", "N={workers}"),
    "run": ("run", "--"),
}


def test_what_a_diagnosis_runs_ends_with_it(program, tmp_path):
    path = str(tmp_path / "program.py")
    words = [sys.executable, "-m", "coresize", "diagnose", "--main", path, "--"]
    running = program("tool_and_stay('tool')\n", *words, str(tmp_path))
    them = running.pid("tool"), running.pid("tool-worker")
    running.process.kill()
    gone(*them)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_runs_ends_with_it(program, command, tmp_path):
    coresize = [sys.executable, "-m", "coresize", *COMMANDS[command]]
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    running = program(TOOL, *coresize, *words)
    them = running.pid("tool"), running.pid("tool-worker")
    running.process.kill()
    if command == "run":  # it has become the program, whose tools are not ours
        them = them[1:]
    gone(*them)


# --- A worker dies --------------------------------------------------------------

DEATHS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "exit well": lambda: os._exit(0),
}

TOOLS = {
    "plain": {},
    "session": {"start_new_session": True},
    "shell": {"args": "sleep 1000 & sleep 1000", "shell": True},
    "daemon": {"args": "(setsid sleep 1000 &) ; sleep 1000", "shell": True},
}


def start_tool(kind, path):
    """Start a tool, and note all of it that is there."""
    words = {"args": ["sleep", "1000"], **TOOLS[kind]}
    process = subprocess.Popen(**words)
    Path(path).write_text(str(process.pid))
    return process.pid


def start_tool_and_die(kind, path, death):
    start_tool(kind, path)
    DEATHS[death]()


def marked(path):
    """All that was started by the worker of a noted tool; none while it starts."""
    pid = int(Path(path).read_text())
    variables = processes.read(pid, "environ").split("\0")
    mark = next((one for one in variables if one.startswith(f"{MARK}=")), None)
    if mark is None:
        return []
    return [
        (other, processes.start_ticks(other))
        for other in psutil.pids()
        if mark in processes.read(other, "environ")
    ]


@pytest.mark.parametrize("death", DEATHS)
def test_a_tool_ends_with_the_worker_that_died(death, tmp_path):
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(start_tool_and_die, "plain", tmp_path / "tool", death)
        assert isinstance(future.exception(60), TaskKilledError)
        pid = int((tmp_path / "tool").read_text())
        gone((pid, processes.start_ticks(pid)))


def note_and_wait(kind, path, note):
    start_tool(kind, path)
    Path(note).write_text(str(os.getpid()))
    time.sleep(1000)


@pytest.mark.parametrize("kind", TOOLS)
def test_all_of_a_tool_ends_with_the_worker_that_died(kind, tmp_path):
    note = tmp_path / "worker"
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(note_and_wait, kind, tmp_path / "tool", note)
        wait_for(lambda: note.exists() and note.read_text(), "it runs")
        count = 2 if "args" in TOOLS[kind] else 1
        wait_for(lambda: len(marked(tmp_path / "tool")) >= count, "all of it runs")
        them = marked(tmp_path / "tool")
        os.kill(int(note.read_text()), signal.SIGKILL)
        assert isinstance(future.exception(60), TaskKilledError)
        gone(*them)


def test_what_has_no_mark_ends_as_it_was_seen(tmp_path):
    note = tmp_path / "worker"
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(fork_and_wait, note)
        wait_for(lambda: note.exists() and note.read_text(), "it runs")
        worker, *others = map(int, note.read_text().split())
        them = [(pid, processes.start_ticks(pid)) for pid in others]
        (slot,) = pool._dispatcher.handles
        wait_for(lambda: set(others) <= set(slot.started), "they were seen")
        os.kill(worker, signal.SIGKILL)
        assert isinstance(future.exception(60), TaskKilledError)
        gone(*them)


def fork_and_wait(note):
    """Of what it starts one has no environment, and one is a mere fork."""
    bare = subprocess.Popen(["/bin/sleep", "1000"], env={})
    forked = os.fork()
    if not forked:
        time.sleep(1000)
        os._exit(0)
    Path(f"{note}.new").write_text(f"{os.getpid()} {bare.pid} {forked}")
    Path(f"{note}.new").rename(note)
    time.sleep(1000)


def test_what_an_earlier_task_has_left_goes_on(tmp_path):
    path = tmp_path / "daemon"
    with ProcessPoolExecutor(1) as pool:
        pool.submit(daemonize, path).result(60)
        pid = int(path.read_text())
        daemon = pid, processes.start_ticks(pid)
        try:
            pool.submit(
                start_tool_and_die, "plain", tmp_path / "tool", "kill"
            ).exception()
            tool = int((tmp_path / "tool").read_text())
            gone((tool, processes.start_ticks(tool)))
            assert pool.submit(abs, -1).result(60) == 1
            assert is_there(daemon)
            pool.shutdown()
            assert is_there(daemon)
        finally:
            os.kill(pid, signal.SIGKILL)


def daemonize(path):
    """Start what is to outlive the task, and is no child of it."""
    script = 'setsid sleep 1000 & echo $! > "$0.new"; mv "$0.new" "$0"'
    subprocess.run(["/bin/sh", "-c", script, str(path)], check=True)


def test_what_a_program_has_left_goes_on_when_it_ends_well(program):
    running = program(
        f"{MAIN}{POOL.format('spawn')})\n    pool.submit(tool, 'tool').result()\n"
    )
    tool = running.pid("tool")
    assert running.process.wait(60) == 0
    pid = tool[0]
    watchdogs = [other for other in psutil.pids() if _keeps(other, pid)]
    gone(*((watchdog, processes.start_ticks(watchdog)) for watchdog in watchdogs))
    assert is_there(tool)


def test_what_a_child_of_multiprocessing_has_left_goes_on(program):
    """It ends without what atexit knows."""
    running = program(
        "from coresize import ProcessPoolExecutor\n"
        "def child():\n"
        "    with ProcessPoolExecutor(1) as pool:\n"
        "        pool.submit(tool, 'tool').result()\n"
        "if __name__ == '__main__':\n"
        "    process = get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join(); note('over', os.getpid())\n"
        "    time.sleep(1000)\n"
    )
    tool = running.pid("tool")
    running.pid("over")
    watchdogs = [other for other in psutil.pids() if _keeps(other, tool[0])]
    gone(*((watchdog, processes.start_ticks(watchdog)) for watchdog in watchdogs))
    assert is_there(tool)


def _keeps(watchdog, pid):
    """Whether a process waits for the end of the program that started another."""
    variables = processes.read(pid, "environ").split("\0")
    (mark,) = [value for value in variables if value.startswith(MARK)]
    return mark.split("/")[1] in processes.read(watchdog, "cmdline")


def test_a_measured_task_that_dies_leaves_no_tool(tmp_path):
    with pytest.raises(TaskKilledError):
        profile_task(start_tool_and_die, "plain", tmp_path / "tool", "exit")
    pid = int((tmp_path / "tool").read_text())
    gone((pid, processes.start_ticks(pid)))


def test_threads_of_others_start_what_they_like():
    """Tools of the program itself are not ours."""
    with ProcessPoolExecutor(1) as pool, subprocess.Popen(["sleep", "1000"]) as own:
        assert isinstance(
            pool.submit(tasks.end_self_by, "SIGKILL").exception(60), Exception
        )
        assert own.poll() is None
        own.kill()
