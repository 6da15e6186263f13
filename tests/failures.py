"""What workers, tasks and executors of others do wrong."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Executor, Future
from pathlib import Path


HOUR = 3600


def echo(value):
    return value


def wait_for(path):
    """Until there is such a file."""
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def tell_and_wait_for(begun, path):
    Path(begun).touch()
    return wait_for(path)


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    return "went on"


def _is_first(folder):
    try:
        os.close(os.open(f"{folder}/first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _count(folder):
    (Path(folder) / f"start-{os.getpid()}").touch()


def hang_but_first(folder):
    _count(folder)
    if not _is_first(folder):
        time.sleep(HOUR)


def stop_but_first(folder):
    _count(folder)
    if not _is_first(folder):
        os.kill(os.getpid(), signal.SIGSTOP)


def exit_but_first(folder):
    _count(folder)
    if not _is_first(folder):
        os._exit(1)


def hang_first(folder):
    if _is_first(folder):
        time.sleep(HOUR)


def stop_first(folder):
    if _is_first(folder):
        os.kill(os.getpid(), signal.SIGSTOP)


def compute_for_long(_folder):
    end = time.process_time() + 4
    while time.process_time() < end:
        pass


def starts(folder):
    return len(list(Path(folder).glob("start-*")))


def need(value):
    """Bytes of a task; of some nobody can tell."""
    if value == "bad":
        raise LookupError(value)
    return 1024


def leave(_future):
    raise SystemExit(3)


class Odd(Executor):
    """An executor that makes each call at once, and goes wrong with some."""

    def submit(self, function, /, *args, **kwargs):
        # With memory="auto" the call is itself an argument.
        kind = args[1][0] if callable(args[0]) else args[0]
        if kind == "exits":
            raise SystemExit(kind)
        if kind == "no future":
            return None
        future = _OddFuture() if kind == "no error" else Future()
        if kind == "no callback":
            future.add_done_callback = None
        if kind == "cancels":
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_result(function(*args, **kwargs))
        return future


class _OddFuture(Future):
    def exception(self, timeout=None):
        raise LookupError(timeout)
