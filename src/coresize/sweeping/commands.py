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
    """Trials of a command line that takes the number of workers as {workers}.

    Args:
        words: the program and its arguments.
        timeout: seconds that one run may take, above 0.

    Raises:
        ConfigError: the words do not contain {workers}.
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
        """Run the command with one worker: the baseline.

        The first call runs the command once more without counting, because that run
        reads its files from the disk.

        Raises:
            OSError: the command cannot be started.
        """
        if self._cold:
            self.run(1)
            self._cold = False
        return self.run(1)

    def run(self, workers: int) -> Trial:
        """Run the command with this number of workers, from start to end.

        Raises:
            OSError: the command cannot be started.
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
