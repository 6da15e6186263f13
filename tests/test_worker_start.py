"""What a worker has when it starts, wherever its pool was made and its tasks came."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import zipapp
from pathlib import Path

import pytest
import tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import ProcessPoolExecutor, SerialExecutor, ThreadPoolExecutor
from coresize.errors import TaskKilledError
from coresize.processes import main_module


linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has it")


def _run(words, folder, *, program=None, env=None):
    """A program that has to end by itself, and to say nothing of errors."""
    done = subprocess.run(
        words,
        cwd=folder,
        input=program,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- What is submitted at the end of a program --------------------------------

#: Adds a line for each call; how its pool is made and used is an argument.
LAST = """
import atexit, multiprocessing, os, sys, threading
from pathlib import Path
import coresize
from coresize import ProcessPoolExecutor, SerialExecutor, ThreadPoolExecutor

def note(number):
    with open(sys.argv[1], "a") as file:
        file.write(f"{number}\\n")
    return number

def submit():
    for number in range(12):
        pool.submit(note, number)

def late():
    threading.main_thread().join()
    submit()

def context(name):
    return multiprocessing.get_context(name)

MAKE = {
    "spawn": lambda: ProcessPoolExecutor(2, context("spawn")),
    "memory": lambda: ProcessPoolExecutor(2, memory="1MB"),
    "auto": lambda: ProcessPoolExecutor(2, memory="auto"),
    "replaced": lambda: ProcessPoolExecutor(2, max_tasks_per_child=2),
    "limited": lambda: coresize.limit_memory(ProcessPoolExecutor(2), memory="1MB"),
    "threads": lambda: ThreadPoolExecutor(2),
    "serial": lambda: SerialExecutor(),
}

def main():
    global pool
    how = sys.argv[2]
    pool = MAKE.get(how, lambda: ProcessPoolExecutor(2))()
    if how in ("map", "serial"):
        pool.map(note, range(12))
    elif how == "generator":
        pool.map(note, iter(range(12)))
    elif how == "thread":
        threading.Thread(target=late).start()
    elif how == "atexit":
        atexit.register(submit)
    else:
        if how == "chdir":
            os.chdir("/")
        submit()

if __name__ == "__main__":
    main()
"""

#: How the program is started, with its text on standard input or not.
STARTS = {
    "file": ["program.py"],
    "module": ["-m", "package.module"],
    "package": ["-m", "package"],
    "folder": ["package"],
    "zip": ["program.pyz"],
    "runpy": ["-c", "import runpy; runpy.run_path('program.py', run_name='__main__')"],
    "command": ["-c", LAST],
    "input": ["-"],
}
HOWS = ["spawn", "memory", "auto", "replaced", "limited", "threads", "serial", "map"]
HOWS += ["generator", "thread", "atexit", "chdir"]


def _lay_out(folder, text):
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    for path in ("program.py", "package/module.py", "package/__main__.py"):
        (folder / path).write_text(text)
    zipapp.create_archive(package, folder / "program.pyz")


@pytest.mark.parametrize(
    ("start", "how"),
    [*((start, "plain") for start in STARTS), *(("file", how) for how in HOWS)],
)
def test_what_was_submitted_last_is_done(start, how, tmp_path):
    _lay_out(tmp_path, LAST)
    _run(
        [sys.executable, *STARTS[start], str(tmp_path / "out"), how],
        tmp_path,
        program=LAST,
    )
    done = (tmp_path / "out").read_text().split()
    assert sorted(done, key=int) == list(map(str, range(12)))


@pytest.mark.parametrize("how", ["plain", "map"])
def test_what_was_submitted_last_is_done_serially(how, tmp_path):
    _lay_out(tmp_path, LAST)
    env = {"CORESIZE_PARALLEL": "0"}
    _run([sys.executable, "program.py", "out", how], tmp_path, env=env)
    assert len((tmp_path / "out").read_text().split()) == 12


#: The same in a process that the program starts.
IN_CHILDREN = f"""
import concurrent.futures
{LAST.rpartition("if __name__")[0]}
def child():
    main()

CHILDREN = {{
    "fork": lambda: context("fork").Process(target=child),
    "spawn": lambda: context("spawn").Process(target=child),
    "forkserver": lambda: context("forkserver").Process(target=child),
}}

if __name__ == "__main__":
    kind = sys.argv[3]
    if kind == "ours":
        with ProcessPoolExecutor(1) as outer:
            outer.submit(child).result()
    elif kind == "standard":
        with concurrent.futures.ProcessPoolExecutor(1) as outer:
            outer.submit(child).result()
    elif kind == "daemonic":
        outer = multiprocessing.Pool(1)
        outer.apply(child)
        outer.close()
        outer.join()
    elif kind == "os.fork":
        with ProcessPoolExecutor(1) as outer:  # a forkserver runs
            outer.submit(abs, 1).result()
        if not os.fork():
            child()
            sys.exit()
        assert os.wait()[1] == 0
    else:
        process = CHILDREN[kind]()
        process.start()
        process.join()
        assert process.exitcode == 0
"""
KINDS = ["fork", "spawn", "forkserver", "ours", "standard", "daemonic", "os.fork"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [*((kind, "plain") for kind in KINDS), ("fork", "limited"), ("fork", "serial")],
)
@linux
def test_what_a_child_submitted_last_is_done(kind, how, tmp_path):
    (tmp_path / "program.py").write_text(IN_CHILDREN)
    _run([sys.executable, "program.py", str(tmp_path / "out"), how, kind], tmp_path)
    assert len((tmp_path / "out").read_text().split()) == 12


@pytest.mark.parametrize(
    ("name", "file", "imported", "known_as"),
    [
        (None, "/a/program.py", True, "program"),
        ("package.module", "/a/package/module.py", True, "package.module"),
        ("package.__main__", "/a/package/__main__.py", False, "package"),
        ("__main__", "/a/program.pyz/__main__.py", False, "__main__"),
        (None, "<stdin>", False, "<stdin>"),
        (None, None, False, "__main__"),
    ],
)
def test_what_is_known_of_a_main_module(name, file, imported, known_as):
    main = main_module.MainModule(name=name, file=file)
    assert (main.is_imported, main.importable_name) == (imported, known_as)


#: Functions that have no name in a worker arrive there, as initializers as well.
INITIALIZER = """
import multiprocessing, sys
from coresize import ProcessPoolExecutor

class Own:
    pass

def keep(*values):
    sys.kept = values

def kept():
    return [type(value).__name__ for value in sys.kept]

if __name__ == "__main__":
    lock = multiprocessing.get_context("forkserver").Lock()
    for function, values in ((keep, [Own()]), (lambda one: keep(one), [Own()]),
                             (keep, [1, lock])):
        with ProcessPoolExecutor(1, initializer=function, initargs=values) as pool:
            print(*pool.submit(kept).result())
"""


@pytest.mark.parametrize("start", ["file", "package", "zip", "input"])
@linux
def test_an_initializer_may_be_the_programs_own(start, tmp_path):
    _lay_out(tmp_path, INITIALIZER)
    words = [sys.executable, *STARTS[start]]
    out = _run(words, tmp_path, program=INITIALIZER)
    assert out == "Own\nOwn\nint Lock\n"


# --- What a worker inherits ---------------------------------------------------

#: What is changed after the first pool of a program, and how a worker sees it: when it
#: imports the main module, and in a task.
INHERITS = """
import json, multiprocessing, os, resource, signal, sys
from coresize import ProcessPoolExecutor

def look():
    mask = os.umask(0)
    os.umask(mask)
    return {
        "set": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "changed": os.environ.get("CHANGED"),
        "deleted": os.environ.get("DELETED"),
        "folder": os.getcwd(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "umask": mask,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "default": signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL,
    }

SEEN = look()

def both():
    return SEEN, look()

if __name__ == "__main__":
    os.environ.update(CHANGED="1", DELETED="1")
    with ProcessPoolExecutor(1) as pool:
        first = pool.submit(look).result()
    assert first == look(), first
    del os.environ["DELETED"]
    os.environ.update(CHANGED="2", CUDA_VISIBLE_DEVICES="0")
    os.chdir("/usr")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.umask(0o77)
    os.nice(3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 900))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[1])) as pool:
        seen, now = pool.submit(both).result()
    wanted = look()
    print(json.dumps([[name, wanted[name], now[name]] for name in wanted]))
    print(json.dumps([[name, wanted[name], seen[name]] for name in wanted]))
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@linux
def test_a_worker_has_what_a_fork_would_have(method, tmp_path):
    (tmp_path / "program.py").write_text(INHERITS)
    out = _run([sys.executable, "program.py", method], tmp_path)
    for line in out.splitlines():
        assert [row for row in json.loads(line) if row[1] != row[2]] == []


def test_a_ctrl_c_that_cannot_be_raised_is_not_printed(tmp_path):
    """It arrives in a callback, as those of the locks of imports."""
    program = textwrap.dedent("""
        import signal, weakref
        from coresize import ProcessPoolExecutor
        class Thing: pass
        def interrupt(_):
            signal.raise_signal(signal.SIGINT)
        def fail(_):
            raise ValueError("told")
        def drop():
            for callback in (interrupt, fail):
                thing = Thing()
                kept = weakref.ref(thing, callback)
                del thing
            return "ended"
        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                print(pool.submit(drop).result())
    """)
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, "program.py"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ended\n"
    assert "ValueError: told" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_what_is_ignored_for_a_while_is_not_ignored_for_ever(tmp_path):
    program = textwrap.dedent("""
        import signal
        from coresize import ProcessPoolExecutor
        def is_ignored():
            return signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        if __name__ == "__main__":
            own = signal.signal(signal.SIGINT, signal.SIG_IGN)
            with ProcessPoolExecutor(1) as pool:
                print(pool.submit(is_ignored).result())
            signal.signal(signal.SIGINT, own)
            with ProcessPoolExecutor(1) as pool:
                print(pool.submit(is_ignored).result())
    """)
    (tmp_path / "program.py").write_text(program)
    assert _run([sys.executable, "program.py"], tmp_path) == "True\nFalse\n"


@given(moves=st.lists(st.integers(0, 2), min_size=1, max_size=8), workers=st.just(2))
@settings(max_examples=10)
def test_a_task_runs_in_the_folder_that_it_was_submitted_in(moves, workers):
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(3)]
        folders = [os.path.realpath(path) for path in made]
        stack.enter_context(contextlib.chdir("/"))
        pool = stack.enter_context(ProcessPoolExecutor(workers))
        futures, maps = [], []
        for move in moves:
            os.chdir(folders[move])
            futures.append(pool.submit(os.getcwd))
            maps.append(pool.map(os.path.abspath, ["one", "two"]))
        os.chdir("/")
        assert [future.result(60) for future in futures] == [folders[m] for m in moves]
        assert [list(values) for values in maps] == [
            [f"{folders[m]}/one", f"{folders[m]}/two"] for m in moves
        ]


def test_what_a_worker_enters_itself_stays(tmp_path):
    place = os.path.realpath(tmp_path)
    with ProcessPoolExecutor(1, initializer=os.chdir, initargs=(place,)) as pool:
        assert {pool.submit(os.getcwd).result(60) for _ in range(3)} == {place}
        pool.submit(os.chdir, "/").result(60)
        assert pool.submit(os.getcwd).result(60) == "/"


def test_a_folder_that_is_gone_costs_the_tasks_that_were_submitted_there(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    with ProcessPoolExecutor(1) as pool:
        gate = pool.submit(tasks.wait_for, str(tmp_path / "gate"))
        with contextlib.chdir(gone):
            there = pool.submit(os.getcwd)
            mapped = pool.map(os.path.abspath, ["one", "two"], chunksize=2)
        gone.rmdir()
        (tmp_path / "gate").touch()
        gate.result(60)
        assert isinstance(there.exception(60), FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            next(mapped)
        assert pool.submit(os.getcwd).result(60) == str(Path.cwd())


# --- Locks, sockets and connections -------------------------------------------

SHARED = {
    "Lock": (),
    "RLock": (),
    "Semaphore": (),
    "Condition": (),
    "Event": (),
    "Barrier": (2,),
    "Queue": (),
    "SimpleQueue": (),
    "Value": ("i", 1),
    "Array": ("i", 3),
}


@pytest.mark.parametrize("name", SHARED)
@linux
def test_what_is_shared_is_made_by_the_context_of_the_pool(name):
    made = getattr(multiprocessing.get_context("forkserver"), name)(*SHARED[name])
    kept = {"initializer": tasks.keep, "initargs": (made,)}
    with ProcessPoolExecutor(1, **kept) as pool:
        assert pool.submit(tasks.kept).result(60) == type(made).__name__
    made = getattr(multiprocessing.get_context("fork"), name)(*SHARED[name])
    kept = {"initializer": tasks.keep, "initargs": (made,)}
    with ProcessPoolExecutor(1, **kept) as pool:
        text = str(pool.submit(tasks.kept).exception(60))
    assert 'get_context("forkserver")' in text


@pytest.mark.parametrize("name", ["Lock", "Queue", "Event"])
@linux
def test_an_argument_that_cannot_be_shared_names_the_way(name):
    made = getattr(multiprocessing, name)()
    with ProcessPoolExecutor(1) as pool:
        text = str(pool.submit(tasks.echo, made).exception(60))
    assert "initargs=" in text
    assert 'get_context("forkserver")' in text
    if name == "Queue":
        made.close()
        made.join_thread()


@linux
def test_sockets_and_connections_travel():
    left, right = socket.socketpair()
    here, there = multiprocessing.Pipe()
    with ProcessPoolExecutor(1) as pool, left, right, here, there:
        assert pool.submit(tasks.say_over_socket, left).result(60) == 2
        assert right.recv(2) == b"hi"
        pool.submit(tasks.say_over_connection, [{"nested": there}]).result(60)
        assert here.recv() == "hi"
        assert list(pool.map(tasks.say_over_socket, [left, left])) == [2, 2]
        with pool.submit(tasks.give_a_socket).result(60) as given_back:
            assert given_back.recv(2) == b"hi"
        own = pool.submit(lambda end: end.send("hi"), there)  # by value
        own.result(60)
        assert here.recv() == "hi"


# --- Pools inside of workers, forks and daemons -------------------------------

INSIDE = """
import concurrent.futures, multiprocessing, os, sys, threading
from coresize import ProcessPoolExecutor, parallel_map, profile_task, run_batch

def pool(method=None):
    context = multiprocessing.get_context(method) if method else None
    with ProcessPoolExecutor(2, context) as made:
        return sorted(made.map(abs, [-1, -2]))

def thread():
    found = []
    one = threading.Thread(target=lambda: found.extend(pool()))
    one.start()
    one.join()
    return found

def batch():
    return sorted(one.value for one in run_batch(abs, [-1, -2], progress=False))

def backend():
    import joblib
    from coresize.adapters.joblib import register
    register()
    with joblib.parallel_config("coresize", n_jobs=2):
        return joblib.Parallel()(joblib.delayed(abs)(one) for one in (-1, -2))

WHAT = {
    "pool": pool,
    "spawn": lambda: pool("spawn"),
    "fork": lambda: pool("fork"),
    "thread": thread,
    "batch": batch,
    "map": lambda: sorted(parallel_map(abs, [-1, -2])),
    "backend": backend,
    "profile": lambda: [profile_task(abs, -1).threads, 2],
}

def work(what):
    return WHAT[what]()

def joblib_worker(backend, what):
    import joblib
    return joblib.Parallel(2, backend)([joblib.delayed(work)(what)] * 2)[0]

def forked(what):
    end, other = os.pipe()
    if not os.fork():
        try:
            os.write(other, repr(work(what)).encode())
        finally:
            os._exit(0)
    os.close(other)
    os.wait()
    return eval(os.read(end, 100))

def of_executor(executor, what):
    with executor(1) as made:
        return made.submit(work, what).result()

def daemonic(method, what):
    with multiprocessing.get_context(method).Pool(1) as made:
        return made.apply(work, (what,))

WHERE = {
    "loky": lambda what: joblib_worker("loky", what),
    "joblib-multiprocessing": lambda what: joblib_worker("multiprocessing", what),
    "forked": forked,
    "daemonic": lambda what: daemonic("fork", what),
    "daemonic-spawn": lambda what: daemonic("spawn", what),
    "standard": lambda what: of_executor(concurrent.futures.ProcessPoolExecutor, what),
    "ours": lambda what: of_executor(ProcessPoolExecutor, what),
}

if __name__ == "__main__":
    outer = ProcessPoolExecutor(1)  # has a thread, a forkserver and a worker
    outer.submit(abs, 1).result()
    print(WHERE[sys.argv[1]](sys.argv[2]))
"""
WHERE = ["loky", "joblib-multiprocessing", "forked", "daemonic", "daemonic-spawn"]
WHERE += ["standard", "ours"]
WHAT = ["spawn", "fork", "thread", "batch", "map", "backend", "profile"]


@pytest.mark.parametrize(
    ("where", "what"),
    [
        *((where, "pool") for where in WHERE),
        *itertools.product(["loky", "forked", "daemonic"], WHAT),
    ],
)
@linux
def test_a_pool_works_inside_of_other_processes(where, what, tmp_path):
    (tmp_path / "program.py").write_text(INSIDE)
    done = subprocess.run(
        # Python 3.12 warns of a fork beside threads, which is what is tried here.
        [sys.executable, "-W", "ignore", "program.py", where, what],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[1, 2]\n", 0), done.stderr


INHERITED = """
import os, sys, time
from coresize import ProcessPoolExecutor

def child(action):
    sys.stdout.flush()
    if not os.fork():
        try:
            print(action())
        except RuntimeError as error:
            print("another pool in the child" in str(error))
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2)
    running = pool.submit(time.sleep, 0.5)
    unread = pool.map(abs, range(6000))
    unused = ProcessPoolExecutor(1)
    waiting = iter(pool.map(time.sleep, [0.5] * 4))
    for action in (
        lambda: pool.submit(abs, -1),
        lambda: pool.map(abs, [-1]),
        lambda: next(waiting),
        lambda: pool._processes,
        lambda: pool.shutdown(),
        lambda: pool.kill_workers(),
        lambda: pool.terminate_workers(),
        lambda: pool.__exit__(None, None, None),
        lambda: globals().pop("pool") and None,
        lambda: globals().pop("unread") and None,
        lambda: unused.submit(abs, -7).result(),
        lambda: unused.shutdown(),
    ):
        child(action)
    print(running.result(), sum(unread), unused.submit(abs, -8).result())
"""


@linux
def test_a_pool_that_was_inherited_is_refused_and_stays_the_parents(tmp_path):
    (tmp_path / "program.py").write_text(INHERITED)
    words = [sys.executable, "-W", "ignore", "program.py"]
    lines = _run(words, tmp_path).split("\n")
    assert lines[:4] == ["True"] * 4
    assert lines[4:8] == ["None", "None", "None", "False"]
    assert lines[8:10] == ["None", "None"]
    assert lines[10:12] == ["7", "None"]
    assert lines[12] == f"None {sum(range(6000))} 8"


# --- Threads and cores of workers ---------------------------------------------

SHARES = """
import json, os, sys
from coresize import ProcessPoolExecutor, available_cores

def look():
    return [os.environ.get("OMP_NUM_THREADS"), available_cores()]

def nest():
    with ProcessPoolExecutor(2) as pool:
        return [look(), pool.submit(look).result()]

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    with ProcessPoolExecutor(**options) as pool:
        print(json.dumps(pool.submit(nest).result()))
"""
RUN = ["-m", "coresize", "run", "-q", "--", sys.executable]


@pytest.mark.parametrize(
    "row",  # environment, options; threads and cores of a worker, of one inside of it
    [
        ({}, {}, ["1", 1], ["1", 1]),
        ({}, {"max_workers": 2}, ["2", 2], ["1", 1]),
        ({}, {"threads": 3}, ["3", 1], ["1", 1]),
        ({"OMP_NUM_THREADS": "7"}, {}, ["7", 1], ["7", 1]),
        ({"OMP_NUM_THREADS": "7"}, {"threads": 3}, ["3", 1], ["1", 1]),
        ({"OMP_NUM_THREADS": "4"}, {"threads": 1}, ["1", 1], ["1", 1]),
        ({"CORESIZE_MAX_CORES": "2"}, {"max_workers": 2}, ["1", 1], ["1", 1]),
        ({"CORESIZE_MAX_CORES": "4"}, {"max_workers": 1}, ["4", 4], ["2", 2]),
    ],
)
@pytest.mark.parametrize("before", [[], RUN])
def test_threads_of_a_worker(row, before, tmp_path):
    env, options, *expected = row
    (tmp_path / "program.py").write_text(SHARES)
    words = [sys.executable, *before, "program.py", json.dumps(options)]
    out = _run(words, tmp_path, env={"CORESIZE_OVERRIDE_CORES": "4", **env})
    assert json.loads(out) == expected


def test_run_in_run_is_as_the_inner_one_says(tmp_path):
    inner = [*RUN[:3], "-q", "--workers", "2", "--", "printenv", "OMP_NUM_THREADS"]
    words = [sys.executable, *RUN, *inner]
    assert _run(words, tmp_path, env={"CORESIZE_OVERRIDE_CORES": "4"}) == "2\n"


# --- What a sandbox refuses ---------------------------------------------------

#: System calls by their numbers, and fcntl(F_SETSIG) by its argument.
CALLS = {
    "x86_64": {
        "pidfd_open": 434,
        "socketpair": 53,
        "getrusage": 98,
        "memfd_create": 319,
        "prctl": 157,
        "sched_setaffinity": 203,
        "setpriority": 141,
        "umask": 95,
        "fcntl": 72,
    }
}.get(os.uname().machine if hasattr(os, "uname") else "", {})
REFUSED = [*(name for name in CALLS if name != "fcntl"), "F_SETSIG"]

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_REFUSE, _ALLOW = 0x00050001, 0x7FFF0000  # EPERM
_F_SETSIG, _ARGUMENT = 10, 24


def _refuse(names):
    """Refuse system calls to this process and to all that it starts (seccomp(2))."""
    rules = [(_LOAD, 0, 0, 0)]
    for name in names:
        if name == "F_SETSIG":
            rules += [(_EQUAL, 0, 4, CALLS["fcntl"]), (_LOAD, 0, 0, _ARGUMENT)]
            rules += [(_EQUAL, 0, 1, _F_SETSIG), (_RETURN, 0, 0, _REFUSE)]
            rules += [(_LOAD, 0, 0, 0)]
        else:
            rules += [(_EQUAL, 0, 1, CALLS[name]), (_RETURN, 0, 0, _REFUSE)]
    rules += [(_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *rule) for rule in rules)
    )
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP


SANDBOXED = """
import multiprocessing, os, signal, sys
from coresize import ProcessPoolExecutor, profile_task, run_batch

def double(number):
    return 2 * number

def end():
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    for method in ("forkserver", "spawn", "fork"):
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            assert list(pool.map(double, range(3))) == [0, 2, 4]
            error = pool.submit(end).exception()
            print(type(error).__name__)
    print(sorted(one.value for one in run_batch(double, range(3), progress=False)))
    print(profile_task(double, 1).threads)
"""


@pytest.mark.skipif(not CALLS, reason="the numbers of its system calls are not known")
@pytest.mark.parametrize(
    "names", [*([name] for name in REFUSED), REFUSED], ids="+".join
)
def test_what_a_sandbox_refuses_is_done_another_way(names, tmp_path):
    (tmp_path / "program.py").write_text(SANDBOXED)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        preexec_fn=lambda: _refuse(names),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = "TaskKilledError\n" * 3 + "[0, 2, 4]\n1\n"
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


@pytest.mark.skipif(not CALLS, reason="the numbers of its system calls are not known")
def test_workers_end_with_their_parent_where_no_signal_may_be_chosen(tmp_path):
    program = textwrap.dedent("""
        import os, time
        from coresize import ProcessPoolExecutor
        if __name__ == "__main__":
            pool = ProcessPoolExecutor(1)
            print(pool.submit(os.getpid).result(), flush=True)
            pool.submit(time.sleep, 600)
            time.sleep(600)
    """)
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        preexec_fn=lambda: _refuse(["F_SETSIG"]),  # noqa: PLW1509 - nothing else would do
        stdout=subprocess.PIPE,
    )
    with process:
        worker = int(process.stdout.readline())
        watched = os.pidfd_open(worker)
        process.kill()
    try:
        assert tasks.readable(watched, 60)
    finally:
        os.close(watched)


# --- Ends and buffers as of CPython 3.14 --------------------------------------


@pytest.mark.parametrize("memory", [None, "1MB"])
@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        (tasks.hang, TaskKilledError),
        (tasks.end_politely, "politely"),
        (tasks.be_stubborn, "stubborn"),
    ],
)
def test_workers_may_be_asked_to_end(task, outcome, memory, tmp_path):
    begun = tmp_path / "begun"
    pool = ProcessPoolExecutor(1, memory=memory)
    running, waiting = pool.submit(task, str(begun)), pool.submit(abs, -1)
    tasks.wait_for(str(begun))
    pool.terminate_workers()
    if isinstance(outcome, str):
        assert running.result(60) == outcome
    else:
        error = running.exception(60)
        assert (type(error), error.exit_code) == (outcome, -signal.SIGTERM)
    pool.shutdown()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError):
        pool.submit(abs, -1)


@pytest.mark.parametrize("name", ["kill_workers", "terminate_workers"])
def test_where_there_are_no_workers_none_are_ended(name):
    for pool in (ProcessPoolExecutor(1), SerialExecutor()):
        getattr(pool, name)()
        with pytest.raises(RuntimeError):
            pool.submit(abs, -1)


@pytest.mark.parametrize("make", [ProcessPoolExecutor, ThreadPoolExecutor])
@pytest.mark.parametrize("buffersize", [1, 2, 7, 200])
@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_one_more_is_taken_as_each_value_is_asked_for(make, buffersize, chunksize):
    """What CPython 3.14 takes: as much as is in flight, and one for each value."""
    taken = itertools.count()
    count = 30
    step = (chunksize or 1) if make is ProcessPoolExecutor else 1
    options = {} if chunksize is None else {"chunksize": chunksize}
    with make(2) as pool:
        values = pool.map(abs, taken, buffersize=buffersize, **options)
        seen = [_next(taken)]
        for number in range(count):
            assert next(values) == number
            seen.append(_next(taken))
        values.close()
    chunks = [buffersize, *(buffersize + 1 + n // step for n in range(count))]
    assert seen == [step * chunk for chunk in chunks]


def _next(counter):
    """What a counter would give next: "count(7)"."""
    return int(repr(counter)[len("count(") : -1])


@pytest.mark.parametrize("make", [ProcessPoolExecutor, ThreadPoolExecutor])
@pytest.mark.parametrize("count", [0, 5, 1000])
@pytest.mark.parametrize("buffersize", [1, 64])
def test_a_map_with_a_buffer_gives_all_values(make, count, buffersize):
    with make(2) as pool:
        assert list(pool.map(abs, range(count), buffersize=buffersize)) == list(
            range(count)
        )
        rest = pool.map(abs, iter(range(count)), buffersize=buffersize)
    assert list(rest) == list(range(count))


def test_a_long_path_of_temporary_files_stops_no_pool(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    program = (
        "from coresize import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    print(pool.submit(abs, -1).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
