"""Starts, watches and measures the shards of a batch on this machine; of any program.

Rule 1: each shard gets its part of the cores and memory, by the variables that
``coresize run`` sets; so ``coresize run`` starts the shard. Rule 2: the kernel's count
of kills decides which shard ran out of memory. Rule 3: this program passes signals on
to its shards, and does not end before them. If it is killed, they are killed too;
otherwise a restart would run them twice.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from coresize.arguments import check_count
from coresize.batch import shards
from coresize.batch.exit_codes import ExitCode, worst
from coresize.batch.journal import overview, status
from coresize.detection import available
from coresize.detection.limits import memory_budget
from coresize.errors import CoresizeError
from coresize.host import CLAIMED, RETRY, SHARD, STATUS
from coresize.measuring.runs import meter_of
from coresize.planning import plan as planning
from coresize.planning.settings import load_settings
from coresize.processes import signals
from coresize.processes.commands import Command
from coresize.processes.oom import OomCounter


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coresize.measuring.meters import Meter

#: The status of tasks that were killed for memory, and the state of such shards.
OOM = "oom"

#: Seconds between two checks of the running shards.
_LOOK = 0.2

#: Seconds in which shards must end after a signal; then they are killed.
_GRACE = 10.0


class ShardProcess:
    """The program of one shard, and its state.

    Attributes:
        shard: "i/n".
        words: the command line.
        log: the file for the output of the program.
        state: "waiting", "running", "done", "failed", "oom" or "stopped".
        code: the exit status; minus the signal if a signal ended the program.
        pid: the process; None before the start.
        seconds: how long the last start has run.
        peak: the most bytes of all its processes together.
        short_of_memory: whether the program was killed for memory, or has said so of
            tasks of its batch.
    """

    def __init__(self, index: int, count: int, words: Sequence[str], logs: str) -> None:
        self.shard = f"{index}/{count}"
        places = {"{shard}": self.shard, "{index}": str(index), "{count}": str(count)}
        self.words = [_filled(word, places) for word in words]
        self.log = f"{logs}/shard-{index}-of-{count}.log"
        self.state = "waiting"
        self.code: int | None = None
        self.pid: int | None = None
        self.seconds = 0.0
        self.peak = 0
        self.short_of_memory = False
        self._status = self.log.removesuffix(".log") + status.SUFFIX
        self._command: Command | None = None
        self._meter: Meter
        self._kills: OomCounter
        self._began = 0.0

    def start(self, share: Mapping[str, str]) -> None:
        """Start the program, with the variables of its cores and memory.

        If memory ran out at the last start, the batch of the program is told to run the
        tasks again that were lost to that: their errors are in its journal.

        Raises:
            CoresizeError: the log cannot be written.
        """
        inherited = {n: text for n, text in os.environ.items() if n != CLAIMED}
        variables = {**share, SHARD: self.shard, STATUS: self._status}
        if self.short_of_memory:
            variables[RETRY] = ",".join(filter(None, [inherited.get(RETRY), OOM]))
        with self._open_log() as log:
            begun = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- {begun} shard {self.shard}: {shlex.join(self.words)}\n")
            log.flush()
            self._command = Command(
                # Quietly: the log is the program's own.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "coresize",
                    "run",
                    "-q",
                    "--",
                    *self.words,
                ],
                environment={**inherited, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self.pid = self._command.start().pid
        self.state, self.code = "running", None
        self._kills = OomCounter(self.pid)
        self._meter = meter_of(None)(self.pid)
        self._began = time.monotonic()

    def _open_log(self) -> TextIO:
        """Open the log for appending; remove the status file of the last start.

        Raises:
            CoresizeError: the log cannot be written.
        """
        log = Path(self.log)
        try:
            Path(self._status).unlink(missing_ok=True)
            log.parent.mkdir(parents=True, exist_ok=True)
            return log.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            msg = f"the log {self.log} cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None

    def look(self) -> None:
        """Measure the program, and update the state if it has ended."""
        if self._command is None or self.state != "running":
            return
        self.seconds = time.monotonic() - self._began
        self._meter.sample()
        self.peak = max(self.peak, self._meter.peak)
        self.code = self._command.poll()
        if self.code is None:
            return
        self._command.close(everywhere=self.code != 0)
        killed = self._kills.explains(self.code, of_tree=True)
        counts = self.progress().get("counts") or {}
        self.short_of_memory = killed or counts.get(OOM, 0) > 0
        self.state = self._ended()

    def _ended(self) -> str:
        if self.code == ExitCode.OK:
            return "done"
        if self.code == ExitCode.CONTINUE:
            return "stopped"
        return OOM if self.short_of_memory else "failed"

    def send(self, number: int) -> None:
        """Send a signal to the program and all processes that it started."""
        if self._command:
            self._command.send(number)

    def kill(self) -> None:
        """Kill the program and all processes that it started."""
        if self._command and self._command.is_running:
            self.code = self._command.kill()
            self.state = "stopped"

    def progress(self) -> dict[str, Any]:
        """The progress of the shard's batch, from its status file; may be empty."""
        found = status.read(self._status) or {}
        if not found or self.state == "running":
            return found
        return overview.newest(self._status, found)

    @property
    def resume(self) -> str:
        """The command that starts the shard again."""
        return f"{SHARD}={self.shard} {shlex.join(self.words)}"


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word


class Launcher:
    """All shards of a batch on this machine.

    Args:
        count: the number of shards.
        words: the command line, with the placeholders {shard}, {index} and {count}.
        logs: the folder of the logs.
        memory: the memory of one shard, "12GiB": as many shards run at a time as fit.
            None sets no such bound.
        at_once: the most shards that run at a time.
        retry_oom: shards that were killed for memory, or some of whose tasks were, run
            again at the end, one by one.

    Attributes:
        parts: the shards.
        at_once: the most shards that run at a time.

    Raises:
        ConfigError: a number is not above 0, or the size is not valid.
        InsufficientMemoryError: the memory is not enough for one shard.
    """

    def __init__(
        self,
        count: int,
        words: Sequence[str],
        *,
        logs: str,
        memory: str | None = None,
        at_once: int | None = None,
        retry_oom: bool = False,
    ) -> None:
        for name, number in (("shards", count), ("at_once", at_once)):
            if number is not None:
                check_count(name, number, 1)
        # Inside another `coresize shards`, these are parts of its shard i/n: part j/m
        # of that shard is (i + n*j)/(n*m), both by index and by key.
        first, step = 0, 1
        if outer := shards.own_shard():
            first, step = outer.index, outer.count
        self.parts = [
            ShardProcess(first + step * index, step * count, words, logs)
            for index in range(count)
        ]
        self.at_once = min(count, at_once or count)
        if memory is not None:
            plan = planning.plan_workers(memory=memory, strict=True)
            self.at_once = min(self.at_once, plan.bounds.get("memory", count))
        self._retry_oom = retry_oom
        self._signal: int | None = None
        self._deadline = 0.0

    def run(self, show: Callable[[], object]) -> int:
        """Run all shards; returns the exit status of all of them together.

        This is 128 + the signal after a signal, unless a shard says that it can go on.

        Args:
            show: a function that is called repeatedly, to show `parts`.
        """
        # Signals that are ignored, as by nohup, stay ignored.
        numbers = [n for n in signals.ending() if signal.getsignal(n) != signal.SIG_IGN]
        with signals.handled(numbers, self._forward):
            try:
                share = share_of(self.at_once)
                self._run([*self.parts], self.at_once, share, show)
                if self._retry_oom:
                    short = [part for part in self.parts if part.short_of_memory]
                    self._run(short, 1, share_of(1), show)
            finally:
                for part in self.parts:
                    part.kill()
        status = worst({_status(part) for part in self.parts})
        if self._signal is not None and status != ExitCode.CONTINUE:
            return 128 + self._signal
        return status

    def _run(
        self,
        parts: list[ShardProcess],
        at_once: int,
        share: Mapping[str, str],
        show: Callable[[], object],
    ) -> None:
        waiting = list(reversed(parts))
        while True:
            running = [part for part in parts if part.state == "running"]
            while waiting and len(running) < at_once and self._signal is None:
                part = waiting.pop()
                part.start(share)
                running.append(part)
            show()
            if not running:
                return
            time.sleep(_LOOK)
            for part in running:
                part.look()
            if self._signal is not None and time.monotonic() > self._deadline:
                for part in running:
                    part.kill()

    def _forward(self, number: int, _frame: object) -> None:
        """Pass a signal on to the shards; a second signal kills them at once."""
        again = self._signal is not None
        self._signal = number
        self._deadline = time.monotonic() + (0.0 if again else _GRACE)
        for part in self.parts:
            part.send(number)


def _status(part: ShardProcess) -> int:
    """The exit status of a shard, as far as it decides about that of all."""
    codes = {"done": ExitCode.OK, OOM: ExitCode.OUT_OF_MEMORY}
    if part.code == ExitCode.CONTINUE:
        return ExitCode.CONTINUE
    return codes.get(part.state, ExitCode.FAILED)


def share_of(at_once: int) -> dict[str, str]:
    """The variables that give each of `at_once` shards its part of cores and memory."""
    cores = max(1, available.available_cores() // at_once)
    found = {"CORESIZE_MAX_CORES": str(cores)}
    fraction = load_settings().memory_fraction
    budget = memory_budget(available.detect().memory, fraction)
    if budget is not None:
        found["CORESIZE_MAX_MEMORY"] = str(budget // at_once)
    return found
