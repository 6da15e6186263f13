"""The thread that gives jobs to workers and receives their answers.

Everything that happens to a pool passes through one thread with one loop and one
`select`. This text says which thread touches what, and in which order events are
settled.

**Who touches what.** Only the dispatcher's thread changes the workers, the selector,
the waiting jobs (`waiting`) and the bounds. Threads of the program append jobs to
`coresize.executor.pool.submitted.Submitted` under its lock, ask there for the end of
the pool, and wake the dispatcher. They set `size`, and note what a worker would inherit
(`_moment`). Otherwise they only read: attributes that the dispatcher replaces as a
whole (`broken`, `refused`), `handles`, the length of `waiting`, the call times and the
counts of the rules. The dispatcher's thread settles the futures of its jobs, and so
runs their callbacks.

The exception is the time without that thread. The thread that submits the first job
runs `_start`, under the lock of `Submitted`; with the start method fork, it starts all
workers there. The thread that closes an unused pool runs `_end`.

**What the dispatcher waits for.** Only for the selector. Sockets never block: bytes
that cannot be written wait for an event. Each turn (`_turn`)

1. moves the submitted jobs to `waiting`,
2. gives waiting jobs to workers, and starts workers, as far as the bounds allow,
3. waits until a socket or the end of a process is reported, or a look is due,
4. reads the answers of workers, settles jobs, and removes workers that have ended,
5. looks at running tasks: kills workers that exceed a bound, and recalls what waits.

**In which order an answer, a death and a timeout are settled.** An answer counts if the
worker wrote it before it died: `_on_exit` reads the socket to its end before it asks
how the process has ended. The first job that is then unanswered is the one that the
worker died of, and gets the error (`coresize.executor.pool.exits`), unless it is run
again. The worker had not begun its other jobs, and these go back to the head of the
queue; so do all jobs of a worker that was never ready. A timeout and an eviction only
kill the worker and note why (`kill_reason`): its end is reported like any other, and an
answer that was faster wins. An answer names the number of its call
(`coresize.executor.pool.answers`), so a task that writes to its worker's socket cannot
give one call the value of another.

**Why no job is missed without a GIL.** Under the lock, the dispatcher sets `asleep` and
checks whether a job has arrived. A thread that submits a job appends it and reads
`asleep` under the same lock. So either the dispatcher sees the job, or that thread
wakes the dispatcher.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
import weakref
from collections import deque

from coresize.executor.admission.bounds import choose
from coresize.executor.admission.copies import CopyBound
from coresize.executor.admission.deadlines import TimeLimit
from coresize.executor.pool import exits
from coresize.executor.pool.answers import Answers
from coresize.executor.pool.call_times import MOST, CallTimes
from coresize.executor.pool.exits import Exits
from coresize.executor.pool.options import check_fork
from coresize.executor.pool.submitted import Submitted
from coresize.executor.pool.workers import Workers
from coresize.processes import exit_hooks, inheritance, main_module, refusals
from coresize.processes.ownership import Owner


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.admission.bounds import Bound
    from coresize.executor.admission.memory import MemoryBound
    from coresize.executor.jobs import Backlog, Job
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.pool.options import PoolOptions
    from coresize.executor.protocol import Message
    from coresize.processes.exit_hooks import Unfinished
    from coresize.processes.inheritance import Inheritance


#: Seconds between two looks at running tasks.
_LOOK = 0.25

_log = logging.getLogger("coresize")


#: The dispatchers whose jobs are to be done before this process ends.
_started: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


class Dispatcher:
    """The workers of one pool, and the thread that serves them.

    Args:
        options: how workers are made, and what bounds their tasks.
        size: the number of workers that there may be.
        environment: variables that each worker has from its start.
        memory: the bound of memory; None if the pool has no ``memory=``.
    """

    def __init__(
        self,
        options: PoolOptions,
        size: int,
        environment: dict[str, str],
        memory: MemoryBound | None,
    ) -> None:
        self.options = options
        self.size, self.memory = size, memory
        self.environment = environment
        self.times = CallTimes()
        self.thread: threading.Thread | None = None
        self._owner = Owner()
        #: The maps that have calls to start before the pool takes no more jobs.
        self.unfinished: set[Unfinished] = set()
        self._interval = _LOOK if memory is None else memory.patience()
        self._looked = 0.0
        self._moment: Inheritance | None = None
        self._furnish()

    def _furnish(self) -> None:
        """Make the objects that no forked child may share with this process."""
        options = self.options
        self.waiting: deque[Job] = deque()
        self._submitted = Submitted()
        try:
            self._workers = Workers(
                options, self.size, self.environment, self._exchange, self._on_exit
            )
            self._workers.listen_to(self._submitted.wakeup, self._submitted.drain)
        except BaseException:  # no more files
            self._submitted.close()
            raise
        self.handles = self._workers.handles
        self._exits = Exits(options, self.memory)
        self._copies = CopyBound(self.size)
        self._bounds: tuple[Bound, ...] = (TimeLimit(options.timeout), self._copies)
        self._bounds += () if self.memory is None else (self.memory,)
        self._choosing = [bound for bound in self._bounds if bound.chooses]
        self._answers = Answers(options, self.times, self)
        self._ended = self._starting = False
        #: Why the last worker could not be started; empty if it could.
        self.refused = ""
        self._logged: set[str] = set()

    # --- For other threads ----------------------------------------------------

    @property
    def broken(self) -> str | None:
        """Why the pool takes no more jobs; None if it takes them."""
        return self._submitted.broken

    @property
    def backlog(self) -> Backlog:
        """The bytes of jobs that are pickled and wait for a worker."""
        return self._submitted.backlog

    @property
    def is_inherited(self) -> bool:
        """Whether this is a copy in a forked child, whose parent has the workers."""
        return not self._owner.is_here and self._is_used

    @property
    def _is_used(self) -> bool:
        return self.thread is not None or self._ended

    @property
    def is_usable(self) -> bool:
        """Whether the pool takes jobs."""
        return self._submitted.is_open and not self.is_inherited

    def refuse_inherited(self) -> None:
        """Refuse to use, in a forked child, a pool that the parent has started.

        A pool that had not been started before the fork becomes a pool of the child.

        Raises:
            InheritedError: the parent of this process has started the pool.
        """
        if not self._owner.is_here and self._owner.take("pool", used=self._is_used):
            self._furnish()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            BrokenProcessPool: workers cannot start.
            CoresizeError: the workers were to be forked beside other threads.
            OSError: the workers were to be forked, and none of them can be.
            InheritedError: a parent process has started the pool.
            RuntimeError: the pool is closed, or no thread can be started.
        """
        self.refuse_inherited()
        self._note_moment(job)
        asleep = self._submitted.put(job)
        if self.thread is None:
            try:
                self._start()
            except BaseException:  # no thread serves this job
                self._submitted.take_back(job)
                raise
        if asleep:
            self._submitted.ring()

    def _note_moment(self, job: Job) -> None:
        """Note what a worker would inherit now, if one may be started for a job.

        Otherwise a worker for this job inherits what was noted last, and starts in the
        folder of the job.
        """
        job.folder = inheritance.folder_reader()()
        most = self.size
        there = len(self.handles) + len(self.waiting) + len(self._submitted.arrived)
        if there < most or self.options.max_tasks is not None or self._moment is None:
            self._moment = job.inheritance = inheritance.current()

    def close(
        self,
        *,
        cancel: bool = False,
        terminate: bool = False,
        interrupt: bool = False,
    ) -> None:
        """Take no more jobs, and end when all jobs are done.

        Args:
            cancel: the jobs that have not begun are cancelled.
            terminate: these jobs are cancelled, and the workers get SIGTERM.
            interrupt: these jobs are cancelled, and the workers are killed, with all
                processes that descend from them.
        """
        if self.is_inherited:
            return
        with self._submitted.lock:
            self._submitted.shut(
                cancel=cancel, terminate=terminate, interrupt=interrupt
            )
            if self.thread is None and not self._ended:  # the pool was never used
                self._end()
        self._submitted.wake()

    def drop(self) -> None:
        """Take no more jobs, since no reference to the pool is left.

        This is a finalizer, so it never waits: maps start their remaining calls in
        another thread (`coresize.processes.exit_hooks.later`).
        """
        if self.is_inherited:
            return
        if not self.unfinished or not exit_hooks.later(self._finish_started):
            self.close()

    def _finish_started(self) -> None:
        for unfinished in list(self.unfinished):
            unfinished.start_all()
        self.close()

    def finish(self) -> None:
        """Start all remaining calls of maps."""
        for unfinished in list(self.unfinished):
            unfinished.finish()

    def join(self) -> None:
        """Wait until the dispatcher has ended, and drop the thread."""
        thread = None if self.is_inherited else self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            self.thread = None

    def settle(self) -> None:
        """Wait until each submitted job has a worker, or has to wait for one."""
        self.refuse_inherited()
        self._submitted.wait_until(
            lambda: not (self._submitted.arrived or self._starting)
        )

    def resize(self, size: int) -> None:
        """Change the number of workers; no running task is ended for this.

        Args:
            size: the number of workers that there may be, 1 or more.
        """
        self.refuse_inherited()
        self.size = size
        self._submitted.wake()

    def rest(self) -> None:
        """End workers that hold much memory, if no job comes first."""
        self._submitted.resting = True
        self._submitted.wake()

    def _start(self) -> None:
        with self._submitted.lock:
            if self.thread is not None:
                return
            main_module.refuse_while_importing("start no pool of its own")
            if self.options.forks:
                self._fork_all()
            exit_hooks.register(_finish, exit_hooks.POOLS)
            _started.add(self)
            self.thread = self._start_thread()

    def _start_thread(self) -> threading.Thread:
        """Start the thread; if it is refused, end a forked worker and try again."""
        while True:
            thread = threading.Thread(
                target=self._serve, name="coresize-dispatcher", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                if self.handles:
                    self._workers.drop(self.handles[-1])
                if not self.handles:
                    raise
            else:
                return thread

    def _fork_all(self) -> None:
        """Fork all workers at once, while no other thread holds locks."""
        check_fork()
        most = self.size
        try:
            while len(self.handles) < most:  # an earlier try may have started some
                self._workers.add(inheritance.current())
        except OSError as error:
            if not self.handles:
                raise
            why = refusals.explain(error)
            _log.warning("only %d of %d workers: %s", len(self.handles), most, why)
            self.refused = why

    # --- The thread -----------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._is_over():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - futures have it
            _log.critical("a pool failed", exc_info=True)
            self._break(f"the pool failed: {error!r}", error)
        finally:
            self._end()

    def _is_over(self) -> bool:
        with self._submitted.lock:
            idle = not self._submitted.arrived and not self.waiting
            return self._submitted.closing and idle and not self._workers.busy

    def _turn(self) -> None:
        submitted = self._submitted
        while submitted.arrived:
            self._starting = True
            self.waiting.append(submitted.arrived.popleft())
        if submitted.interrupted or submitted.terminated:
            self._interrupt_all()
        self._workers.resize(self.size)
        more = self._starting = self._go_on()
        if not self.waiting:
            self._workers.end_unneeded(rest=submitted.take_rest())
        if submitted.cancelling and (self._workers.busy or not self.handles):
            # The jobs that could begin have begun by now.
            while self.waiting:
                self.waiting.popleft().cancel()
        submitted.settle()
        with submitted.lock:
            idle = not (more or submitted.arrived or self._is_over())
            submitted.asleep = idle
        ready = self._workers.selector.select(self._patience() if idle else 0)
        submitted.asleep = False
        for key, events in ready:
            key.data(events)
        self._answers.wake()
        self._workers.flush()
        self._copies.requeue(self._workers.take_put_off(), self.waiting, self.handles)
        self._look()

    def _patience(self) -> float | None:
        """The most seconds to wait for an event; None for no limit."""
        if not (self._workers.busy or self.waiting):
            return self._workers.patience()
        return min(_LOOK, *(bound.patience() for bound in self._bounds))

    # --- Giving -----------------------------------------------------------------

    def _go_on(self) -> bool:
        """Give jobs to workers; returns whether there may be more to give at once."""
        starting = [worker for worker in self.handles if not worker.ready]
        if not self.waiting and not starting:
            return False
        most = self.options.max_tasks
        free = [worker for worker in self.handles if worker.is_free(most)]
        idle = [worker for worker in free if not worker.running]
        self._take_back(starting, len(idle))
        idle += [worker for worker in starting if worker.may_hold]
        if self._choosing or not self._is_packed():
            return self._give_chosen(idle)
        for worker in idle:
            while self._is_packed() and not worker.running:
                self._give(worker, [self.waiting.popleft()])
        if self.waiting and not self._is_packed():
            return True
        if self.waiting and self._workers.has_room:
            added = self._add_worker_for(self.waiting[0])
            if added is not None:
                self._give(added, [self.waiting.popleft()])
            return added is not None
        if self.waiting and self.options.gives_ahead:
            for worker in [worker for worker in free if not worker.is_late]:
                room = worker.room(most, MOST)
                ahead = self.times.ahead(worker.running, self.waiting, room)
                self._give(worker, ahead)
        return False

    def _is_packed(self) -> bool:
        """Whether a job waits, and the first that does is pickled."""
        return bool(self.waiting) and self.waiting[0].payload is not None

    def _take_back(self, starting: list[WorkerHandle], idle: int) -> None:
        """Take jobs back from workers that are not ready, for those that are idle."""
        back: list[Job] = []
        for worker in starting:
            if worker.kill_reason or len(back) < idle:
                back += worker.take_back()
        self.waiting.extendleft(reversed(back))

    def _give_chosen(self, idle: list[WorkerHandle]) -> bool:
        """Give the one job that all bounds let start; returns as `_go_on` does."""
        if not (self.waiting and (idle or self._workers.has_room)):
            return False
        bounds = (*self._choosing, self._copies)
        job = choose(bounds, self.waiting, self.handles, must_start=not idle)
        if job is None or (job.alone and not self._workers.empty()):
            return False
        worker = next(iter(idle), None) or self._add_worker_for(job)
        if worker is None:
            return False
        self.waiting.remove(job)
        self._give(worker, [job])
        return True

    def _give(self, worker: WorkerHandle, jobs: list[Job]) -> None:
        begun = [job for job in jobs if job.begin()]
        if begun and not worker.give(begun):
            self._workers.listen(worker, writing=True)

    # --- Workers ----------------------------------------------------------------

    def _add_worker_for(self, job: Job) -> WorkerHandle | None:
        moment = job.inheritance or self._moment
        assert moment is not None  # the first job has set it
        return self._add_worker(moment.changed(folder=job.folder))

    def _add_worker(self, moment: Inheritance) -> WorkerHandle | None:
        if self.broken is not None:
            return None
        try:
            return self._workers.add(moment)
        except Exception as error:  # noqa: BLE001 - pickle calls the user's code
            self._refuse(error)
            return None

    def _refuse(self, error: Exception) -> None:
        """Settle a refused start: try again later, or give the pool up."""
        why, again = repr(error), exits.may_go_away(error)
        if again:
            why = refusals.explain(error)
            if why not in self._logged:
                self._logged.add(why)
                _log.warning("a worker cannot be started now: %s", why)
            self.refused = why
        if not again or self._workers.starts.fail(
            exits.REFUSED, alone=not self.handles, wait=True
        ):
            why += self.options.advice(error)
            self._break(f"a worker cannot be started: {why}", error)

    # --- Receiving ------------------------------------------------------------

    def _exchange(self, worker: WorkerHandle, events: int) -> None:
        if worker.reaped:  # its end was among the same events
            return
        if events & selectors.EVENT_WRITE and worker.flush():
            self._workers.listen(worker, writing=False)
        if events & selectors.EVENT_READ:
            messages = worker.receive()
            if worker.is_closed:
                self._workers.ignore(worker)
            self._answers.take(worker, messages)

    def on_ready(self, worker: WorkerHandle) -> None:
        """See `Listener.on_ready`."""
        if not worker.flush():
            self._workers.listen(worker, writing=True)
        self._workers.starts.succeed()
        self.refused = ""
        self._exits.attribution.on_ready(worker)
        for bound in self._bounds:
            bound.on_ready(worker)

    def on_end(self, worker: WorkerHandle, job: Job, peak: int) -> None:
        """See `Listener.on_end`."""
        for bound in self._bounds:
            bound.on_end(worker, job, peak)

    def explain(self, worker: WorkerHandle, message: Message) -> BaseException | None:
        """See `Listener.explain`."""
        return self._exits.explain(worker, message, self.handles)

    def run_again(self, worker: WorkerHandle, job: Job) -> bool:
        """See `Listener.run_again`."""
        busy, others = len(self._workers.busy), len(self.handles) - 1
        if not self._exits.may_retry(worker, job, busy=busy, others=others):
            return False
        worker.ended()
        self.waiting.appendleft(job)
        return True

    # --- Deaths and ends ------------------------------------------------------

    def _on_exit(self, worker: WorkerHandle) -> None:
        while messages := worker.receive():
            self._answers.take(worker, messages)
        code = self._workers.remove(worker)
        if worker.init_error:  # known before; but the worker has logged it only now
            self._break(f"the initializer of a worker failed:\n{worker.init_error}")
        elif not worker.ready and not worker.kill_reason:
            weight = self._exits.weight(code, alone=not self.handles)
            alone = not any(other.ready for other in self.handles)
            wait = weight >= 1 and not alone
            if self._workers.starts.fail(weight, alone=alone, wait=wait):
                why = exits.unready(code)
                self._break(f"workers end before they are ready, {why}")
        again = self._exits.again(
            worker, code, busy=1 + len(self._workers.busy), others=self.handles
        )
        self.waiting.extendleft(reversed(again))
        if self.options.forks and not self.handles and not self._submitted.closing:
            self._break("all workers that were forked have ended")
        if self.broken is not None:
            self._fail_all()

    def _look(self) -> None:
        """Look at running tasks, and kill the workers that exceed a bound."""
        now = time.monotonic()
        if now - self._looked >= self._interval:
            self._looked = now
            for worker in [worker for worker in self.handles if worker.has_ended()]:
                self._on_exit(worker)
            self._exits.look(self.handles)
            self.waiting.extendleft(reversed(self._workers.recall()))
        for bound in self._bounds:
            if hopeless := bound.look(self.handles):
                self._break(hopeless)

    def _break(self, why: str, cause: BaseException | None = None) -> None:
        self._submitted.spoil(why, cause)
        self._fail_all()

    def _fail_all(self) -> None:
        """Fail all jobs, waiting or running, and kill all workers."""
        jobs = [*self.waiting, *self._submitted.arrived, *self._workers.take_put_off()]
        self.waiting.clear()
        self._submitted.arrived.clear()
        for worker in self.handles:
            jobs += worker.running
            worker.running.clear()
            worker.kill("broken")
        for job in jobs:
            job.abandon(self._submitted.error())

    def _interrupt_all(self) -> None:
        while self.waiting:
            self.waiting.popleft().cancel()
        for worker in self.handles:
            if not self._submitted.interrupted:
                worker.terminate()
            elif not worker.kill_reason:
                worker.kill("interrupted")

    def _end(self) -> None:
        try:
            self._workers.end()
        finally:
            self._ended = True
            self._submitted.close()
        # A reference cycle would keep the user's objects until garbage is collected.
        del self._workers, self._answers


def _finish() -> None:
    """Finish all jobs at the end of this process; after Ctrl-C, kill the workers."""
    interrupted = exit_hooks.is_interrupted()
    dispatchers = list(_started)
    for dispatcher in dispatchers:
        if not interrupted:
            dispatcher.finish()
        dispatcher.close(interrupt=interrupted)
    for dispatcher in dispatchers:
        dispatcher.join()
