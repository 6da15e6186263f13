"""One call in a fresh process, measured."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from coresize import transfer
from coresize.detection.parse import format_bytes
from coresize.errors import TaskKilledError
from coresize.measuring import child
from coresize.measuring.runs import Pause, Run, ended, start_cgroup, tree_meter


if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from typing import Any, NoReturn

    from coresize.measuring.meters import Meter


def measure_call(call: bytes, method: str | None) -> Run:
    """Run a call, as `coresize.transfer` dumped it, and measure it.

    Raises:
        TaskKilledError: the process ended before the task did.
        BaseException: whatever the task raises.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=child.run, args=(call, there), name="coresize")
    process.start()
    there.close()
    try:
        return _Watch(process, here, method).run()
    finally:
        here.close()
        process.kill()
        process.join()


class _Watch:
    """One task in its process, from ready to done."""

    def __init__(
        self, process: SpawnProcess, pipe: Connection, method: str | None
    ) -> None:
        self.process = process
        self.pipe = pipe
        self.wanted = method
        self.pid = process.pid or 0
        #: Before the task, and where no cgroup may be made during it as well.
        self.meter: Meter = tree_meter(self.pid, method)
        self.idle = 0

    def run(self) -> Run:
        self._receive()  # it is ready
        self.meter.sample()
        self.idle = self.meter.peak
        own = self.meter
        cgroup = start_cgroup(self.wanted)
        if cgroup:
            cgroup.join(self.pid)
            self.meter, self.idle = cgroup, 0
        try:
            self.pipe.send("go")
            wall, cpu = self._receive()
            self.meter.sample()
        finally:
            self.meter.close()
        return Run(
            peak=max(0, self.meter.peak - self.idle),
            idle=own.peak if cgroup else self.idle,
            wall=wall,
            cpu=cpu,
            exit_code=0,
            method=self.meter.method,
        )

    def _receive(self) -> list[Any]:
        """What the process says next; measures while it says nothing."""
        pause = Pause()
        while not self.pipe.poll(pause.seconds):
            with pause:
                self.meter.sample()
        try:
            kind, *rest = self.pipe.recv()
        except EOFError:
            kind, rest = "gone", []
        if kind == "gone":
            self._fail()
        if kind == "error":
            raise transfer.load_error(*rest)
        return list(rest)

    def _fail(self) -> NoReturn:
        self.process.join()
        self.meter.sample()
        code = self.process.exitcode or 0
        seen = format_bytes(self.meter.peak)
        msg = f"the process of the task {ended(code)}, after {seen} of memory were seen"
        raise TaskKilledError(
            msg,
            exit_code=code,
            peak_memory=self.meter.peak,
        )
