"""The front door, on other machines and on this one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import weakref

import pytest

from coresize import ConfigError, available_cores, available_memory, detect
from coresize.detection.limits import whole_cores
from coresize.detection.reading import keep_last
from coresize.host import Live
from coresize.testing import Recorded, container, use_host


MIB = 1024**2


@pytest.mark.parametrize(
    ("limit", "nearest", "floor", "ceil"),
    [
        (None, 1, 1, 1),
        (0.01, 1, 1, 1),
        (0.5, 1, 1, 1),
        (1.49, 1, 1, 2),
        (1.5, 2, 1, 2),
        (2.5, 3, 2, 3),
        (8.0, 8, 8, 8),
        (8.342, 8, 8, 9),
        (2.000001, 2, 2, 3),
    ],
)
def test_rounding(limit, nearest, floor, ceil):
    assert whole_cores(limit) == nearest
    assert whole_cores(limit, rounding="floor") == floor
    assert whole_cores(limit, rounding="ceil") == ceil


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounding": "up"}, "rounding='up' is not valid"),
        ({"reserve": -1}, "reserve=-1 is not valid"),
        ({"reserve": 1.5}, "reserve=1.5 is not valid"),
        ({"reserve": "1"}, "reserve='1' is not valid"),
        ({"reserve": True}, "reserve=True is not valid"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        available_cores(**arguments)


@pytest.mark.hazard(26)
def test_the_case_that_started_the_project():
    with use_host(container(cpus=8, quota=8.342)):
        assert available_cores() == 8


def test_one_core_where_nothing_is_known():
    assert detect(Recorded()).cpu.limit is None
    with use_host(Recorded()):
        assert (available_cores(), available_memory()) == (1, 0)


def test_available_memory_is_below_limit_and_machine():
    with use_host(container(memory="512MiB", used="100MiB")):
        assert available_memory() == 412 * MIB
    with use_host(container(memory="512MiB", used="3GiB", machine_memory="4GiB")):
        assert available_memory() == 0
    with use_host(container(memory="3GiB", used="2GiB", machine_memory="2.5GiB")):
        assert available_memory() == 512 * MIB
    with use_host(container(memory="8GiB", env={"CORESIZE_MAX_MEMORY": "1GiB"})):
        assert available_memory() == 1024 * MIB
    with use_host(container(memory="8GiB", env={"CORESIZE_OVERRIDE_MEMORY": "9GiB"})):
        assert available_memory() == 9 * 1024 * MIB


def test_inactive_file_pages_are_not_in_the_working_set():
    host = container(memory="512MiB", used="500MiB")
    host.files["/sys/fs/cgroup/memory.stat"] = f"anon 1\ninactive_file {300 * MIB}\n"
    with use_host(host):
        assert available_memory() == 312 * MIB


def test_this_machine_and_its_report_agree():
    limits = detect()
    assert available_cores() == whole_cores(limits.cpu.limit)
    assert limits.cpu.affinity == len(os.sched_getaffinity(0))
    assert 0 < available_memory() <= limits.memory.total


# --- Physical cores -----------------------------------------------------------


def _with_topology(cores: dict[int, tuple[int, int]], **details: object) -> Recorded:
    folder = "/sys/devices/system/cpu/cpu{}/topology/{}"
    files = {}
    for cpu, (package, core) in cores.items():
        files[folder.format(cpu, "physical_package_id")] = f"{package}\n"
        files[folder.format(cpu, "core_id")] = f"{core}\n"
    host = container(**details)
    host.files.update(files)
    return host


#: Two packages of two cores of two threads: CPU n and n + 4 share a core.
TWO_PACKAGES = {cpu: (cpu % 4 // 2, cpu % 2) for cpu in range(8)}


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [
        (range(8), None, 4),
        ({0, 4}, None, 1),
        ({0, 1, 4, 5}, None, 2),
        ({0, 2}, None, 2),
        (range(8), 2.5, 3),
        (range(8), 1.0, 1),
    ],
)
def test_physical_cores(affinity, quota, cores):
    host = _with_topology(TWO_PACKAGES, cpus=8, affinity=affinity, quota=quota)
    with use_host(host):
        assert available_cores(physical=True) == cores


def test_physical_cores_without_a_topology_are_the_logical_ones():
    with use_host(container(cpus=8)):
        assert available_cores(physical=True) == 8


def test_physical_cores_elsewhere_are_the_platforms():
    with use_host(Recorded(platform="darwin", cpu_count=8, physical_cores=4)):
        assert available_cores(physical=True) == 4


def test_an_override_is_obeyed_whatever_is_physical():
    host = _with_topology(TWO_PACKAGES, env={"CORESIZE_OVERRIDE_CORES": "7"})
    with use_host(host):
        assert available_cores(physical=True) == 7


@pytest.mark.parametrize("core", ["", "x", "1.5"])
def test_a_malformed_topology_counts_nothing(core):
    host = _with_topology(TWO_PACKAGES, cpus=8)
    host.files["/sys/devices/system/cpu/cpu3/topology/core_id"] = core
    with use_host(host):
        assert available_cores(physical=True) == 8


# --- Sources that join the minimum --------------------------------------------


def test_the_cpuset_counts_where_the_affinity_is_unknown():
    host = Recorded(files=container(cpus=16).files)
    host.files["/sys/fs/cgroup/cpuset.cpus.effective"] = "0-2,8\n"
    assert detect(host).cpu.limit == 4


def test_lxcfs_lowers_the_answer():
    host = container(cpus=16)
    host.files["/sys/devices/system/cpu/online"] = "0-1\n"
    host.files["/proc/self/mountinfo"] += (
        "9 1 0:9 / /sys/devices/system/cpu/online rw - fuse.lxcfs lxcfs rw\n"
    )
    assert detect(host).cpu.limit == 2
    with use_host(host):
        assert available_cores() == 2


def test_address_space_is_a_fact_of_its_own():
    host = container(memory="512MiB")
    host.files["/proc/self/limits"] = (
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max address space         1048576              unlimited            bytes\n"
    )
    limits = detect(host)
    (fact,) = [fact for fact in limits.facts if fact.resource == "address_space"]
    assert (fact.amount, fact.source) == (1048576, "rlimit:RLIMIT_AS")
    assert limits.memory.limit == 512 * MIB


# --- The order of imports -----------------------------------------------------


@pytest.mark.hazard(26)
@pytest.mark.parametrize(
    "program",
    [
        "import os, coresize; os.environ['CORESIZE_OVERRIDE_CORES'] = '5'",
        "import os; os.environ['CORESIZE_OVERRIDE_CORES'] = '5'; import coresize",
    ],
    ids=["after", "before"],
)
def test_an_override_works_before_and_after_the_import(program):
    program += "; print(coresize.available_cores())"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert out == "5\n"


@pytest.mark.parametrize("option", ["5", "default"])
def test_the_option_of_python_goes_before_its_variable(option):
    program = "from coresize import available_cores; print(available_cores())"
    done = subprocess.run(
        [sys.executable, "-X", f"cpu_count={option}", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON_CPU_COUNT": "3"},
        check=True,
    )
    cores = available_cores() if option == "default" else int(option)
    assert done.stdout == f"{cores}\n"


def test_the_option_of_python_is_named_as_the_source():
    command = [sys.executable, "-X", "cpu_count=5", "-m", "coresize"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "set by env:-X cpu_count" in done.stdout


# --- What is kept between calls -----------------------------------------------


def _v1(quota, period):
    folder = "/sys/fs/cgroup/cpu"
    return {
        "/proc/self/cgroup": "1:cpu:/\n",
        "/proc/self/mountinfo": f"32 31 0:29 / {folder} rw - cgroup cgroup rw,cpu\n",
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }


def test_what_changes_is_seen_by_the_next_call():
    quota, cgroups = "/sys/fs/cgroup/cpu.max", "/proc/self/cgroup"
    host = container(cpus=8)
    with use_host(host):
        assert available_cores() == 8
        for text, cores in [("200000 100000", 2), ("x", 8), ("50000 10000", 5)]:
            host.files[quota] = f"{text}\n"
            assert (available_cores(), available_cores()) == (cores, cores)
        host.files |= {cgroups: "0::/a\n", "/sys/fs/cgroup/a/cpu.max": "30000 10000"}
        assert available_cores() == 3
        host.files[cgroups] = "0::/\n"
        assert available_cores() == 5
        del host.files[quota]
        assert available_cores() == 8
        host.env["CORESIZE_MAX_CORES"] = "7"
        assert available_cores() == 7
        host.env["CORESIZE_MAX_CORES"] = "6"
        assert available_cores() == 6
        host.env.clear()
        for quota, period, cores in [(4, 1, 4), (4, 2, 2), (6, 2, 3), (-1, 2, 8)]:
            host.files = _v1(quota, period)
            assert available_cores() == cores


def test_an_affinity_that_changes_in_place_is_seen_by_the_next_call():
    cpus = {0, 1, 2}
    host = Recorded(files=container(cpus=8).files, affinity=cpus)
    with use_host(host):
        assert available_cores() == 3
        cpus.remove(1)
        assert available_cores() == 2


def test_the_last_answer_is_kept_for_each_key():
    calls = []

    @keep_last
    def double(content, key):
        calls.append((content, key))
        return 2 * int(content)

    assert [double("1", "a"), double("2", "b"), double("1", "a")] == [2, 4, 2]
    assert [double("3", "a"), double("1", "a")] == [6, 2]
    assert calls == [("1", "a"), ("2", "b"), ("3", "a"), ("1", "a")]
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            double("x", "a")
    assert calls[4:] == [("x", "a")] * 2


def test_answers_are_kept_for_a_bounded_number_of_keys():
    kept = []

    class Answer:
        """Something that a weak reference can point at."""

    @keep_last
    def answer(_content, _key):
        made = Answer()
        kept.append(weakref.ref(made))
        return made

    for key in range(1000):
        answer("", key)
    assert sum(reference() is not None for reference in kept) <= 256


# --- The door to this machine -------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    ["os.environ", "dict(os.environ)", "copy.copy(os.environ)"],
)
def test_variables_are_those_of_os_environ_whatever_it_is(environ):
    program = f"""
import copy, os
from coresize.host import Live
os.environ = {environ}
os.environ["A"] = os.environ["B"] = "1"
os.environ["C"] = ""
names = frozenset("ABCD")
print(sorted(Live().variables(names).items()))
del os.environ["A"]
os.environ["D"] = "\\udcff"
print(sorted(Live().variables(names)), Live().variables(names)["D"] == "\\udcff")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[('A', '1'), ('B', '1')]\n['B', 'D'] True\n"


def test_variables_set_in_bytes_are_seen():
    os.environb[b"CORESIZE_TEST_BYTES"] = b"1"
    try:
        names = frozenset({"CORESIZE_TEST_BYTES"})
        assert Live().variables(names) == {"CORESIZE_TEST_BYTES": "1"}
    finally:
        del os.environb[b"CORESIZE_TEST_BYTES"]


def test_long_files_are_read_whole(tmp_path):
    path = tmp_path / "long"
    path.write_text("0123456789" * 10_000)
    assert Live().read(str(path)) == path.read_text()


def test_endless_files_are_refused():
    with pytest.raises(OSError, match="File too large"):
        Live().read("/dev/zero")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert Live().read(str(tmp_path / "pipe")) == ""


def test_a_path_with_a_nul_is_an_oserror():
    with pytest.raises(OSError, match="null"):
        Live().read("/a\0b")


def test_variables_may_come_and_go_meanwhile():
    name, stop, interval = (
        "CORESIZE_MAX_CORES",
        threading.Event(),
        sys.getswitchinterval(),
    )

    def toggle():
        while not stop.is_set():
            os.environ[name] = "1"
            del os.environ[name]

    thread = threading.Thread(target=toggle)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(5000):
            assert Live().variables(frozenset({name})) in ({}, {name: "1"})
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_an_empty_variable_says_nothing_unless_it_hides_all():
    names = ("CUDA_VISIBLE_DEVICES", "CORESIZE_MAX_CORES")
    program = f"from coresize.host import Live; print(Live().variables({{*{names}}}))"
    env = {**os.environ, **dict.fromkeys(names, "")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "{'CUDA_VISIBLE_DEVICES': ''}"


@pytest.mark.parametrize(
    "wrong", [{"cpus": 0}, {"cpus": "8"}, {"quota": 0}, {"memory": -1}]
)
def test_a_container_of_wrong_sizes_is_refused(wrong):
    with pytest.raises(ConfigError):
        container(**wrong)


def test_a_path_is_no_host():
    with pytest.raises(TypeError, match="load_host"), use_host("host.toml"):
        pass


def test_a_kernel_that_does_not_tell_the_affinity_is_a_gap():
    class Secretive(Recorded):
        def affinity(self):
            raise OSError(errno.EPERM, "Operation not permitted")

    limits = detect(Secretive(cpu_count=8))
    assert (limits.cpu.limit, limits.cpu.affinity) == (8, None)
    assert "sched_getaffinity(0)" in {gap.where for gap in limits.gaps}


def test_elsewhere_psutil_is_asked():
    class Elsewhere(Live):
        """This machine, as if its platform had no /proc that we know."""

        platform = "other"

        def read(self, path):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    host, here = Elsewhere(), detect()
    limits = detect(host)
    assert limits.cpu.capacity == here.cpu.capacity
    assert limits.memory.total == here.memory.total
    assert 0 < limits.memory.available <= limits.memory.total
    assert host.physical_cores() in (None, *range(1, here.cpu.capacity + 1))
    assert limits.gaps == ()
