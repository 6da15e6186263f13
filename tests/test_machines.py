"""What machines and users met: reports on other tools, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import available_cores
from coresize.detection import parse
from coresize.detection.parse import devices, visible_devices
from coresize.errors import ParseError
from coresize.testing import Recorded, container, use_host


# --- CUDA_VISIBLE_DEVICES -----------------------------------------------------

#: value: the GPUs. The first nine are those of PyTorch's TestVisibleDeviceParses.
VISIBLE = {
    "1gpu2,2ampere": (1, 2),
    "0, 1, 2, -1, 3": (0, 1, 2),
    "0, 1, 2, 1": (),
    "2, +3, -0, 5": (2, 3, 0, 5),
    "one,two,3,4": (),
    "4,3,two,one": (4, 3),
    "GPU-9e8d35e3": ("GPU-9e8d35e3",),
    "GPU-123, 2": ("GPU-123",),
    "MIG-89c850dc": ("MIG-89c850dc",),
    # Numbers
    "": (),
    " ": (),
    "-1": (),
    "NoDevFiles": (),
    "all": (),
    "0": (0,),
    "0,x,1": (0,),
    "0,,1": (0,),
    "0,1,": (0, 1),
    "2 ,\t3": (2, 3),
    "007,7": (),
    "0,-0": (),
    "1,+1": (),
    "0,1,-1,1": (0, 1),
    "1.5,2": (1, 2),
    "+,1": (),
    "-,1": (),
    "0,--1": (0,),
    "0x1,1": (0, 1),
    "\u0663,1": (),
    "9" * 5000: (),
    # Names
    "GPU-4f,GPU-8a": ("GPU-4f", "GPU-8a"),
    "GPU-4f,GPU-4f": (),
    "GPU-4f,GPU-8a,GPU-4f": (),
    "GPU-4f,GPU-8a,0,GPU-4f": ("GPU-4f", "GPU-8a"),
    "GPU-4f, GPU-8a": ("GPU-4f",),
    "GPU-4f,MIG-8a": ("GPU-4f",),
    "0,GPU-4f": (0,),
    "gpu-4f": (),
    "MIG-GPU-4f/1/0,MIG-GPU-4f/2/0": ("MIG-GPU-4f/1/0", "MIG-GPU-4f/2/0"),
    "MIG-4f,MIG-4f": (),
}


@pytest.mark.parametrize("text", VISIBLE, ids=lambda text: text[:24] or "empty")
def test_the_visible_gpus_are_those_of_the_driver(text):
    assert visible_devices(text) == VISIBLE[text]
    assert devices(text) == len(VISIBLE[text])


@given(st.lists(st.integers(0, 99), unique=True), st.text(max_size=9), st.data())
def test_what_follows_an_entry_that_is_no_gpu_never_counts(numbers, rest, data):
    text = ",".join(map(str, numbers))
    assert visible_devices(text) == tuple(numbers)
    assert visible_devices(f"{text},-1,{rest}") == tuple(numbers)
    if numbers:
        twice = data.draw(st.sampled_from(numbers))
        assert visible_devices(f"{text},{twice},{rest}") == ()


# --- Physical cores -----------------------------------------------------------


def topology(cpus, **values):
    """The topology files of some CPUs: a text for all of them, or a function."""
    return {
        f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}": f"{text}\n"
        for cpu in cpus
        for name, value in values.items()
        for text in [value(cpu) if callable(value) else value]
    }


def pairs(cpu):
    """CPUs 0 and 1 are threads of a core, and so on."""
    return f"{cpu - cpu % 2}-{cpu - cpu % 2 + 1}"


def mask(cpu):
    return f"00000000,{3 << (cpu - cpu % 2):08x}"


def alone(cpu):
    return str(cpu)


EIGHT = range(8)
PLACE = {"physical_package_id": "0", "core_id": lambda cpu: cpu % 2}

#: case: (files, affinity, cores of a machine with 8 CPUs)
PHYSICAL = {
    "core_cpus_list": (topology(EIGHT, core_cpus_list=pairs), EIGHT, 4),
    "before 5.3": (topology(EIGHT, thread_siblings_list=pairs), EIGHT, 4),
    "a mask": (topology(EIGHT, core_cpus=mask), EIGHT, 4),
    "a mask before 5.3": (topology(EIGHT, thread_siblings=mask), EIGHT, 4),
    "either thread counts": (topology(EIGHT, core_cpus_list=pairs), {1, 2}, 2),
    "both threads are one core": (topology(EIGHT, core_cpus_list=pairs), {2, 3}, 1),
    "the list goes before core_id": (
        topology(EIGHT, core_cpus_list=alone, **PLACE),
        EIGHT,
        8,
    ),
    "core_id is unique within a cluster": (
        topology(EIGHT, **PLACE, cluster_id=lambda cpu: cpu // 2),
        EIGHT,
        8,
    ),
    "core_id is unique within a die": (
        topology(EIGHT, **PLACE, die_id=lambda cpu: cpu // 4),
        EIGHT,
        4,
    ),
    "books and drawers of s390": (
        topology(
            EIGHT,
            **PLACE,
            book_id=lambda cpu: cpu // 2 % 2,
            drawer_id=lambda cpu: cpu // 4,
        ),
        EIGHT,
        8,
    ),
    "no cluster is -1": (topology(EIGHT, **PLACE, cluster_id="-1"), EIGHT, 2),
    "a list about another CPU": (
        topology(EIGHT, core_cpus_list="6-7", thread_siblings_list=pairs),
        EIGHT,
        4,
    ),
    "an empty list": (
        topology(EIGHT, core_cpus_list="", thread_siblings_list=pairs),
        EIGHT,
        4,
    ),
    "a list that is none": (
        topology(EIGHT, core_cpus_list="all", thread_siblings="x", **PLACE),
        EIGHT,
        2,
    ),
    "no list at all": (topology(EIGHT, **PLACE), EIGHT, 2),
    "some CPUs have none": (topology(range(6), core_cpus_list=pairs), EIGHT, 8),
    "no topology": ({}, EIGHT, 8),
}


@pytest.mark.parametrize("case", PHYSICAL)
def test_physical_cores(case):
    files, affinity, cores = PHYSICAL[case]
    host = container(cpus=8, affinity=affinity)
    host.files.update(files)
    with use_host(host):
        assert available_cores(physical=True) == cores
        assert available_cores() == len(affinity)


def test_a_cpu_that_is_offline_is_no_core():
    host = container(cpus=8)
    host.files["/sys/devices/system/cpu/online"] = "0-3\n"
    host.files.update(topology(range(4), core_cpus_list=pairs))
    with use_host(host):
        assert available_cores(physical=True) == 2


def test_physical_cores_where_the_affinity_is_unknown():
    files = container(cpus=8).files | topology(EIGHT, core_cpus_list=pairs)
    with use_host(Recorded(files=files)):
        assert available_cores(physical=True) == 4


def test_the_topology_goes_before_the_platform():
    files = container(cpus=8).files
    host = Recorded(files=files, affinity=set(EIGHT), cpu_count=8, physical_cores=6)
    with use_host(host):
        assert available_cores(physical=True) == 6
        host.files.update(topology(EIGHT, core_cpus_list=pairs))
        assert available_cores(physical=True) == 4


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", set()), ("3\n", {0, 1}), ("1,00000000", {32}), ("80000000,1", {0, 63})],
)
def test_a_mask_of_cpus(text, cpus):
    assert parse.cpu_mask(text) == cpus


@pytest.mark.parametrize("text", ["", ",", "0x3", "g", "-1", "111111111", "\u0663"])
def test_a_text_that_is_no_mask(text):
    with pytest.raises(ParseError):
        parse.cpu_mask(text)
