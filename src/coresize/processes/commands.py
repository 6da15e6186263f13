"""A child command: started with a mark, and killed with all processes that it started.

Rule 1: a signal never arrives between the start of a command and the moment when its id
is noted. So the object exists before the command does, and signals are held back during
the start.
Rule 2: the id of a process is used only while it belongs to the command: after the
command has ended and was reaped, the kernel may give the id to another process.
Rule 3: processes that the command has started are found in three ways: by their
parents, by the session that the command leads, and by the mark in their environment
(`orphans`), which also finds processes that have left both.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from coresize import processes
from coresize.processes import orphans, signals
from coresize.processes.ownership import Owner


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Command:
    """A command, which `start` starts and `close` ends.

    Call `start` within a ``try`` whose ``finally`` calls `close`: then the command ends
    with the program, whatever error is raised.

    Args:
        words: the program and its arguments.
        environment: the variables of the command, to which the mark is added; None for
            those of this process.
        own_session: whether the command leads a session of its own, so that signals of
            the terminal do not reach it. Without a session, it may leave processes
            behind.
        options: options of `subprocess.Popen`, such as ``stdout``.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        own_session: bool = True,
        **options: Any,
    ) -> None:
        self._words = words
        self._environment = environment
        self._own_session = own_session
        self._options = options
        self._mark = orphans.new()
        self._owner = Owner()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; call this only once.

        Raises:
            OSError: the program cannot be started.
            subprocess.SubprocessError: the ``preexec_fn`` has failed.
        """
        environment = os.environ if self._environment is None else self._environment
        with signals.held_back():
            self._process = subprocess.Popen(  # noqa: S603 - the caller's command
                self._words,
                env={**environment, **orphans.variables(self._mark)},
                start_new_session=self._own_session,
                **self._options,
            )
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the command was started and has not been reaped.

        It never runs in a fork of this process, which may not wait for it.
        """
        if self._process is None or not self._owner.is_here:
            return False
        return self._process.returncode is None

    def poll(self) -> int | None:
        """The exit code of the command; None if it is running or was not started."""
        if self._process is None or not self._owner.is_here:
            return None
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal to the process group of the command, if the command runs."""
        if self._process is not None and self.is_running:
            processes.signal_group(self._process.pid, number)

    def kill(self) -> int | None:
        """Kill the command, if it runs, and every process that it has started.

        Returns:
            The exit code; None if the command was not started.
        """
        if self._process is not None and self.is_running:
            processes.kill_session(self._process.pid)
            self._process.wait()
            orphans.end(self._mark)
        return self.poll()

    def close(self, *, patience: float = 0.0, everywhere: bool = False) -> None:
        """Kill the command as `kill` does or, if it has ended, its left-over processes.

        Args:
            patience: seconds that left-over processes in the session of the command
                have to end by themselves.
            everywhere: whether to kill processes that have left the session, too.
        """
        if self._process is None or not self._owner.is_here:
            return
        if self.is_running:
            self.kill()
            return
        if self._own_session:
            processes.kill_group(self._process.pid, patience)
        if everywhere:
            orphans.end(self._mark)
