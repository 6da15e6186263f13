"""Host files that cannot be used, and what recording writes."""

from __future__ import annotations

import pytest

from coresize import HostFileError, available_cores, detect
from coresize.recording import hostfile
from coresize.testing import Recorded, container, load_host, record_host, use_host


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "format = 1 is needed, found None"),
        ("format = 2", "format = 1 is needed, found 2"),
        ("format = ", "not TOML"),
        ("format = 1\nhost = 3", r"\[host\] is not a table"),
        (
            'format = 1\n[host]\ncpu_count = "8"',
            "cpu_count = '8' is not a whole number",
        ),
        (
            "format = 1\n[host]\ncpu_count = true",
            "cpu_count = True is not a whole number",
        ),
        ("format = 1\n[host]\ncpu_count = -1", "cpu_count = -1 is not a whole number"),
        ("format = 1\n[host]\naffinity = 3", "affinity = 3 is not a text"),
        ('format = 1\n[host]\naffinity = "a"', r"\[host\] affinity: 'a' is not"),
        ("format = 1\n[env]\nX = 1", r"\[env\] 'X' = 1 is not a text"),
        ('format = 1\n[unreadable]\n"/x" = "NO"', "'NO' is not an errno name"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, reason):
    path = tmp_path / "host.toml"
    path.write_text(text)
    with pytest.raises(HostFileError, match=reason) as caught:
        load_host(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(HostFileError, match="No such file"):
        load_host(tmp_path / "none.toml")


def test_a_recording_holds_what_detection_reads_and_no_more():
    env = {"NCPUS": "3", "SECRET": "x", "LOKY_MAX_CPU_COUNT": "2"}
    host = container(quota=1.5, env={**env, "CUDA_VISIBLE_DEVICES": ""})
    host.files["/etc/passwd"] = "root"
    host.files["/proc/self/mountinfo"] += "1 1 8:1 / /home/me rw - ext4 /dev/sda rw\n"
    text = hostfile.dumps(record_host(host), note='a "note"')
    assert "SECRET" not in text
    assert "NCPUS" not in text
    assert "passwd" not in text
    assert "/home/me" not in text
    assert "LOKY_MAX_CPU_COUNT = " in text
    assert 'CUDA_VISIBLE_DEVICES = ""' in text
    file = hostfile.loads(text, "x")
    assert file.note == 'a "note"'
    assert detect(file.host) == detect(host)


def test_an_unreadable_file_stays_unreadable():
    host = container()
    host.unreadable["/sys/fs/cgroup/cpu.max"] = "EACCES"
    replayed = hostfile.loads(hostfile.dumps(record_host(host)), "x").host
    (gap,) = [gap for gap in detect(replayed).gaps if gap.where.endswith("cpu.max")]
    assert gap.reason == "EACCES: Permission denied"


def test_a_machine_without_proc_answers_with_its_capacity():
    host = Recorded(
        platform="darwin", cpu_count=10, physical_cores=8, memory=(2**34, 2**33)
    )
    replayed = hostfile.loads(hostfile.dumps(record_host(host)), "x").host
    limits = detect(replayed)
    assert (limits.cpu.limit, limits.cpu.capacity, limits.cpu.quota) == (10, 10, None)
    assert (limits.memory.limit, limits.memory.total) == (None, 2**34)
    assert limits.memory.available == 2**33


def test_a_byte_that_is_no_utf8_survives():
    name = "/a\udcff"
    host = Recorded(
        files={
            "/proc/self/cgroup": f"0::{name}\n",
            "/proc/self/mountinfo": "29 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
            f"/cg{name}/cpu.max": "150000 100000\n",
        }
    )
    replayed = hostfile.loads(hostfile.dumps(record_host(host)), "x").host
    assert detect(replayed).cpu.limit == detect(host).cpu.limit == 1.5


def test_physical_cores_are_recorded_too():
    host = container(cpus=4)
    for cpu in range(4):
        folder = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        host.files[f"{folder}/physical_package_id"] = "-1\n"  # some ARM boards
        host.files[f"{folder}/core_id"] = f"{cpu % 2}\n"
    replayed = hostfile.loads(hostfile.dumps(record_host(host)), "x").host
    with use_host(replayed):
        assert available_cores(physical=True) == 2


def test_a_file_and_its_host_are_the_same():
    host = record_host(container(quota=1.5, memory="1GiB", env={"NCPUS": "2"}))
    assert vars(hostfile.loads(hostfile.dumps(host), "x").host) == vars(host)
