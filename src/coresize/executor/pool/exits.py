"""How a worker ended, as the error that its task gets. Pure."""

from __future__ import annotations

import os
import pickle
import signal
import time

from coresize import processes
from coresize.detection.available import detect
from coresize.detection.limits import memory_limit
from coresize.errors import (
    TaskCrashedError,
    TaskKilledError,
    TaskOutOfMemoryError,
    TaskTimeoutError,
)
from coresize.executor import protocol
from coresize.host import LiveFor
from coresize.processes import exits, transfer
from coresize.processes.exits import was_killed
from coresize.processes.oom import OomCounter
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from coresize.executor.admission.memory import MemoryBound
    from coresize.executor.jobs import Job
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.pool.options import PoolOptions
    from coresize.executor.protocol import Message
    from coresize.model import OutOfMemory


#: Signals that others send; all the rest are faults of the process itself.
_SENT = frozenset(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
    if hasattr(signal, name)
)


_FEWER = "with memory= tasks start while they fit; fewer workers leave more for each"


def verdict(
    exit_code: int | None,
    *,
    peak: int,
    attempts: int,
    out_of_memory: OutOfMemory = "no",
    limit: str = "",
    shared_memory: int | None = None,
) -> TaskKilledError:
    """What became of the task whose worker ended.

    Args:
        exit_code: of the worker; minus the signal that ended it.
        peak: bytes, the most that was seen of it.
        attempts: how often the task was started.
        out_of_memory: what the kernel's counters say.
        limit: a sentence about the memory limit.
        shared_memory: bytes of /dev/shm, None where there is none.
    """
    seen = f", with {format_bytes(peak)} of memory" if peak else ""
    name = exits.signal_name(-(exit_code or 0))
    cls, text = TaskKilledError, f"its worker was ended by {name}{seen}"
    if exit_code is None or exit_code >= 0:
        cls = TaskCrashedError
        text = f"its worker ended itself, exit status {exit_code}"
    elif exits.was_killed(exit_code) and out_of_memory != "no":
        probably = "probably " if out_of_memory == "probably" else ""
        cls = TaskOutOfMemoryError
        text = f"its worker was {probably}killed for memory{seen}; {limit}; {_FEWER}"
    elif -exit_code == getattr(signal, "SIGBUS", None) and shared_memory is not None:
        cls = TaskCrashedError
        text = f"{text}; /dev/shm has {format_bytes(shared_memory)}"
    elif -exit_code not in _SENT:
        cls = TaskCrashedError
    times = f" (attempt {attempts})" if attempts > 1 else ""
    return cls(
        f"the task did not end: {text}{times}",
        exit_code=exit_code,
        peak_memory=peak,
        attempts=attempts,
    )


def lost(
    error: BaseException,
    *,
    peak: int,
    attempts: int,
    out_of_memory: OutOfMemory,
    limit: str,
) -> TaskOutOfMemoryError:
    """What a task gets that failed as the kernel killed what it had started.

    Args:
        error: what it raised.
        peak: bytes, the most that was seen of it.
        attempts: how often the task was started.
        out_of_memory: "yes" or "probably".
        limit: a sentence about the memory limit.
    """
    seen = f", with {format_bytes(peak)} of memory" if peak else ""
    probably = "probably " if out_of_memory == "probably" else ""
    times = f" (attempt {attempts})" if attempts > 1 else ""
    return TaskOutOfMemoryError(
        f"the task failed with {type(error).__name__}: a process that it had started "
        f"was {probably}killed for memory{seen}; {limit}; {_FEWER}{times}",
        exit_code=exits.KILLED,
        peak_memory=peak,
        attempts=attempts,
    )


def overdue(seconds: float, *, peak: int, attempts: int) -> TaskTimeoutError:
    """What a task gets that took longer than it may."""
    return TaskTimeoutError(
        f"the task took longer than {seconds:g} s, and its worker was ended",
        exit_code=exits.KILLED,
        peak_memory=peak,
        attempts=attempts,
    )


def confused(attempts: int) -> TaskCrashedError:
    """What a task gets whose worker has answered something that it was not asked."""
    return TaskCrashedError(
        "the task did not end: its worker has sent something else than its answers, as "
        "where a task writes to a descriptor that it has not opened, or forks and lets "
        "both go on; the worker was ended",
        exit_code=exits.KILLED,
        peak_memory=0,
        attempts=attempts,
    )


#: What counts less: a kill may be bad luck, but less so of the only worker.
_KILL, _KILL_ALONE = 0.05, 0.3
_STRAY = 0.005


def weight(code: int | None, *, alone: bool, memory: bool = True) -> float:
    """How much the end of a worker that was not ready counts as a failure.

    Who ends by itself will do so again; who crashes, or is killed for memory, may. A
    kill by somebody else says nothing of the next start.

    Args:
        code: its exit code.
        alone: there was no other worker.
        memory: the kernel has killed something for memory meanwhile.
    """
    if code is None or code >= 0:
        return 1.0
    if not memory and -code in _SENT:
        return _STRAY
    return _KILL_ALONE if alone else _KILL


def unready(code: int | None, *, advice: str) -> str:
    """How a worker ended that was not ready, and what may help.

    Args:
        code: its exit code.
        advice: what to do where it ended itself.
    """
    if code is not None and code < 0:
        name = exits.signal_name(-code)
        return f"by {name}; is there memory for one, and for what it loads?"
    return f"exit code {code}; {advice}"


# -----------------------------------------------------------------------------
# What becomes of the jobs of a worker that has ended.


#: Seconds in which no process is started and killed for memory: of a task that fails,
#: and of one that does not, where it would only be left unsaid of whom it was.
_INSTANT, _QUICK = 0.001, 0.1


class Exits:
    """Tells the first job of a dead worker why, and which are to be run again."""

    def __init__(self, options: PoolOptions, memory: MemoryBound | None) -> None:
        self._options = options
        self._memory = memory
        self.attribution = Attribution()
        # Workers start where this process is, whoever starts them for it.
        self._starts = OomCounter(processes.own())

    def weight(self, code: int | None, *, alone: bool) -> float:
        """How much the end of a worker that was not ready counts as a failure."""
        memory = was_killed(code) and self._starts.take_recent() != "no"
        return weight(code, alone=alone, memory=memory)

    def look(self, workers: list[WorkerHandle]) -> None:
        """See what was killed, and what running tasks take."""
        self.attribution.look(workers)
        for worker in workers:
            if not (worker.running and worker.ready):
                continue
            worker.look()
            memory = worker.memory()
            if memory:
                job = worker.running[0]
                job.seen = max(job.seen, memory.anonymous_peak - worker.base)

    def explain(
        self, worker: WorkerHandle, message: Message, workers: list[WorkerHandle]
    ) -> TaskOutOfMemoryError | None:
        """What an answer becomes where memory ran out for what the task had started.

        Args:
            worker: the worker, whose first job is answered.
            message: the answer.
            workers: all workers.
        """
        kind, _, _, seconds, payload = message
        if seconds < (_QUICK if kind == protocol.VALUE else _INSTANT):
            return None
        moved = self.attribution.of_task(worker, workers)
        if moved == "no" or kind == protocol.VALUE:  # it has done without
            return None
        job = worker.running[0]
        failed = pickle.loads(payload)  # noqa: S301 - of our own worker
        error = (
            failed.error if kind == protocol.FAILED else transfer.load_error(*failed)
        )
        killed = lost(
            error,
            peak=job.seen,
            attempts=job.attempts,
            out_of_memory=moved,
            limit=_memory_limit(),
        )
        killed.__cause__ = error
        return killed

    def again(
        self,
        worker: WorkerHandle,
        code: int | None,
        *,
        busy: int,
        others: list[WorkerHandle],
    ) -> list[Job]:
        """The jobs to be run again, after the first has got its verdict.

        Args:
            worker: the worker.
            code: its exit code.
            busy: how many were at work, this one included.
            others: all workers but this one.
        """
        jobs = list(worker.running)
        worker.running.clear()
        if not jobs:
            return []
        if not worker.ready:  # it has begun none
            for job in jobs:
                job.attempts -= 1
            return jobs
        first, *rest = jobs
        if first.seen:
            first.measured(worker.base + first.seen)
        for job in rest:
            job.attempts -= 1
        if worker.kill_reason == "evicted" and self._memory:
            self._memory.rules.evicted(first, first.seen)
            return jobs
        error = self._verdict(worker, first, code, others)
        is_oom = isinstance(error, TaskOutOfMemoryError)
        if is_oom and self.may_retry(worker, first, busy=busy, others=len(others)):
            return jobs
        is_over = first.fail(error)
        first.wake()  # no other answer may come that would
        # Else calls of a map: those after the one that it died of.
        return rest if is_over else jobs

    def may_retry(
        self, worker: WorkerHandle, job: Job, *, busy: int, others: int
    ) -> bool:
        """Whether a task for which memory ran out is run again; as `again`."""
        if self._memory is None:
            return False
        had_all = not others and not worker.served
        retry = self._memory.may_retry(job, had_all=had_all)
        self._memory.rules.killed(job, job.seen, busy)
        return retry

    def _verdict(
        self,
        worker: WorkerHandle,
        job: Job,
        code: int | None,
        others: list[WorkerHandle],
    ) -> TaskKilledError:
        if worker.kill_reason == "timeout":
            seconds = self._options.timeout or 0.0
            return overdue(seconds, peak=job.seen, attempts=job.attempts)
        moved: OutOfMemory = "no"
        if was_killed(code) and not worker.kill_reason:
            moved = self.attribution.of_worker(worker, others)
        return verdict(
            code,
            peak=job.seen,
            attempts=job.attempts,
            out_of_memory=moved,
            limit=_memory_limit() if moved != "no" else "",
            shared_memory=_shared_memory(),
        )


def _memory_limit() -> str:
    """The kernel's limit: what the environment says, right or wrong, kills nobody."""
    return memory_limit(detect(LiveFor(processes.own())))


def _shared_memory() -> int | None:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - its size, not a file in it
    except (AttributeError, OSError):
        return None
    return shm.f_frsize * shm.f_blocks


# -----------------------------------------------------------------------------
# Whose process each kill for memory was: one kill, one verdict.
#
# The kernel says how many processes of a cgroup it has killed for memory, and not
# which. But who was killed can be seen: SIGKILL is pending, or it is on its way out, or
# gone. So each time the count has moved, all are looked at, and the kill is spent on
#
# 1. a worker that was killed, and not by us: its task is the victim;
# 2. else a task of which a process was killed; else one of which a process is there no
#    more since the last look;
# 3. else, when a task ends, on that, if its worker has waited for a child meanwhile.
#
# What explains nothing for a moment is dropped: it was a process of others, and must
# not blame the next worker that dies by other means. A moment, as the kernel counts
# first and sends the signal then. Where more are concerned than were killed the verdict
# is "probably".


#: Seconds for which a kill waits for who is concerned.
_MOMENT = 0.5


class Attribution:
    """The kills for memory where the workers of one pool run."""

    def __init__(self) -> None:
        self._counts: dict[str, OomCounter] = {}
        #: When kills were seen that are nobody's yet, the latest last.
        self._unexplained: dict[OomCounter, list[float]] = {}

    def on_ready(self, worker: WorkerHandle) -> None:
        """Take note of where a worker's kills are counted."""
        cgroup = processes.read(worker.pid, "cgroup")
        if cgroup not in self._counts:
            self._counts[cgroup] = OomCounter(worker.pid)
        worker.kills = self._counts[cgroup]
        worker.has_reaped()  # what its main module and its initializer have started

    def look(
        self, workers: Iterable[WorkerHandle], dead: WorkerHandle | None = None
    ) -> None:
        """Spend what is new on those that are concerned, where something runs.

        Args:
            workers: the workers.
            dead: one more, which has ended by SIGKILL.
        """
        now = time.monotonic()
        every = [dead, *workers] if dead else list(workers)
        for kills in self._counts.values():
            seen = self._unexplained.pop(kills, [])
            seen = [one for one in seen if now - one < _MOMENT] + [now] * kills.take()
            if seen and (dead or any(worker.running for worker in every)):
                spent = _spend(kills, len(seen), every)
                self._unexplained[kills] = seen[spent:]

    def of_worker(
        self, worker: WorkerHandle, others: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """Whether a worker that has ended by SIGKILL was killed for memory."""
        self.look(others, dead=worker)
        return worker.killed

    def of_task(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """Whether a process was killed for memory that a task has started.

        Args:
            worker: the worker of the task, asked once for each of its answers.
            workers: all workers.
        """
        self.look(workers)
        lost, worker.lost = worker.lost, "no"
        reaped, kills = worker.has_reaped(), worker.kills
        if lost == "no" and reaped and kills and self._unexplained.get(kills):
            self._unexplained[kills].pop(0)
            others = any(other.started for other in workers if other is not worker)
            return "probably" if others or kills.is_of_all else "yes"
        return lost


def _spend(kills: OomCounter, count: int, workers: list[WorkerHandle]) -> int:
    """Tell those that are concerned, the most probable first; returns how many."""
    here = [
        worker
        for worker in workers
        if worker.kills in {kills, None} and not worker.kill_reason
    ]
    ended = {worker for worker in here if _has_ended(worker)}
    killed = [worker for worker in here if worker in ended and worker.killed == "no"]
    others = [worker for worker in here if worker.lost == "no" and worker not in ended]
    losses = {worker: worker.loss() for worker in others if worker.running}
    losing = sorted(filter(losses.get, losses), key=losses.__getitem__, reverse=True)
    verdict: OutOfMemory = "yes"
    if len(killed) + len(losing) > count or kills.is_of_all:
        verdict = "probably"
    for worker in killed[:count]:
        worker.killed = verdict
    for worker in losing[: max(0, count - len(killed))]:
        worker.lost = verdict
    return min(count, len(killed) + len(losing))


def _has_ended(worker: WorkerHandle) -> bool:
    """Whether a worker was killed, or is gone."""
    return processes.is_killed(worker.pid) or not processes.exists(worker.pid, "stat")


# -----------------------------------------------------------------------------
# When another worker may be started, after some could not be.
#
# The kernel refuses a process or a file for a moment (EAGAIN, EMFILE, ENOMEM), a fork
# server is killed, a worker ends while it imports. Rule 1: while one worker is ready
# the pool goes on with what it has, and tries again later, later each time. Rule 2:
# where none is, failures in a row add up until the pool is given up. Rule 3: what can
# never go away, as arguments that cannot be pickled, is none of this: it ends the pool
# at once.


#: Failures in a row, without a worker that is ready, after which no more are tried.
_MOST = 3.0

#: What each counts where the kernel refuses, so that seven are tried within 6 s.
REFUSED = _MOST / 7

#: Seconds until the next try: at first, and at most.
_FIRST, _LONGEST = 0.1, 2.0


class Starts:
    """The failed starts of one pool's workers since the last that succeeded."""

    def __init__(self) -> None:
        self._failures = self._wait = self._due = 0.0

    @property
    def may_try(self) -> bool:
        """Whether a worker may be started now."""
        return time.monotonic() >= self._due

    def succeed(self) -> None:
        """A worker is ready."""
        self._failures = self._wait = self._due = 0.0

    def fail(self, weight: float, *, alone: bool, wait: bool) -> bool:
        """A worker could not be started, or has ended before it was ready.

        Args:
            weight: how much that counts.
            alone: no worker is ready, nor may become so.
            wait: the next must not be tried at once: it would fail as well. A kill is
                bad luck, and who waits after one loses workers to the next.

        Returns:
            Whether the pool is to be given up.
        """
        if wait:
            self._wait = min(_LONGEST, 2 * self._wait or _FIRST)
            self._due = time.monotonic() + self._wait
        if not alone:
            return False
        self._failures += weight
        return self._failures > _MOST - 0.001  # sums of parts are not exact


def may_go_away(error: BaseException) -> bool:
    """Whether a start that failed so may succeed later.

    EOFError comes from a fork server that ended meanwhile, and RuntimeError from a
    thread that cannot be started; but it has other causes as well.

    >>> may_go_away(BlockingIOError(11, "try again")), may_go_away(TypeError())
    (True, False)
    """
    if isinstance(error, RuntimeError):
        return "new thread" in str(error)
    return isinstance(error, (OSError, EOFError, MemoryError))
