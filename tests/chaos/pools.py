"""Pools in hard places, each a function; ``python -m chaos.pools NAME SEED`` runs one.

A function fails where something it says is not so. Around each, processes, threads and
descriptors are counted; what its docstring says is what must be true.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from concurrent import futures
from pathlib import Path

from chaos.harness import wait_for
from chaos.leaks import nothing_left

from coresize import (
    ProcessPoolExecutor,
    TaskKilledError,
    ThreadPoolExecutor,
    run_batch,
)
from coresize.batch.journal import locks


MIB = 1024**2

#: Seconds after which a future is said to be left for ever.
PATIENCE = 45


# --- What workers do -----------------------------------------------------------------


def value_of(number):
    return f"value of {number}: {number**2}"


def slow_value_of(number):
    time.sleep(0.002)
    return value_of(number)


def wait_for_file(path, number):
    wait_for(Path(path).exists)
    return value_of(number)


def size_of(content):
    return len(content)


def megabyte(number):
    return bytes([number % 256]) * MIB


def variable(name):
    return os.environ.get(name)


def folder(_number):
    return str(Path.cwd())


# --- Checks --------------------------------------------------------------------------


def check(found, but=()):
    """See that each future has its own value, or an error of these classes."""
    for number, future in found.items():
        error = future.exception(PATIENCE)
        assert error is None or isinstance(error, but), (number, repr(error))
        assert error is not None or future.result() == value_of(number), number


@contextlib.contextmanager
def grows_less_than(mebibytes):
    """See that this process grows by no more while something runs."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    yield
    assert _peak() - before < mebibytes, f"grew by {_peak() - before:.0f} MiB"


def _peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmHWM" in line).split()[1]) / 1024


def together(count, act):
    """Run something in so many threads at the same time, and see that none fails."""
    with futures.ThreadPoolExecutor(count) as threads:
        for future in [threads.submit(act, number) for number in range(count)]:
            future.result(PATIENCE)


@contextlib.contextmanager
def blocked_workers(pool, count=2):
    """So many workers are busy until the end of this."""
    path = Path(f"gate-{next(_numbers)}")
    held = [pool.submit(wait_for_file, path.absolute(), n) for n in range(count)]
    wait_for(lambda: all(future.running() for future in held))
    try:
        yield
    finally:
        path.touch()


_numbers = itertools.count()


# --- Many at once --------------------------------------------------------------------


def sixty_four_threads_submit(_dice):
    """Each gets its own values."""
    with ProcessPoolExecutor(2) as pool:

        def submit(first):
            check({n: pool.submit(value_of, n) for n in range(first, first + 50)})

        together(64, lambda number: submit(1000 * number))


def threads_map(_dice):
    """Maps in many threads do not mix."""
    with ProcessPoolExecutor(2) as pool:

        def map_(first):
            numbers = range(first, first + 60)
            assert list(pool.map(value_of, numbers)) == [value_of(n) for n in numbers]

        together(16, lambda number: map_(1000 * number))


def futures_are_cancelled_at_random(dice):
    """Each future is cancelled, or has its value; none is left."""
    with ProcessPoolExecutor(2) as pool:
        found = {n: pool.submit(slow_value_of, n) for n in range(400)}
        chosen = dice.sample(sorted(found), 300)
        together(8, lambda k: [found[n].cancel() for n in chosen[k::8]])
        for number, future in found.items():
            with contextlib.suppress(futures.CancelledError):
                assert future.result(PATIENCE) == value_of(number)


def thousands_are_cancelled(_dice):
    """What was cancelled costs no time: a pause for each would take ten minutes."""
    with ProcessPoolExecutor(2) as pool:
        with blocked_workers(pool):
            for future in [pool.submit(value_of, n) for n in range(5000)]:
                assert future.cancel()
        check({n: pool.submit(value_of, n) for n in range(10)})


def workers_are_killed_at_random(dice):
    """A kill costs one task at most."""
    with ProcessPoolExecutor(3) as pool:
        found = {n: pool.submit(slow_value_of, n) for n in range(300)}
        kills = 0
        for number in range(0, 300, 20):
            futures.wait([found[number]], PATIENCE)
            for pid in dice.sample(sorted(pool._processes), 1):
                with contextlib.suppress(OSError):
                    os.kill(pid, dice.choice([signal.SIGKILL, signal.SIGSEGV]))
                    kills += 1
        check(found, TaskKilledError)
        lost = sum(future.exception() is not None for future in found.values())
        assert lost <= kills


def workers_are_stopped_at_random(dice):
    """A stop costs nothing."""
    with ProcessPoolExecutor(3) as pool:
        found = {n: pool.submit(slow_value_of, n) for n in range(200)}
        for number in range(0, 200, 20):
            futures.wait([found[number]], PATIENCE)
            for pid in dice.sample(sorted(pool._processes), 1):
                os.kill(pid, signal.SIGSTOP)
                os.kill(pid, signal.SIGCONT)
        check(found)


def pools_come_and_go(_dice):
    """Fifty pools, used or not, leave nothing."""
    for number in range(50):
        pool = ProcessPoolExecutor(1)
        if number % 10 == 0:
            assert pool.submit(value_of, 3).result(PATIENCE) == value_of(3)
        if number % 2:
            pool.shutdown()
        del pool


# --- Callbacks -----------------------------------------------------------------------


def _callbacks(raised):
    """A pool whose callbacks raise goes on, and later callbacks are called."""
    called = []

    def fail(_future):
        called.append(0)
        raise raised

    with ProcessPoolExecutor(2) as pool:
        found = {n: pool.submit(value_of, n) for n in range(30)}
        for number in range(0, 30, 7):
            found[number].add_done_callback(fail)
        check(found)
        check({n: pool.submit(value_of, n) for n in range(30)})
    assert len(called) == len(range(0, 30, 7))


def callbacks_fail(_dice):
    """As the standard library's pool: it is logged, and nothing else."""
    _callbacks(ValueError("of a callback"))


def callbacks_exit(_dice):
    """SystemExit in the thread of the pool ends nothing."""
    _callbacks(SystemExit("of a callback"))


def callbacks_interrupt(_dice):
    """Nor does KeyboardInterrupt there."""
    _callbacks(KeyboardInterrupt("of a callback"))


def callbacks_submit(_dice):
    """A callback may give the pool more to do."""
    later = {}
    with ProcessPoolExecutor(2) as pool:

        def submit(number, _future):
            later[number] = pool.submit(value_of, number)

        for number in range(40):
            future = pool.submit(value_of, 1)
            future.add_done_callback(functools.partial(submit, number))
        wait_for(lambda: len(later) == 40)
        check(later)


def callbacks_shut_the_pool(_dice):
    """What had been submitted is done all the same."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(slow_value_of, n) for n in range(30)}
    found[5].add_done_callback(lambda _: pool.shutdown(wait=False))
    check(found)
    pool.shutdown()


def callbacks_wait_for_the_pool(_dice):
    """shutdown(wait=True) in the pool's own thread cannot wait; it does not hang."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(slow_value_of, n) for n in range(30)}
    found[5].add_done_callback(lambda _: pool.shutdown())
    check(found)
    pool.shutdown()


# --- Ends ----------------------------------------------------------------------------


def threads_shut_the_pool_at_once(_dice):
    """Sixteen shutdowns are one."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(slow_value_of, n) for n in range(30)}
    together(16, lambda _: pool.shutdown())
    check(found)


def threads_submit_during_the_shutdown(_dice):
    """Each submit is refused, or its future ends."""
    pool = ProcessPoolExecutor(2)
    pool.submit(value_of, 0).result(PATIENCE)
    gate, found = threading.Barrier(9), {}

    def submit(first):
        gate.wait()
        with contextlib.suppress(RuntimeError):
            for number in range(first, first + 200):
                found[number] = pool.submit(value_of, number)

    def shut(number):
        if number < 8:
            submit(1000 * number)
        else:
            gate.wait()
            pool.shutdown()

    together(9, shut)
    check(found)


def workers_are_killed_by_the_pool(_dice):
    """kill_workers() leaves no future open."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(time.sleep, 60) for n in range(10)}
    wait_for(found[0].running)
    pool.kill_workers()
    for future in found.values():
        with contextlib.suppress(futures.CancelledError):
            assert future.exception(PATIENCE) is not None
    pool.shutdown()


def a_pool_is_dropped(_dice):
    """Futures of a pool that nobody holds are done all the same."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(slow_value_of, n) for n in range(30)}
    del pool
    check(found)


def a_pool_is_dropped_in_a_ring(_dice):
    """So are those of one that the garbage collector finds."""
    pool = ProcessPoolExecutor(2)
    found = {n: pool.submit(slow_value_of, n) for n in range(30)}
    pool.itself = pool
    del pool
    together(4, lambda _: [gc.collect() for _ in range(5)])
    check(found)


def a_batch_is_left_in_a_ring(_dice):
    """Whichever thread collects it, it ends, and its journal can be opened again."""

    class Holder:
        pass

    with futures.ThreadPoolExecutor(4) as threads:
        for _ in range(8):
            run = run_batch(
                slow_value_of, range(60), journal="ring", max_workers=2, progress=False
            )
            next(iter(run))
            holder = Holder()
            holder.itself, holder.run, holder.outcomes = holder, run, iter(run)
            del run, holder
            collected = threads.submit(gc.collect)
            collected.result(PATIENCE)
            gc.collect()
    outcomes = list(run_batch(slow_value_of, range(60), journal="ring", progress=False))
    assert [one.value for one in sorted(outcomes, key=lambda one: one.index)] == [
        value_of(number) for number in range(60)
    ]


def garbage_is_collected_in_the_thread_of_the_pool(_dice):
    """A batch left in a ring is collected by the very thread that serves its pool."""
    gc.disable()
    with ProcessPoolExecutor(2) as pool:
        run = run_batch(
            slow_value_of, range(60), executor=pool, journal="ring", progress=False
        )
        next(iter(run))
        ring = [run, iter(run)]
        ring.append(ring)
        del run, ring
        future = pool.submit(value_of, 1)
        future.add_done_callback(lambda _: gc.collect())
        check({n: pool.submit(value_of, n) for n in range(10)})
    gc.enable()
    # A thread of its own ends the batch and unlocks the journal, soon after.
    wait_for(lambda: not locks.is_locked("ring"))
    again = run_batch(slow_value_of, range(60), journal="ring", progress=False)
    assert again.results() == [value_of(number) for number in range(60)]


# --- Input and output ----------------------------------------------------------------


def a_map_has_no_end(_dice):
    """Of an endless input no more is taken than is needed."""
    taken = itertools.count()
    with ProcessPoolExecutor(2) as pool:
        values = pool.map(value_of, taken)
        found = list(itertools.islice(values, 500))
        del values
    assert found == [value_of(number) for number in range(500)]
    assert next(taken) < 10_000


def an_input_fails(_dice):
    """What an input raises is raised where it is read, after what came before."""

    def numbers():
        yield from range(40)
        raise ValueError("of an input")

    with ProcessPoolExecutor(2) as pool:
        found = []
        try:
            found.extend(pool.map(value_of, numbers()))
        except ValueError as error:
            assert str(error) == "of an input"
        check({n: pool.submit(value_of, n) for n in range(20)})
    assert found == [value_of(number) for number in range(len(found))]


def a_reader_of_large_results_sleeps(_dice):
    """What nobody reads is bounded: 400 MiB do not come to be in the parent."""
    with ProcessPoolExecutor(2) as pool, grows_less_than(200):
        values = pool.map(megabyte, range(400), chunksize=1)
        assert next(values) == megabyte(0)
        _rest(pool)
        for number, value in enumerate(values, 1):
            assert value[0] == number % 256
            assert len(value) == MIB


def _rest(pool):
    """Wait until the workers of a pool are idle."""
    calm = 0
    while calm < 20:
        time.sleep(0.02)
        times = [sum(os.times()[:4]), *map(_ticks, list(pool._processes))]
        calm = calm + 1 if times[1:] == getattr(_rest, "before", None) else 0
        _rest.before = times[1:]


def _ticks(pid):
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[11:13]
    return None


def large_arguments_wait(_dice):
    """An array that is submitted forty times is there once, and pickled a few times."""
    content = bytes(10 * MIB)
    with ProcessPoolExecutor(2) as pool, grows_less_than(200):
        with blocked_workers(pool):
            found = [pool.submit(size_of, content) for _ in range(40)]
        assert [future.result(PATIENCE) for future in found] == [10 * MIB] * 40


def a_batch_has_large_results(_dice):
    """So are results that wait in a batch."""
    with grows_less_than(200):
        run = run_batch(megabyte, range(300), max_workers=2, progress=False)
        outcomes = iter(run)
        assert next(outcomes).status == "ok"
        time.sleep(0.5)  # the reader sleeps; that it does is all that counts
        assert all(outcome.value[0] == outcome.index % 256 for outcome in outcomes)


# --- What the process may and has ----------------------------------------------------


def descriptors_run_out(_dice):
    """With one worker alive the pool goes on, where no other can be started."""
    with ProcessPoolExecutor(8) as pool:
        assert pool.submit(value_of, 0).result(PATIENCE) == value_of(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        try:
            check({n: pool.submit(slow_value_of, n) for n in range(100)})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        check({n: pool.submit(slow_value_of, n) for n in range(100)})


def the_working_folder_goes(_dice):
    """With one worker alive the pool goes on, and later starts others."""
    home, gone = Path.cwd(), Path("gone").absolute()
    gone.mkdir()
    with ProcessPoolExecutor(8) as pool:
        assert pool.submit(value_of, 0).result(PATIENCE) == value_of(0)
        os.chdir(gone)
        gone.rmdir()
        try:
            check({n: pool.submit(slow_value_of, n) for n in range(100)})
        finally:
            os.chdir(home)
        check({n: pool.submit(slow_value_of, n) for n in range(100)})


def the_environment_changes(_dice):
    """A pool sees the environment of when it is made, not that of the first pool."""
    for number in range(3):
        os.environ["CHAOS_VARIABLE"] = f"{number}"
        with ProcessPoolExecutor(1) as pool:
            assert (
                pool.submit(variable, "CHAOS_VARIABLE").result(PATIENCE) == f"{number}"
            )


def the_working_folder_changes(_dice):
    """A worker that starts works where its parent was when the task was submitted."""
    home = Path.cwd()
    for number in range(3):
        there = home / f"folder-{number}"
        there.mkdir()
        os.chdir(there)
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(folder, 0)
            os.chdir(home)
            assert future.result(PATIENCE) == str(there)


def signals_are_blocked(_dice):
    """A pool that is made while signals are blocked ends its workers as any other."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pool = ProcessPoolExecutor(2)
        check({n: pool.submit(value_of, n) for n in range(20)})
        running = pool.submit(time.sleep, 60)
        wait_for(running.running)
        pool.kill_workers()
        pool.shutdown()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def children_are_ignored(_dice):
    """Where SIGCHLD is ignored the kernel buries children itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with ProcessPoolExecutor(2) as pool:
        check({n: pool.submit(value_of, n) for n in range(40)})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def alarms_ring(_dice):
    """System calls that a signal interrupts are made again."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        with ProcessPoolExecutor(2) as pool:
            check({n: pool.submit(slow_value_of, n) for n in range(100)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def a_child_is_forked_beside_a_pool(_dice):
    """A child of fork may come and go, and does not hold the workers back."""
    with ProcessPoolExecutor(2) as pool:
        check({n: pool.submit(value_of, n) for n in range(10)})
        child = _fork(lambda: None)
        os.waitpid(child, 0)
        check({n: pool.submit(value_of, n) for n in range(10)})


def a_forked_child_has_a_pool(_dice):
    """A child of fork that makes a pool of its own gets its values."""
    with ProcessPoolExecutor(2) as pool:
        check({n: pool.submit(value_of, n) for n in range(10)})

        def use():
            with ProcessPoolExecutor(2) as own:
                check({n: own.submit(value_of, n) for n in range(10)})

        _, status = os.waitpid(_fork(use), 0)
        assert status == 0
        check({n: pool.submit(value_of, n) for n in range(10)})


def _fork(act):
    """A forked child that does something, and ends with 0 if that does not fail."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(PATIENCE)  # what hangs there is ended
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def threads_lose_nothing(dice):
    """The pool of threads under the same storm of cancels and failing callbacks."""
    with ThreadPoolExecutor(4) as pool:
        found = {n: pool.submit(slow_value_of, n) for n in range(300)}
        together(8, lambda k: [found[n].cancel() for n in range(k, 300, 16)])
        for number in dice.sample(sorted(found), 20):
            found[number].add_done_callback(lambda _: 1 / 0)
        for number, future in found.items():
            with contextlib.suppress(futures.CancelledError):
                assert future.result(PATIENCE) == value_of(number)


# --- Executors of others -------------------------------------------------------------


class ObligingFuture(futures.Future):
    """A future that has every attribute, as that of parsl."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class RefusingFuture(futures.Future):
    """A future that cannot be cancelled, and says so."""

    def cancel(self):
        raise NotImplementedError


class Foreign(futures.Executor):
    """An executor of others, with futures of its own."""

    def __init__(self, kind):
        self.kind = kind

    def submit(self, fn, /, *args, **kwargs):
        future = self.kind()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - of a task
            future.set_exception(error)
        return future


def _foreign(kind):
    run = run_batch(value_of, range(20), executor=Foreign(kind), progress=False)
    assert run.results() == [value_of(number) for number in range(20)]
    with run_batch(value_of, range(20), executor=Foreign(kind), progress=False) as left:
        assert next(iter(left)).status == "ok"


def foreign_futures_have_every_attribute(_dice):
    """A batch asks for none but those of the standard library's futures."""
    _foreign(ObligingFuture)


def foreign_futures_refuse_to_be_cancelled(_dice):
    """A batch that is left early ends all the same."""
    _foreign(RefusingFuture)


def main(name, seed):
    """Run one, and say nothing of what is thrown away."""
    with nothing_left():
        globals()[name](random.Random(seed))


NAMES = [
    name
    for name, value in list(globals().items())
    if getattr(value, "__module__", None) == __name__
    and getattr(value, "__code__", None)
    and value.__code__.co_varnames[:1] in {("_dice",), ("dice",)}
    and value.__code__.co_argcount == 1
]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
