"""A child command: started with a mark, waited for, and ended with all that it started.

Rule 1: a signal never finds a command that was started and that nobody knows. So the
object is there before the command is, and what comes meanwhile waits until it is noted.
Rule 2: a number is used only while it is the command's own: once the command has ended
and was waited for, the kernel may give it to another process.
Rule 3: what the command has started is found in three ways: by its parents, by the
session that the command leads, and by the mark in its environment (`orphans`), which
also finds what has left both.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from coresize import processes
from coresize.processes import orphans, signals


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Command:
    """A command, which `start` starts and `close` ends.

    Call `start` within a ``try`` whose ``finally`` calls `close`: then the command ends
    with the program, whatever is raised and wherever.

    Args:
        words: the program and its arguments.
        environment: its variables, to which the mark is added; None are those of this
            process.
        own_session: it leads a session: signals of a terminal do not reach it. One that
            leads none may leave processes behind.
        options: of `subprocess.Popen`, such as where its output goes.
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
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; once.

        Raises:
            OSError: the program cannot be started.
            subprocess.SubprocessError: what is to be done before it begins has failed.
        """
        environment = os.environ if self._environment is None else self._environment
        with signals.held_back():
            self._process = subprocess.Popen(  # noqa: S603 - callers say what is run
                self._words,
                env={**environment, **orphans.variables(self._mark)},
                start_new_session=self._own_session,
                **self._options,
            )
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether it was started, and nobody has seen its end yet."""
        return self._process is not None and self._process.returncode is None

    def poll(self) -> int | None:
        """What the command has ended with; None where it runs or was not started."""
        return None if self._process is None else self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal to the command, if it runs, and to all in its group."""
        if self._process is not None and self.is_running:
            processes.signal_group(self._process.pid, number)

    def kill(self) -> int | None:
        """End the command, if it runs, and all that it has started, at once.

        Returns:
            What it has ended with; None where it was not started.
        """
        if self._process is not None and self.is_running:
            processes.kill_session(self._process.pid)
            self._process.wait()
            orphans.end(self._mark)
        return self.poll()

    def close(self, *, patience: float = 0.0, everywhere: bool = False) -> None:
        """End the command as `kill` does; where it has ended, what it has left behind.

        Args:
            patience: seconds that what it has left in its session has to end by itself.
            everywhere: end also what has left the session.
        """
        if self._process is None:
            return
        if self.is_running:
            self.kill()
            return
        if self._own_session:
            processes.kill_group(self._process.pid, patience)
        if everywhere:
            orphans.end(self._mark)
