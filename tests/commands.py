"""The command line: as a program, or here where it is what it answers that counts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coresize import processes
from coresize.cli import main


def environment(folder, env):
    """What is set for it: what is kept for a user is kept in the folder."""
    return {**os.environ, "XDG_STATE_HOME": str(folder), **(env or {})}


def run(folder, *words, env=None, **more):
    """Run ``coresize``."""
    return subprocess.run(
        [sys.executable, "-m", "coresize", *map(str, words)],
        cwd=folder,
        env=environment(folder, env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **more,
    )


def call(folder, *words, env=None):
    """Call it, which takes a tenth of the time: for answers, not for what processes do.

    How a program ends, its signals, streams and workers, `run` is for.
    """
    with _file() as out, _file() as err:
        with _as_in_a_program(folder, environment(folder, env)):
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = main([*map(str, words)])
            except SystemExit as end:
                status = end.code
        texts = [stream.seek(0) or stream.read() for stream in (out, err)]
    return subprocess.CompletedProcess(words, status, *texts)


def _file():
    """With a number, for programs that are started with it."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def _as_in_a_program(folder, variables):
    """A folder and variables of its own; all is as it was afterwards."""
    env, path, modules = dict(os.environ), [*sys.path], {*sys.modules}
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    os.environ.update(variables)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(env)
        sys.path[:] = path
        for name in {*sys.modules} - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]
        for number, handler in signals.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def ends(pid):
    """Whether a process has ended, or does so within a moment."""
    for _ in range(100):
        if not processes.is_running(pid):
            return True
        time.sleep(0.05)
    return False
