"""The ends of workers: the error that a task gets, and the jobs that run again.

All of this runs in the dispatcher's thread. There are three parts:

1. The errors. `verdict` and its neighbours are pure functions: they turn an exit code
   and what is known of a task into the error that its future gets.
2. `Exits` settles the jobs of a worker that has ended, in this order. If the worker was
   never ready, all jobs go back. Else the worker died of its first job, and has not
   begun the others. After an eviction, all jobs go back. Otherwise `_verdict` asks
   `Attribution` for the cause; after a kill for memory that may be retried, all jobs go
   back; else the first job gets the error, and the others go back. Of a chunk only the
   next call gets the error, and the rest of the chunk goes back as well.
3. `Starts` decides when another worker may be started, after some could not be.
"""

from __future__ import annotations

import logging
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
from coresize.executor.pool.attribution import Attribution
from coresize.host import LiveFor
from coresize.processes import exits, main_module, transfer
from coresize.processes.exits import was_killed
from coresize.processes.oom import OomCounter, shows_kill
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.admission.memory import MemoryBound
    from coresize.executor.jobs import Job
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.pool.options import PoolOptions
    from coresize.executor.protocol import Message
    from coresize.model import OutOfMemory


_log = logging.getLogger("coresize")

#: Signals that other processes send; any other signal is a fault of the process itself.
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
    """The error of a task whose worker has ended.

    Args:
        exit_code: the exit code of the worker; minus the number of a signal.
        peak: the most bytes that were seen of the task.
        attempts: how often the task was started.
        out_of_memory: whether the worker was killed for memory, by the kernel's counts.
        limit: a sentence about the memory limit.
        shared_memory: bytes of /dev/shm; None if it does not exist.
    """
    seen = f", with {format_bytes(peak)} of memory" if peak else ""
    name = exits.signal_name(-(exit_code or 0))
    cls, text = TaskKilledError, f"its worker was ended by {name}{seen}"
    if exits.may_be_killed(exit_code) and out_of_memory != "no":
        probably = "probably " if out_of_memory == "probably" else ""
        cls = TaskOutOfMemoryError
        text = f"its worker was {probably}killed for memory{seen}; {limit}; {_FEWER}"
    elif exit_code is None:
        text = f"its worker {exits.describe(None)}{seen}"
    elif exit_code >= 0:
        cls = TaskCrashedError
        text = f"its worker ended itself, exit status {exit_code}"
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
    """The error of a task that failed because the kernel killed one of its processes.

    Args:
        error: the error that the task raised.
        peak: the most bytes that were seen of the task.
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


def explained(
    error: BaseException, *, peak: int, attempts: int, out_of_memory: OutOfMemory
) -> TaskOutOfMemoryError:
    """The error `lost` of a task on this machine, with its first error as the cause."""
    killed = lost(
        error,
        peak=peak,
        attempts=attempts,
        out_of_memory=out_of_memory,
        limit=_memory_limit(),
    )
    killed.__cause__ = error
    return killed


def tell_unneeded(out_of_memory: OutOfMemory) -> None:
    """Log that a task has succeeded although one of its processes was killed."""
    if out_of_memory != "no":
        probably = "probably " if out_of_memory == "probably" else ""
        _log.warning(
            "a process that a task had started was %skilled for memory; the task has "
            "succeeded without it",
            probably,
        )


def overdue(seconds: float, *, peak: int, attempts: int) -> TaskTimeoutError:
    """The error of a task that took longer than its time limit."""
    return TaskTimeoutError(
        f"the task took longer than {seconds:g} s, and its worker was ended",
        exit_code=exits.KILLED,
        peak_memory=peak,
        attempts=attempts,
    )


def confused(attempts: int) -> TaskCrashedError:
    """The error of a task whose worker has sent something else than its answers."""
    return TaskCrashedError(
        "the task did not end: its worker has sent something else than its answers, as "
        "where a task writes to a descriptor that it has not opened, or forks and lets "
        "both go on; the worker was ended",
        exit_code=exits.KILLED,
        peak_memory=0,
        attempts=attempts,
    )


#: Weights below 1: a kill may be bad luck, though less probably that of the only
#: worker; and a kill by another process says nothing.
_KILL, _KILL_ALONE = 0.05, 0.3
_STRAY = 0.005


def weight(code: int | None, *, alone: bool, memory: bool = True) -> float:
    """How much the end of a worker that was not ready counts as a failure.

    If a worker ends by itself, the next one will, too. If it crashes, or is killed for
    memory, the next one may. A kill by another process says nothing about the next one.

    Args:
        code: the exit code of the worker.
        alone: there was no other worker.
        memory: the kernel has recently killed a process for memory.
    """
    if code is None or code >= 0:
        return 1.0
    if not memory and -code in _SENT:
        return _STRAY
    return _KILL_ALONE if alone else _KILL


def unready(code: int | None) -> str:
    """A text about the end of a worker that was not ready, and what may help.

    Args:
        code: the exit code of the worker.
    """
    if unguarded := main_module.explain_exit(code):
        return unguarded
    if code is None:
        return f"each {exits.describe(code)}; {main_module.advice()}"
    if code < 0:
        name = exits.signal_name(-code)
        return f"by {name}; is there memory for one, and for what it loads?"
    return f"exit code {code}; {main_module.advice()}"


# -----------------------------------------------------------------------------
# Settling the jobs of a worker that has ended.


#: In a shorter time than these seconds, a task has no process killed for memory: if the
#: task failed, and if it succeeded. After a success the kill changes no answer, and is
#: only left unattributed.
_INSTANT, _QUICK = 0.001, 0.1


class Exits:
    """Settles the jobs of workers that have ended, for the dispatcher.

    Args:
        options: how workers are made, and what bounds their tasks.
        memory: the bound of memory; None if the pool has no ``memory=``.
    """

    def __init__(self, options: PoolOptions, memory: MemoryBound | None) -> None:
        self._options = options
        self._memory = memory
        self.attribution = Attribution()
        # Workers start in the cgroup of this process, even from a fork server.
        self._starts = OomCounter(processes.own())

    def weight(self, code: int | None, *, alone: bool) -> float:
        """The function `weight`, with the kernel's present count of kills."""
        memory = was_killed(code) and self._starts.take_recent() != "no"
        return weight(code, alone=alone, memory=memory)

    def look(self, workers: list[WorkerHandle]) -> None:
        """Look for kills, and at the memory and the processes of running tasks."""
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
        """The error in place of an answer, if the task lost a process for memory.

        None leaves the answer as it is: no process of the task was killed, or the task
        has succeeded without that process.

        Args:
            worker: the worker, whose first job is answered.
            message: the answer.
            workers: all workers.
        """
        kind, _, _, seconds, payload = message
        if seconds < (_QUICK if kind == protocol.VALUE else _INSTANT):
            return None
        if kind == protocol.VALUE:
            tell_unneeded(self.attribution.of_success(worker, workers))
            return None
        moved = self.attribution.of_task(worker, workers)
        if moved == "no" and not self.attribution.may_explain(worker, workers):
            return None
        failed = pickle.loads(payload)  # noqa: S301 - of our own worker
        error = (
            failed.error if kind == protocol.FAILED else transfer.load_error(*failed)
        )
        if moved == "no" and shows_kill(error):
            moved = self.attribution.take_doubtful(worker, workers)
        if moved == "no":
            return None
        job = worker.running[0]
        return explained(
            error, peak=job.seen, attempts=job.attempts, out_of_memory=moved
        )

    def again(
        self,
        worker: WorkerHandle,
        code: int | None,
        *,
        busy: int,
        others: list[WorkerHandle],
    ) -> list[Job]:
        """Settle the first job of a worker that has ended; returns the jobs to requeue.

        Args:
            worker: the worker.
            code: the exit code of the worker.
            busy: the number of workers that had a job, this one included.
            others: all workers but this one.
        """
        jobs = list(worker.running)
        worker.running.clear()
        if not jobs:
            return []
        if not worker.ready:  # the worker has begun no job
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
        first.wake()  # perhaps no later answer wakes the reader
        # If the job is not over, it is a chunk with calls after the failed one.
        return rest if is_over else jobs

    def may_retry(
        self, worker: WorkerHandle, job: Job, *, busy: int, others: int
    ) -> bool:
        """Whether to run a task again, after memory ran out; the rules learn the kill.

        Args:
            worker: the worker of the task.
            job: the task.
            busy: the number of workers that had a job, this one included.
            others: the number of other workers.
        """
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
        if exits.may_be_killed(code) and not worker.kill_reason:
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
    """The limit as the kernel knows it; variables of the environment kill nothing."""
    return memory_limit(detect(LiveFor(processes.own())))


def _shared_memory() -> int | None:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - its size, not a file in it
    except (AttributeError, OSError):
        return None
    return shm.f_frsize * shm.f_blocks


# -----------------------------------------------------------------------------
# Deciding when another worker may be started, after some could not be.
#
# The kernel may refuse a process or a file for a moment (EAGAIN, EMFILE, ENOMEM), a
# fork server may be killed, a worker may end while it imports. Rule 1: while one worker
# is ready, the pool goes on with the workers that it has, and tries again later, with
# growing delays. Rule 2: if none is ready, consecutive failures add up until the pool
# is given up. Rule 3: an error that can never go away, such as arguments that cannot be
# pickled, ends the pool at once.


#: The sum of consecutive failures, with no worker ready, that ends the pool.
_MOST = 3.0

#: The weight of a refusal by the kernel, so that there are seven tries within 6 s.
REFUSED = _MOST / 7

#: Seconds until the next try: the first delay, and the longest.
_FIRST, _LONGEST = 0.1, 2.0


class Starts:
    """The failed starts of one pool's workers since the last successful start."""

    def __init__(self) -> None:
        self._failures = self._wait = self._due = 0.0

    @property
    def may_try(self) -> bool:
        """Whether a worker may be started now."""
        return time.monotonic() >= self._due

    def succeed(self) -> None:
        """Note that a worker is ready."""
        self._failures = self._wait = self._due = 0.0

    def fail(self, weight: float, *, alone: bool, wait: bool) -> bool:
        """Note that a worker could not be started, or has ended before it was ready.

        Args:
            weight: how much the failure counts.
            alone: no worker is ready; after a refusal, none is starting either.
            wait: delay the next try, which would fail as well. After a kill, which is
                bad luck, the pool does not wait: it would have fewer workers at the
                next kill.

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
    """Whether a start that failed with an error may succeed later.

    A fork server that has ended causes EOFError. A thread that cannot be started causes
    RuntimeError, which has other causes as well.

    >>> may_go_away(BlockingIOError(11, "try again")), may_go_away(TypeError())
    (True, False)
    """
    if isinstance(error, RuntimeError):
        return "new thread" in str(error)
    return isinstance(error, (OSError, EOFError, MemoryError))
