"""Trials of a command line."""

from __future__ import annotations

from coresize.errors import ConfigError
from coresize.measuring.commands import measure_command
from coresize.measuring.supervisor import Supervisor
from coresize.sweeping.measurements import Watch


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from coresize.sweeping.measurements import Trial


class Commands:
    """Trials of a command line, in which {workers} is the number.

    Args:
        words: the program and its arguments.
        timeout: seconds that one run may take, above 0.

    Raises:
        ConfigError: {workers} is not among them.
    """

    unit = "runs"
    threads = False

    def __init__(self, words: Sequence[str], timeout: float | None = None) -> None:
        if not any("{workers}" in word for word in words):
            allowed = "a command with {workers} in it, where the number is to stand"
            raise ConfigError("CMD", " ".join(words), allowed)
        self._words = words
        self._timeout = timeout
        self._cold = True

    def serial(self) -> Trial:
        """With one worker: the baseline.

        Before the first time once for nothing, as files come from the disk then.

        Raises:
            OSError: it cannot be started.
        """
        if self._cold:
            self.run(1)
            self._cold = False
        return self.run(1)

    def run(self, workers: int) -> Trial:
        """With so many workers, from its start to its end.

        Raises:
            OSError: it cannot be started.
        """
        words = [word.replace("{workers}", str(workers)) for word in self._words]
        supervisor = Supervisor(self._timeout)
        watch = Watch()
        run = measure_command(
            words, variables={"CORESIZE_WORKERS": str(workers)}, supervisor=supervisor
        )
        watch.stop()
        error = supervisor.failure(run.exit_code)
        done = 0 if error else 1
        return watch.trial(
            workers,
            done,
            cpu=run.cpu,
            peak_memory=run.peak,
            error=error,
            late=supervisor.late,
        )
