"""Tasks with a known need, for processes of their own."""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


MIB = 1024**2
HOLD = "kept = bytearray(b'x') * ({} << 20); print(flush=True); input()"


def _array(size):
    # Without numpy, whose import takes longer than what most tests do.
    return bytearray(b"x") * (size * MIB)


def array(size):
    return _array(size)


def hold(size, seconds):
    kept = _array(size)
    time.sleep(seconds)
    return len(kept)


def hold_together(size, seconds, gate):
    """Begin when all others are there."""
    gate.wait()
    hold(size, seconds)


def array_for_a_moment(size):
    kept = _array(size)
    time.sleep(0.005)
    del kept
    time.sleep(0.1)


def untouched(size):
    return bytes(size * MIB)  # from calloc()


def native(size):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    address = libc.malloc(ctypes.c_size_t(size * MIB))
    ctypes.memset(address, 1, size * MIB)


def read_a_file(path):
    with Path(path).open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = sum(view[place] for place in range(0, len(view), 4096))
    time.sleep(0.2)  # mapped over several looks, also of a busy machine
    return found


def children(size, count):
    """Subprocesses that hold so much each, all at the same time."""
    command = [sys.executable, "-S", "-E", "-c", HOLD.format(size)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in processes:
        process.stdout.readline()
    time.sleep(0.3)  # several looks, also of a busy machine
    for process in processes:
        process.communicate(b"\n")


def fork_readers(size, count):
    """Forks that read what they inherited."""
    _fork(size, count, 0)


def fork_writer(size, written):
    """A fork that writes a part of what it inherited."""
    _fork(size, 1, written)


def _fork(size, count, written):
    kept = _array(size)
    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            sum(kept[::4096])
            for page in range(0, written * MIB, 4096):
                kept[page] = 2
            time.sleep(0.2)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


def start_short_commands(size):
    """Many vforks of a process that holds so much."""
    kept = _array(size)
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)
    return kept


def wait(seconds):
    time.sleep(seconds)


def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def wait_and_compute(waiting, computing):
    wait(waiting)
    compute(computing)


def work_once(path, end):
    """Succeed at first; later raise, exit or wait."""
    if not Path(path).exists():
        Path(path).touch()
    elif end == "wait":
        time.sleep(600)
    elif end == "exit":
        os._exit(3)
    else:
        raise ValueError(path)


def require_variable(name, value):
    """Fail unless a variable has this value."""
    if os.environ.get(name) != value:
        raise ValueError(os.environ.get(name))


def fail_beside_others(folder, _item):
    """Fail while another call of this function is running."""
    try:
        Path(folder, "running").mkdir()
    except FileExistsError:
        msg = "another task is running"
        raise RuntimeError(msg) from None
    time.sleep(0.01)
    Path(folder, "running").rmdir()


def refuse(first, second):
    raise OddError(first, second)


class OddError(Exception):
    """Cannot be unpickled: its arguments are others than it was made of."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fail(text):
    raise ValueError(text)


def kill_itself(size):
    kept = _array(size)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
    return kept


def leave(code):
    os._exit(code)


def die_with_a_child_alive():
    if not os.fork():
        time.sleep(20)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def close_files():
    os.closerange(3, 256)


def leave_a_note_at_exit(path):
    atexit.register(Path(path).write_text, "clean")


# --- What goes wrong in pools -------------------------------------------------


def echo(value):
    return value


def nap(seconds):
    time.sleep(seconds)
    return seconds


def end_by(number):
    """End the worker by a signal, on 3 alone."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_self_by(name):
    os.kill(os.getpid(), getattr(signal, name))


def leave_normally():
    sys.exit(3)


def take_for_ever():
    kept = []
    while True:
        kept.append(bytearray(b"x") * (10 * MIB))


def spin(seconds):
    """Compute for so long, of CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def take(size):
    kept = bytearray(b"x") * (size * MIB)
    time.sleep(0.2)
    return len(kept) // MIB


def overfill_shared_memory():
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=100 * MIB)
    memory.unlink()
    memory.buf[:] = b"x" * (100 * MIB)


def environment(names):
    return [os.environ.get(name) for name in names]


def blas_threads():
    import numpy as np
    import threadpoolctl

    np.ones((2, 2)) @ np.ones((2, 2))
    return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())


def cores_and_pool():
    from coresize import ProcessPoolExecutor, available_cores

    with ProcessPoolExecutor() as pool:
        return available_cores(), pool._max_workers, pool.submit(echo, 1).result()


def who():
    return os.getpid()


def unpicklable_result():
    return lambda: None


class Unloadable:
    """Can be pickled, and cannot be unpickled."""

    def __reduce__(self):
        return fail, ("cannot be made again",)


def unloadable_result():
    return Unloadable()


def own_adjustment():
    return Path("/proc/self/oom_score_adj").read_text().strip()


def start_and_sleep(seconds, path):
    """A subprocess that outlives its worker, unless somebody ends it."""
    child = subprocess.Popen(["sleep", str(seconds)])
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(seconds)


def take_unless_there(size, path):
    """Takes much more when it runs for the first time."""
    first = not Path(path).exists()
    Path(path).write_text("ran")
    return take(size * 8 if first else size)


def grow_slowly(size, seconds):
    kept = []
    for _ in range(size // 10):
        kept.append(bytearray(b"x") * (10 * MIB))
        time.sleep(seconds * 10 / size)
    return size


def joblib_inside():
    """How many workers a call of joblib has that is made in a worker."""
    import joblib

    from coresize.adapters.joblib import register

    register()
    with joblib.parallel_config("coresize", n_jobs=-1):
        found = joblib.Parallel()(joblib.delayed(who)() for _ in range(4))
    return len(set(found))


KEPT = []


def take_and_keep(size):
    KEPT.append(bytearray(b"x") * (size * MIB))


def scatter(size):
    """Take small pieces and free them all but the last, which pins what is below it."""
    pieces = [bytes(100_000) for _ in range(size * 2**20 // 100_000)]
    KEPT.append(bytes(100_000))
    spin(0.01)
    del pieces


def resident(_):
    from coresize.processes.memory import read_memory

    return read_memory().private


def who_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def stay_until_killed():
    """Long enough to be looked at several times."""
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def meet(folder, name, count):
    """Whether so many calls were running at the same time."""
    (Path(folder) / name).touch()
    end = time.monotonic() + 3
    while len(list(Path(folder).iterdir())) < count:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def answer_when_there(path, size):
    """A large result of small parts, as soon as a file is there; the pid is left.

    Parts that were large themselves would not go through the pipe.
    """
    while not Path(path).exists():
        time.sleep(0.01)
    Path(f"{path}.pid").write_text(str(os.getpid()))
    return [bytes(32 * 1024 - 1) + bytes([n % 256]) for n in range(size * 32)]


def resource_limits():
    import resource

    # A worker marks its tasks by the limit of realtime processes (task_limits.py).
    names = {name for name in vars(resource) if name.startswith("RLIMIT_")}
    names.discard("RLIMIT_RTTIME")
    return {name: resource.getrlimit(getattr(resource, name)) for name in sorted(names)}


def limit_data(more):
    """Let this process take so much more, and then refuse it."""
    import resource

    status = Path("/proc/self/status").read_text()
    (data,) = (line for line in status.splitlines() if line.startswith("VmData:"))
    limit = int(data.split()[1]) * 1024 + more * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


# --- Batches ------------------------------------------------------------------


def square(number):
    return number**2


def square_unless_odd(number):
    if number % 2:
        raise ValueError(number)
    return number**2


def end_as_told(words):
    """A value, or an end of another kind: (what, its words)."""
    name, *rest = words
    return globals()[name](*rest)


def succeed_at(folder, needed, item):
    """Fails until it was called so often with this item."""
    note = Path(folder) / str(item)
    with note.open("a") as file:
        file.write("x")
    if note.stat().st_size < needed:
        raise ValueError(item)
    return item


def note_call(folder, item):
    """Leaves a mark for each call."""
    with (Path(folder) / str(item)).open("a") as file:
        file.write("x")
    return item


def scaled(number, factor):
    return number * factor


def padded(number):
    """A value of a thousand bytes that tells its item."""
    return f"{number:1000}"


def count_in(path, _item):
    with path.open("ab", buffering=0) as file:
        file.write(b".")


def end_by_once(path, item):
    """The first to come to the third item ends its process."""
    if item == 3 and not path.exists():
        path.touch()
        os._exit(1)
    return item


TABLE = {}


def table(values):
    """A function of a module that gives these values, in this process."""
    TABLE.clear()
    TABLE.update(values)
    return looked_up


def looked_up(key):
    return TABLE[key]


def pair(_item):
    return (1, 2)


def nothing(_item):
    return None


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def raise_mute(_item):
    raise MuteError


# --- Of what starts ------------------------------------------------------------

_kept: list = []


def keep(*values):
    _kept[:] = values


def kept():
    return type(_kept[0]).__name__


def measure_when_there(content, path):
    """The length of a text, once there is a file."""
    wait_for(path)
    return len(content)


def wait_for(path):
    """Wait until there is such a file."""
    while not Path(path).exists():
        time.sleep(0.01)


def readable(number, seconds):
    """Whether a file can be read from before so many seconds are over."""
    return bool(select.select([number], [], [], seconds)[0])


def say_over_socket(end):
    return end.send(b"hi")


def say_over_connection(ends):
    ends[0]["nested"].send("hi")


def give_a_socket():
    here, there = socket.socketpair()
    with here:
        here.send(b"hi")
    return there


def hang(begun):
    Path(begun).touch()
    time.sleep(600)


def end_politely(begun):
    def leave(*_):
        raise InterruptedError

    signal.signal(signal.SIGTERM, leave)
    try:
        hang(begun)
    except InterruptedError:
        return "politely"


def be_stubborn(begun):
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    Path(begun).touch()
    while not asked:
        time.sleep(0.01)
    return "stubborn"


def raise_error(error):
    raise error


def invert(number):
    return 1 / number


def nap_and_tell(seconds):
    time.sleep(seconds)
    return seconds


def nested_sum(count):
    from coresize import ProcessPoolExecutor, ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as processes:
        return threads.submit(sum, processes.map(abs, range(count))).result()


def take_part(path, role):
    """Return the role: "last" makes a file, "wait" waits for it."""
    if role == "last":
        Path(path).touch()
    deadline = time.monotonic() + 60
    while role == "wait" and not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
    return role


def mapped(array, place):
    """Whether a segment is mapped, and whether the array may be written to; an item."""
    from coresize.processes import segments

    return segments.mapped() > 0, bool(array.flags.writeable), float(array[place])
