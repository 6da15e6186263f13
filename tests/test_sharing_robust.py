"""Large buffers arrive, or their call fails, whatever happens to the processes."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from chaos.harness import wait_for
from hypothesis import given
from hypothesis import strategies as st

from coresize import ProcessPoolExecutor, TaskKilledError, ThreadPoolExecutor
from coresize.errors import TaskCrashedError
from coresize.executor import protocol
from coresize.processes import buffers, copies, segments


LINUX = segments.is_available()
pytestmark = pytest.mark.skipif(
    not LINUX, reason="there is no shared memory without a name"
)

#: Bytes that travel in a segment as an argument, and those that do as a result.
ARGUMENT, RESULT = 100 * 1024, 2 * 1024**2


def array(number, size=ARGUMENT):
    return np.full(size // 8, float(number))


def total(*arrays):
    return float(sum(each.sum() for each in arrays))


def give(number, size=RESULT):
    return array(number, size)


def nothing():
    return None


def held(_=None, pid="self"):
    """The descriptors and the mappings of segments in a process."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(os.readlink(link))  # noqa: PTH115 - as text, with "(deleted)"
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("memfd:coresize" in each for each in [*links, *lines])


def nothing_held(pid="self"):
    gc.collect()
    return held(pid=pid) == 0


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    wait_for(nothing_held)


# --- Descriptors -----------------------------------------------------------------


#: The descriptors that a task has opened.
opened = []


def limit_files(most):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_all():
    with suppress(OSError):
        while True:
            opened.append(os.dup(2))


def close_all():
    while opened:
        os.close(opened.pop())


def test_a_call_fails_alone_where_a_worker_has_no_free_descriptor():
    with ProcessPoolExecutor(1, initializer=limit_files, initargs=(64,)) as pool:
        pool.submit(open_all).result(60)
        errors = [pool.submit(total, array(n)).exception(60) for n in range(3)]
        large = pool.submit(give, 5).result(60)  # goes in band
        pool.submit(close_all).result(60)
        assert pool.submit(total, array(2)).result(60) == array(2).sum()
    assert all("Too many open files" in str(error) for error in errors)
    assert np.array_equal(large, give(5))


@pytest.fixture
def few_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, before[1]))
    yield
    close_all()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_thousands_of_waiting_calls_take_few_descriptors(pool):
    numbers = range(400)
    futures = [pool.submit(total, array(number)) for number in numbers]
    assert len(list(Path("/proc/self/fd").iterdir())) < len(numbers) / 2
    assert [each.result(60) for each in futures] == [array(n).sum() for n in numbers]


@pytest.mark.usefixtures("few_files")
def test_results_that_are_kept_take_no_descriptors(pool):
    results = list(pool.map(give, range(150)))
    assert [each[0] for each in results] == list(range(150))


@pytest.mark.usefixtures("few_files")
def test_a_result_fails_alone_where_there_is_no_free_descriptor(pool):
    pool.submit(nothing).result(60)
    open_all()
    futures = [pool.submit(give, 1), pool.submit(total, array(2)), pool.submit(abs, -3)]
    error = futures[0].exception(60)
    values = [each.result(60) for each in futures[1:]]
    close_all()
    assert "Too many open files" in str(error)
    assert values == [array(2).sum(), 3]
    assert pool.submit(give, 4).result(60)[0] == 4


def test_thousands_of_arrays_in_one_call_take_one_segment(pool):
    arrays = [array(number, 64 * 1024) for number in range(2000)]
    assert pool.submit(total, *arrays).result(60) == total(*arrays)


#: As a user without privileges, have as many descriptors on their way as there may be.
REFUSED = """
    import os, resource, socket
    from test_sharing_robust import array, give, total
    from coresize import ProcessPoolExecutor

    if __name__ == "__main__":
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        with ProcessPoolExecutor(1) as pool:
            pool.submit(abs, 1).result(60)
            ends = socket.socketpair()
            try:
                while True:  # nobody receives these
                    socket.send_fds(ends[0], [b"x"], [0] * 50)
            except OSError as error:
                print(error)
            print([pool.submit(total, array(n), array(1)).result(60) for n in range(3)])
            print([float(pool.submit(give, n).result(60)[-1]) for n in range(3)])
"""


#: CAP_SYS_ADMIN and CAP_SYS_RESOURCE, which lift the limit; and PR_CAPBSET_DROP.
CAPABILITIES, DROP = (21, 24), 24


def drop_capabilities():
    for each in CAPABILITIES:
        ctypes.CDLL(None).prctl(DROP, each, 0, 0, 0)


def test_no_descriptor_is_sent_where_the_kernel_refuses_it(tmp_path):
    path = tmp_path / "refused.py"
    path.write_text(textwrap.dedent(REFUSED))
    error, *values = run(path, drop_capabilities).splitlines()
    assert "Too many references" in error
    expected = [total(array(n), array(1)) for n in range(3)], [0.0, 1.0, 2.0]
    assert values == [str(each) for each in expected]


def run(path, before=None):
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, str(path)],
        preexec_fn=before,
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- Messages with descriptors ---------------------------------------------------


def packed(*contents):
    """A message for large buffers, each in a segment of its own."""
    pieces = [
        piece
        for content in contents
        for piece in copies.copies.place([memoryview(content)], None)[0]
    ]
    return buffers.Packed(b"", tuple(pieces))


FUZZED = packed(bytes(ARGUMENT), bytes([1]) * ARGUMENT).table() if LINUX else b""


@given(
    st.integers(0, len(FUZZED)),
    st.integers(0, max(0, len(FUZZED) - 1)),
    st.binary(min_size=1, max_size=8),
)
def test_a_table_that_is_damaged_is_refused_or_gives_buffers(end, start, damage):
    """Never another error, an access outside a segment, or a descriptor left."""
    good = packed(bytes(ARGUMENT), bytes([1]) * ARGUMENT)
    table = (FUZZED[:start] + damage + FUZZED[start + len(damage) :])[:end]
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names
    with suppress(buffers.BufferTableError):
        buffers.descriptors_of(table)
        copies = [os.dup(each) for each in good.descriptors]
        for _, view in buffers.Attached().attach(table, copies):
            bytes(view)
    with suppress(buffers.BufferTableError):
        buffers.read(good.contents()[: len(FUZZED)].replace(FUZZED, table))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70_000)), max_size=8))
def test_each_message_gets_its_own_descriptors(messages):
    """Also where they are read together, or a piece at a time."""
    here, there = socket.socketpair()
    inbox, found = protocol.Inbox(), []
    sender = threading.Thread(target=send_all, args=(here, messages))
    sender.start()
    with here, there:
        while inbox.receive(there):
            for kind, number, _, _, payload in inbox.messages():
                count = 0
                if kind == protocol.BUFFERS:
                    taken = inbox.take_descriptors(number)
                    count = len({os.fstat(each).st_ino for each in taken})
                    for each in taken:
                        os.close(each)
                found.append((count, len(payload)))
        sender.join()
    assert found == messages


def send_all(target, messages):
    for count, size in messages:
        kind = protocol.BUFFERS if count else protocol.CALL
        pipes = [os.pipe() for _ in range(count)]
        left = memoryview(b"".join(protocol.pack(kind, bytes(size), number=count)))
        attached = [here for here, _ in pipes]
        while left:
            left = left[protocol.send(target, left, attached) :]
            attached = []
        for each in pipes:
            os.close(each[0])
            os.close(each[1])
    target.shutdown(socket.SHUT_WR)


# --- Other limits ----------------------------------------------------------------


#: A read-only and an inaccessible page in turn, so that the kernel cannot join them.
CROWDED = """
    import ctypes, mmap
    from test_sharing_robust import array, give
    from coresize import ProcessPoolExecutor
    from coresize.processes import segments

    if __name__ == "__main__":
        with ProcessPoolExecutor(1) as pool:
            pool.submit(abs, 1).result(60)
            libc = segments._libc()
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            for number in range(200_000):
                if libc.mmap(None, 4096, number % 2, flags, -1, 0) == 2**64 - 1:
                    break
            print([float(pool.submit(give, n).result(60)[-1]) for n in range(3)])
            print(float(pool.submit(sum, array(3)).result(60)), segments.mapped())
"""


def test_a_result_is_copied_where_no_more_memory_can_be_mapped(tmp_path):
    if int(Path("/proc/sys/vm/max_map_count").read_text()) > 100_000:
        pytest.skip("too many mappings are permitted")
    path = tmp_path / "crowded.py"
    path.write_text(textwrap.dedent(CROWDED))
    assert run(path).splitlines() == ["[0.0, 1.0, 2.0]", f"{array(3).sum()} 0"]


#: A filter of system calls (seccomp(2)) that refuses memfd_create(2) alone: load the
#: number, and return EPERM if it is this one.
DENIED = """
    import ctypes, os, platform, struct

    number = {"x86_64": 319, "aarch64": 279}[platform.machine()]
    rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50001)]
    rules.append((6, 0, 0, 2**31 - 2**16))
    rules = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    code = ctypes.create_string_buffer(rules)
    head = struct.pack("HxxxxxxP", 4, ctypes.addressof(code))
    head = ctypes.create_string_buffer(head)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert not prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    assert not prctl(22, 2, head, 0, 0), ctypes.get_errno()  # PR_SET_SECCOMP

    if __name__ == "__main__":
        from test_sharing_robust import array, give, held, total
        from coresize import ProcessPoolExecutor
        from coresize.processes import segments

        print(segments.is_available())
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(total, array(3)).result(60))
            print(pool.submit(give, 3).result(60)[0])
            print(pool.submit(held, array(3)).result(60))
"""


def test_all_goes_in_band_where_a_sandbox_denies_segments(tmp_path):
    path = tmp_path / "denied.py"
    path.write_text(textwrap.dedent(DENIED))
    assert run(path).splitlines() == ["False", str(array(3).sum()), "3.0", "0"]


# --- What tasks do ---------------------------------------------------------------


def close_files(_array):
    os.closerange(3, 4096)


def write_to_files(_array):
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if int(link.name) > 2:
                os.write(int(link.name), b"nonsense " * 10)


def write_to_memory(shared):
    ctypes.memset(shared.ctypes.data, 0, 8)


def write_to_copy(shared):
    """Make the private mapping writable, and write: as a C extension could do."""
    page = shared.ctypes.data & -4096
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(page, 8192, 3) == 0
    ctypes.memset(shared.ctypes.data, 0, 8)
    return shared[0]


def fork(shared):
    """Let a child use the array, and tell what it gets."""
    there, here = os.pipe()
    child = os.fork()
    if not child:
        os.write(here, str(shared.sum()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(there, 100))


@pytest.mark.parametrize(
    "function", [close_files, write_to_files, write_to_memory, write_to_copy, fork]
)
def test_a_task_spoils_no_other_call(function, pool):
    shared = array(7)
    calls = [partial(total, shared), partial(function, shared)]
    bad = pool.submit(calls[1])
    assert bad.exception(60) is None or isinstance(bad.exception(), TaskCrashedError)
    assert pool.submit(calls[0]).result(60) == shared.sum()
    assert shared[0] == 7


def test_a_segment_cannot_be_changed_by_its_descriptor():
    (segment,) = copies.copies.place([memoryview(bytes(ARGUMENT))], None)[0]
    descriptor = os.open(f"/proc/self/fd/{segment.segment.descriptor}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(descriptor, b"other")
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 1)
    finally:
        os.close(descriptor)


def keep(shared):
    opened[:] = [shared]
    return held()


def kept():
    value = opened[0][-1] if opened else None
    opened.clear()
    return float(value), held()


def test_an_array_that_a_task_keeps_stays_as_it_was(pool):
    shared = array(3)
    mapped = pool.submit(keep, shared).result(60)
    shared[:] = 4
    pool.submit(total, shared).result(60)
    assert mapped == 1
    assert pool.submit(kept).result(60) == (3, 0)


def wait_with(path, *_arrays):
    wait_for(Path(path).exists)
    return held()


def test_a_call_holds_nothing_of_the_calls_before_it(pool, tmp_path):
    gate = str(tmp_path / "gate")
    futures = [pool.submit(wait_with, gate, array(0))]
    futures += [pool.submit(wait_with, gate, array(n)) for n in range(20)]
    futures.append(pool.submit(held))
    Path(gate).touch()
    # The descriptor of the next call may have arrived with the end of this one.
    counts = [each.result(60) for each in futures]
    assert max(counts) <= 2
    assert counts[-1] == 0


def test_a_long_life_leaves_nothing(pool):
    pool.submit(nothing).result(60)
    known = len(copies.copies._starts)
    for number in range(60):
        size = 8 * (ARGUMENT // 8 + number)  # a type of ctypes for each would pile up
        assert pool.submit(total, array(1, size)).result(60) == size // 8
        assert len(pool.submit(give, 1, RESULT + 8 * number).result(60)) > 0
    assert pool.submit(held).result(60) == 0
    assert nothing_held()
    assert segments.count() == 0
    assert len(copies.copies._starts) <= known + 1
    assert segments._array_type.cache_info().currsize < 40  # one for each power of 2


# --- What the parent does ----------------------------------------------------------


def test_an_array_is_free_when_its_call_is_pickled(pool, tmp_path):
    gate = str(tmp_path / "gate")
    busy = pool.submit(wait_with, gate)
    shared = array(1)
    there = weakref.ref(shared)
    future = pool.submit(wait_with, gate, shared)
    del shared
    gc.collect()
    assert there() is None
    Path(gate).touch()
    assert future.result(60) == 1
    assert busy.result(60) == 0


def test_a_call_that_is_sent_by_value_is_free_without_a_garbage_collection(pool):
    shared = array(1)
    there = weakref.ref(shared)
    gc.collect()
    gc.disable()
    try:
        assert pool.submit(lambda each: each[0], shared).result(60) == 1
        del shared
        assert there() is None
        assert segments.count() == 0
    finally:
        gc.enable()


def test_results_outlive_their_pool_and_take_changes():
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(give, range(4)))
    del pool
    gc.collect()
    results[0] += 5
    assert [each[-1] for each in results] == [5, 1, 2, 3]


def test_a_program_may_end_with_results_in_use(tmp_path):
    path = tmp_path / "ends.py"
    path.write_text(
        "from test_sharing_robust import array, give, total\n"
        "from coresize import ProcessPoolExecutor\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1)\n"
        "    ring = [pool.submit(give, 3), pool.submit(total, array(1)), array(1)]\n"
        "    ring += [ring, ring[0].result(60), pool]\n"
        "    print(ring[0].result()[0])\n"
    )
    assert run(path) == "3.0\n"


STARTED = """
    import multiprocessing, sys
    from test_sharing_robust import array, give, keep, total
    from coresize import ProcessPoolExecutor

    if __name__ == "__main__":
        kept = array(1)
        context = multiprocessing.get_context(METHOD)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(pool.submit(total, array(2)).result(60))
            print(pool.submit(give, 2).result(60)[0])
            print(pool.submit(keep, kept).result(60))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_way_to_start_workers_shares_arrays(method, tmp_path):
    path = tmp_path / "started.py"
    path.write_text(textwrap.dedent(STARTED).replace("METHOD", repr(method)))
    assert run(path).splitlines() == [str(array(2).sum()), "2.0", "1"]


def test_a_fork_between_two_calls_changes_neither(pool):
    shared = array(2)
    results = [pool.submit(give, 3).result(60), pool.submit(total, shared).result(60)]
    segment = copies.copies.place([memoryview(shared).cast("B")], None)[0][0].segment
    child = os.fork()
    if not child:  # the child holds no segment of its parent, but its results
        good = segments.count() == 0 and segment.descriptor == -1 and results[0][0] == 3
        with suppress(BaseException):
            with ProcessPoolExecutor(1) as own:
                good &= own.submit(total, shared).result(60) == shared.sum()
            os._exit(0 if good else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.submit(total, shared).result(60) == shared.sum() == results[1]


def test_threads_may_change_and_submit_arrays_at_once():
    """Each call gets the array as it was at its submission: all items are equal."""
    shared, wrong = array(0), []

    def submit(first):
        own = array(first)
        for number in range(first, first + 8):
            own[:] = number
            future = pool.submit(give_back, own, shared)
            if future.result(60) != number:
                wrong.append(number)

    with ProcessPoolExecutor(2) as pool:
        threads = [
            threading.Thread(target=submit, args=(100 * n,)) for n in range(1, 9)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not wrong


def give_back(own, shared):
    assert own[0] == own[-1]
    assert not shared.any()
    return float(own[0])


class Submits:
    """Submits a call when it is collected as garbage, whatever thread runs then."""

    def __init__(self, pool, found):
        self.itself, self.pool, self.found = self, pool, found

    def __del__(self):
        self.found.append(self.pool.submit(total, array(1)))


def test_garbage_may_submit_while_a_call_is_copied(pool):
    found, before = [], gc.get_threshold()
    gc.set_threshold(20, 1, 1)
    try:
        for number in range(60):
            Submits(pool, found)
            found.append(pool.submit(total, array(1), array(number)))
            del found[-1:]
        gc.collect()
    finally:
        gc.set_threshold(*before)
    assert {each.result(60) for each in found} == {array(1).sum()}


def test_threads_pass_arrays_as_they_are():
    shared = array(1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda each: each is shared, shared).result(60)
    assert segments.count() == 0


# --- Kills -------------------------------------------------------------------------


def echo(shared, number):
    return shared + number


def test_a_worker_may_be_killed_at_any_moment():
    shared = array(1, RESULT)
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(echo, shared, number) for number in range(40)]
        for number in range(0, 40, 8):
            with suppress(TaskKilledError):
                futures[number].result(60)
            for pid in list(pool._processes)[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for number, future in enumerate(futures):
            with suppress(TaskKilledError):
                assert future.result(60)[-1] == number + 1


KILLED = """
    import sys
    from test_sharing_robust import array, echo
    from coresize import ProcessPoolExecutor

    if __name__ == "__main__":
        with ProcessPoolExecutor(2) as pool:
            print(pool.submit(echo, array(1), 1).result(60)[0], flush=True)
            print(*pool._processes, flush=True)
            kept = []
            while True:
                shared = array(len(kept), 4 * 1024**2)
                kept = [pool.submit(echo, shared, n) for n in range(4)] + kept[:8]
                kept[2].result(60)
"""


def test_a_killed_program_leaves_nothing(tmp_path):
    path = tmp_path / "killed.py"
    path.write_text(textwrap.dedent(KILLED))
    named = set(os.listdir("/dev/shm"))  # noqa: PTH208 - names
    with subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "2.0\n"
        workers = [int(each) for each in program.stdout.readline().split()]
        wait_for(lambda: held(pid=program.pid))
        program.kill()
    wait_for(lambda: not any(is_running(pid) for pid in workers))
    assert {each for each in os.listdir("/dev/shm") if "coresize" in each} <= named  # noqa: PTH208


def is_running(pid):
    with suppress(OSError):
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    return False
