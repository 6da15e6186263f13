"""The shards of a batch on this machine: any program, started, watched, measured.

Rule 1: each shard gets its part of cores and memory, by the variables that ``coresize
run`` sets; so it is ``coresize run`` that starts it. Rule 2: the kernel's count of
kills decides what ran out of memory. Rule 3: signals to this program reach its shards,
and when it ends they have ended; if it is killed they are, or a restart would run them
twice.
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
from coresize.batch.journal import status
from coresize.detection import available
from coresize.detection.limits import memory_budget
from coresize.errors import CoresizeError
from coresize.host import CLAIMED, SHARD, STATUS
from coresize.measuring.runs import meter_of
from coresize.planning import plan as planning
from coresize.planning.settings import load_settings
from coresize.processes import signals
from coresize.processes.commands import Command
from coresize.processes.oom import OomCounter


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coresize.measuring.meters import Meter

#: Seconds between two looks at what runs.
_LOOK = 0.2

#: Seconds that shards have to end after a signal was passed on.
_GRACE = 10.0


class ShardProcess:
    """One shard: its program, and what became of it.

    Attributes:
        shard: "i/n".
        words: the command line.
        log: the file that its output goes to.
        state: "waiting", "running", "done", "failed", "oom" or "stopped".
        code: what it ended with; minus the signal where one ended it.
        pid: its process; None before it is started.
        seconds: how long it has run, the last time.
        peak: bytes, the most of all its processes together.
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
        self._status = self.log.removesuffix(".log") + status.SUFFIX
        self._command: Command | None = None
        self._meter: Meter
        self._kills: OomCounter
        self._began = 0.0

    def start(self, share: Mapping[str, str]) -> None:
        """Start it, with what it may use.

        Raises:
            CoresizeError: its log cannot be written.
        """
        inherited = {n: text for n, text in os.environ.items() if n != CLAIMED}
        variables = {**share, SHARD: self.shard, STATUS: self._status}
        with self._open_log() as log:
            begun = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- {begun} shard {self.shard}: {shlex.join(self.words)}\n")
            log.flush()
            self._command = Command(
                [sys.executable, "-P", "-m", "coresize", "run", "--", *self.words],
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
        """The log, to add to; what the last start has left as its status is removed.

        Raises:
            CoresizeError: it cannot be written.
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
        """Measure it, and see whether it has ended."""
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
        self.state = "done" if self.code == 0 else "oom" if killed else "failed"

    def send(self, number: int) -> None:
        """Pass a signal on to it and all that it started."""
        if self._command:
            self._command.send(number)

    def kill(self) -> None:
        """End it, and all that it started, at once."""
        if self._command and self._command.is_running:
            self.code = self._command.kill()
            self.state = "stopped"

    def progress(self) -> dict[str, Any]:
        """How far its batch is, where it tells."""
        return status.read(self._status) or {}

    @property
    def resume(self) -> str:
        """The command that starts it again."""
        return f"{SHARD}={self.shard} {shlex.join(self.words)}"


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word


class Launcher:
    """All shards of a batch on this machine.

    Args:
        count: how many there are.
        words: the command line, in which {shard}, {index} and {count} are filled in.
        logs: the folder of their logs.
        memory: what one needs, "12GiB"; so many run at once as fit. None is all.
        at_once: so many at once at most.
        retry_oom: what was killed for memory is run again, alone, after all others.

    Attributes:
        parts: the shards.
        at_once: how many run at once.

    Raises:
        ConfigError: a number is not above 0, or the size is none.
        InsufficientMemoryError: not even one fits.
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
        # Below another `coresize shards` these are parts of its part: of i/n the part
        # j/m is (i + n*j)/(n*m), in turn or by a hash alike.
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
        """Run all to the end; returns 0 where every shard has, else 1 or 128 + signal.

        Args:
            show: called now and then, for whoever looks at `parts`.
        """
        # What is ignored, as by nohup, stays so.
        numbers = [n for n in signals.ending() if signal.getsignal(n) != signal.SIG_IGN]
        with signals.handled(numbers, self._forward):
            try:
                share = share_of(self.at_once)
                self._run([*self.parts], self.at_once, share, show)
                if self._retry_oom:
                    killed = [part for part in self.parts if part.state == "oom"]
                    self._run(killed, 1, share_of(1), show)
            finally:
                for part in self.parts:
                    part.kill()
        if self._signal is not None:
            return 128 + self._signal
        return 0 if all(part.state == "done" for part in self.parts) else 1

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
        """Let a signal that ends a program reach the shards first."""
        again = self._signal is not None
        self._signal = number
        self._deadline = time.monotonic() + (0.0 if again else _GRACE)
        for part in self.parts:
            part.send(number)


def share_of(at_once: int) -> dict[str, str]:
    """The variables that hand one of so many its part of cores and memory."""
    cores = max(1, available.available_cores() // at_once)
    found = {"CORESIZE_MAX_CORES": str(cores)}
    fraction = load_settings().memory_fraction
    budget = memory_budget(available.detect().memory, fraction)
    if budget is not None:
        found["CORESIZE_MAX_MEMORY"] = str(budget // at_once)
    return found
