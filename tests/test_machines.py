"""What machines and users met: reports on other tools, as tables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import ConfigError, available_cores, available_memory, detect
from coresize.batch.shards import find_shard
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


@settings(max_examples=30)
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


# --- A scheduler's number against its own list, and its share -------------------

GIB = 1024**3
SLURM = {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n1"}
STEP = {**SLURM, "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_CPUS_ON_NODE": "8"}
FOUR = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "4"}
TORQUE = {"PBS_JOBID": "1", "PBS_NODEFILE": "/nodes"}
SGE = {"JOB_ID": "1", "SGE_ROOT": "/opt/sge"}
LSF = {"LSB_JOBID": "1"}
FILES = {
    "/nodes": "other\n" * 2 + "ME.example.org\n" * 3 + "me.example.org\n",
    "/elsewhere": "a.example.org\nb.example.org\n",
    "/pe": "other 8 all.q@other x\nme 3 all.q@me x\nme 2 long.q@me x\n",
    "/affinity": "other 0-7 0 1\nme 0,1 0 1\nme 1-5 0 1\n",
    "/unbound": "me\nme\nother\n",
    "/empty": "",
}

#: case: (variables, cores or None for the whole machine's 64, variables ignored)
CORES = {
    "torque: the list of a full host name": (
        {**TORQUE, "PBS_NUM_PPN": "1", "PBS_NUM_NODES": "0"},
        4,
        ["PBS_NUM_PPN"],
    ),
    "torque: the list and the number agree": ({**TORQUE, "PBS_NUM_PPN": "4"}, 4, []),
    "torque: unlike nodes": (
        {**TORQUE, "PBS_NUM_PPN": "16"},
        4,
        ["PBS_NUM_PPN"],
    ),
    "torque: not listed": (
        {**TORQUE, "PBS_NUM_PPN": "6", "PBS_NODEFILE": "/elsewhere"},
        6,
        ["PBS_NODEFILE"],
    ),
    "torque: the list is lost": (
        {**TORQUE, "PBS_NUM_PPN": "6", "PBS_NODEFILE": "/lost"},
        6,
        ["PBS_NODEFILE"],
    ),
    "torque: neither": (
        {**TORQUE, "PBS_NUM_PPN": "x", "PBS_NODEFILE": "/lost"},
        64,
        ["PBS_NODEFILE", "PBS_NUM_PPN"],
    ),
    "openpbs: one MPI process of six CPUs": ({**TORQUE, "NCPUS": "6"}, 6, []),
    "openpbs: several chunks on this host": (
        {**TORQUE, "NCPUS": "1"},
        4,
        ["NCPUS"],
    ),
    "openpbs: the list is lost": (
        {**TORQUE, "NCPUS": "6", "PBS_NODEFILE": "/lost"},
        6,
        [],
    ),
    "openpbs: only the list": (TORQUE, 4, []),
    "sge: the list before the number": (
        {**SGE, "PE_HOSTFILE": "/pe", "NSLOTS": "13", "NHOSTS": "1"},
        5,
        ["NSLOTS"],
    ),
    "sge: the total of two hosts": (
        {**SGE, "PE_HOSTFILE": "/pe", "NSLOTS": "13", "NHOSTS": "2"},
        5,
        [],
    ),
    "lsf: the CPUs of this host's slots": (
        {**LSF, "LSB_AFFINITY_HOSTFILE": "/affinity", "LSB_MCPU_HOSTS": "me 2 b 1"},
        6,
        [],
    ),
    "lsf: no affinity": (
        {**LSF, "LSB_AFFINITY_HOSTFILE": "/empty", "LSB_MCPU_HOSTS": "me 2 b 1"},
        2,
        [],
    ),
    "lsf: slots that are not bound": (
        {**LSF, "LSB_AFFINITY_HOSTFILE": "/unbound", "LSB_MCPU_HOSTS": "me 2 b 1"},
        2,
        ["LSB_AFFINITY_HOSTFILE"],
    ),
    "lsf: the affinity file is lost": (
        {**LSF, "LSB_AFFINITY_HOSTFILE": "/lost", "LSB_MCPU_HOSTS": "me 2 b 1"},
        2,
        ["LSB_AFFINITY_HOSTFILE"],
    ),
    "slurm: the batch script's CPUs per task": (
        {**FOUR, "SLURM_CPUS_PER_TASK": "4"},
        2,
        ["SLURM_CPUS_PER_TASK"],
    ),
    "slurm: a step of one CPU": (
        {**STEP, "SLURM_CPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "4"},
        1,
        ["SLURM_CPUS_PER_TASK"],
    ),
    "slurm: as many CPUs as the step has": (
        {**FOUR, "SLURM_CPUS_PER_TASK": "2"},
        2,
        [],
    ),
    "slurm: fewer CPUs than the step has": (
        {**FOUR, "SLURM_CPUS_PER_TASK": "1"},
        1,
        [],
    ),
    "slurm: CPUs per task for srun": ({**STEP, "SRUN_CPUS_PER_TASK": "3"}, 3, []),
    "slurm: tres": ({**STEP, "SLURM_TRES_PER_TASK": "cpu=3"}, 3, []),
    "slurm: tres of 23.02": ({**STEP, "SLURM_TRES_PER_TASK": "cpu:3"}, 3, []),
    "slurm: tres with a GPU": (
        {**STEP, "SLURM_TRES_PER_TASK": "gres/gpu:a100=1,cpu=3"},
        3,
        [],
    ),
    "slurm: tres without CPUs": (
        {**STEP, "SLURM_TRES_PER_TASK": "gres/gpu:1"},
        8,
        [],
    ),
    "slurm: the batch script's tres": (
        {**FOUR, "SLURM_TRES_PER_TASK": "cpu=4", "SLURM_CPUS_PER_TASK": "4"},
        2,
        ["SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK"],
    ),
    "slurm: tres malformed": (
        {**STEP, "SLURM_TRES_PER_TASK": "cpu=all"},
        8,
        ["SLURM_TRES_PER_TASK"],
    ),
    "slurm: tasks by the batch script": ({**STEP, "SLURM_NTASKS_PER_NODE": "4"}, 2, []),
    "slurm: the step's own tasks first": (
        {**FOUR, "SLURM_NTASKS_PER_NODE": "8"},
        2,
        [],
    ),
    "slurm: tasks per node, outside a step": (
        {**SLURM, "SLURM_CPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "4"},
        8,
        [],
    ),
    "slurm: the job's nodes are not the step's": (
        {
            **SLURM,
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            "SLURM_JOB_CPUS_PER_NODE": "72,36",
        },
        64,
        ["SLURM_JOB_CPUS_PER_NODE"],
    ),
    "hyperqueue": ({"HQ_JOB_ID": "1", "HQ_CPUS": "1,2,63"}, 3, []),
    "hyperqueue: several nodes": ({"HQ_JOB_ID": "1", "HQ_NODE_FILE": "/n"}, 64, []),
    "hyperqueue: not inside": ({"HQ_CPUS": "1,2,63"}, 64, []),
    "hyperqueue: malformed": ({"HQ_JOB_ID": "1", "HQ_CPUS": "a"}, 64, ["HQ_CPUS"]),
    "jupyterhub": ({"JUPYTERHUB_USER": "a", "CPU_LIMIT": "2.5"}, 2.5, []),
    "jupyterhub: not inside": ({"CPU_LIMIT": "2.0"}, 64, []),
    "jupyterhub: malformed": (
        {"JUPYTERHUB_USER": "a", "CPU_LIMIT": "two"},
        64,
        ["CPU_LIMIT"],
    ),
    "jupyterhub: a guarantee is no limit": (
        {"JUPYTERHUB_USER": "a", "CPU_GUARANTEE": "2"},
        64,
        [],
    ),
}

#: case: (variables, memory limit in bytes, variables ignored)
MEMORY = {
    "slurm: per GPU": (
        {**SLURM, "SLURM_MEM_PER_GPU": "2048", "SLURM_GPUS_ON_NODE": "4"},
        8 * GIB,
        [],
    ),
    "slurm: per GPU of the step": (
        {**SLURM, "SLURM_MEM_PER_GPU": "2G", "SLURM_STEP_GPUS": "0,3"},
        4 * GIB,
        [],
    ),
    "slurm: per GPU of the job": (
        {**SLURM, "SLURM_MEM_PER_GPU": "2048", "SLURM_JOB_GPUS": "0-2"},
        6 * GIB,
        [],
    ),
    "slurm: per GPU of a type": (
        {**SLURM, "SLURM_MEM_PER_GPU": "2048", "SLURM_GPUS_PER_NODE": "a100:2,k80:1"},
        6 * GIB,
        [],
    ),
    "slurm: per GPU of an unknown number": (
        {**SLURM, "SLURM_MEM_PER_GPU": "2048"},
        None,
        ["SLURM_MEM_PER_GPU"],
    ),
    "slurm: per GPU on a login node": (
        {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_GPU": "2048", "SLURM_GPUS_ON_NODE": "4"},
        None,
        [],
    ),
    "sge": ({**SGE, "NSLOTS": "4", "SGE_HGR_h_vmem": "16.000G"}, 16 * GIB, []),
    "sge: thousands": ({**SGE, "SGE_HGR_h_vmem": "1.5g"}, 1_500_000_000, []),
    "sge: bytes": ({**SGE, "SGE_HGR_h_vmem": "1073741824"}, GIB, []),
    "sge: the least of two": (
        {**SGE, "SGE_HGR_h_vmem": "4G", "SGE_HGR_m_mem_free": "2048.000M"},
        2 * GIB,
        [],
    ),
    "sge: no limit": ({**SGE, "SGE_HGR_h_vmem": "INFINITY"}, None, []),
    "sge: malformed": ({**SGE, "SGE_HGR_h_vmem": "G"}, None, ["SGE_HGR_h_vmem"]),
    "sge: not inside": ({"SGE_ROOT": "/", "SGE_HGR_h_vmem": "1G"}, None, []),
    "jupyterhub": (
        {"JUPYTERHUB_USER": "a", "MEM_LIMIT": "4294967296"},
        4 * GIB,
        [],
    ),
    "jupyterhub: not inside": ({"MEM_LIMIT": "4294967296"}, None, []),
    "jupyterhub: malformed": (
        {"JUPYTERHUB_USER": "a", "MEM_LIMIT": "-1"},
        None,
        ["MEM_LIMIT"],
    ),
    "app engine": ({"GAE_ENV": "standard", "GAE_MEMORY_MB": "384"}, 384 * 1024**2, []),
    "app engine: by its instance": (
        {"GAE_INSTANCE": "x", "GAE_ENV": "standard", "GAE_MEMORY_MB": "384"},
        384 * 1024**2,
        [],
    ),
    "app engine: not inside": ({"GAE_MEMORY_MB": "384"}, None, []),
    "cloud foundry": ({"VCAP_APPLICATION": "{}", "MEMORY_LIMIT": "1G"}, GIB, []),
    "cloud foundry: not inside": ({"MEMORY_LIMIT": "1G"}, None, []),
}


def machine(env, **details):
    host = container(
        cpus=64, machine_memory="256GiB", env=env, hostname="me", **details
    )
    host.files.update(FILES)
    return host


def ignored(limits):
    return sorted({gap.where for gap in limits.gaps})


@pytest.mark.parametrize("case", CORES)
def test_cores(case):
    env, cores, names = CORES[case]
    limits = detect(machine(env))
    assert (limits.cpu.limit, ignored(limits)) == (cores, names)
    warned = {line.partition(" is ignored")[0] for line in limits.warnings}
    assert warned >= set(names)


@pytest.mark.parametrize("case", MEMORY)
def test_memory(case):
    env, memory, names = MEMORY[case]
    limits = detect(machine(env))
    assert (limits.memory.limit, ignored(limits)) == (memory, names)


def test_one_name_of_the_host_in_the_list_may_be_short():
    for name in ("ME", "me.example.org", "Me.Example.Org"):
        host = container(cpus=64, env=TORQUE, hostname=name)
        host.files.update(FILES)
        assert detect(host).cpu.limit == 4


# --- The share of one rank -----------------------------------------------------

OPEN_MPI = {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
TORCHRUN = {"LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}

#: case: (variables, details of a machine of 64 CPUs, cores)
RANKS = {
    "open mpi": (OPEN_MPI, {}, 16),
    "mpich and intel mpi": ({"MPI_LOCALNRANKS": "4"}, {}, 16),
    "mvapich2": ({"MV2_COMM_WORLD_LOCAL_SIZE": "4"}, {}, 16),
    "cray pmi": ({"PMI_LOCAL_SIZE": "4", "PMI_RANK": "1"}, {}, 16),
    "pals": ({"PALS_LOCAL_SIZE": "4", "PALS_LOCAL_RANKID": "1"}, {}, 16),
    "jsm": ({"JSM_NAMESPACE_LOCAL_SIZE": "4"}, {}, 16),
    "horovod": ({"HOROVOD_LOCAL_SIZE": "4"}, {}, 16),
    "torchrun": (TORCHRUN, {}, 16),
    "not torchrun": ({"LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "0"}, {}, 64),
    "alone": ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, {}, 64),
    "malformed": ({"OMPI_COMM_WORLD_LOCAL_SIZE": "four"}, {}, 64),
    "two names of the same ranks": ({**OPEN_MPI, "PMI_LOCAL_SIZE": "4"}, {}, 16),
    "torchrun in ranks": ({**OPEN_MPI, **TORCHRUN}, {}, 4),
    "a fraction": ({"MPI_LOCALNRANKS": "3"}, {}, 64 / 3),
    "more ranks than cores": ({"MPI_LOCALNRANKS": "100"}, {}, 1),
    # What is the rank's own is not divided.
    "bound to its share": (OPEN_MPI, {"affinity": range(16)}, 16),
    "bound to less": (OPEN_MPI, {"affinity": range(4)}, 4),
    "bound to more": (OPEN_MPI, {"affinity": range(32)}, 16),
    "a cap of the user": ({**OPEN_MPI, "CORESIZE_MAX_CORES": "8"}, {}, 8),
    "a cap for joblib": ({**OPEN_MPI, "LOKY_MAX_CPU_COUNT": "8"}, {}, 8),
    "an override": ({**OPEN_MPI, "CORESIZE_OVERRIDE_CORES": "48"}, {}, 48),
    "python's own": ({**OPEN_MPI, "PYTHON_CPU_COUNT": "48"}, {}, 48),
    # What all ranks share is.
    "a quota": (OPEN_MPI, {"quota": 6.0}, 1.5),
    "a small quota": (OPEN_MPI, {"quota": 1.5}, 1),
    "a job": ({**OPEN_MPI, **SLURM, "SLURM_CPUS_ON_NODE": "8"}, {}, 2),
    "a job with a list": ({**OPEN_MPI, **TORQUE}, {}, 1),
    # mpirun starts a helper as a step, and the ranks inherit the script's -c.
    "mpirun in a job of tasks": (
        {
            **OPEN_MPI,
            **STEP,
            "SLURM_STEP_TASKS_PER_NODE": "1",
            "SLURM_CPUS_PER_TASK": "2",
        },
        {},
        2,
    ),
    "ranks of srun": (
        {**FOUR, "PMI_LOCAL_SIZE": "4", "SLURM_CPUS_PER_TASK": "2"},
        {},
        2,
    ),
    "torchrun in each task of srun": (
        {
            **TORCHRUN,
            **STEP,
            "SLURM_CPUS_ON_NODE": "32",
            "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_CPUS_PER_TASK": "16",
        },
        {},
        4,
    ),
    "turned off": ({**OPEN_MPI, "CORESIZE_SHARE_RANKS": "0"}, {}, 64),
    "turned off by a word": ({**TORCHRUN, "CORESIZE_SHARE_RANKS": "Off"}, {}, 64),
    "turned off in a step": ({**FOUR, "CORESIZE_SHARE_RANKS": "no"}, {}, 8),
    "turned on": ({**OPEN_MPI, "CORESIZE_SHARE_RANKS": "true"}, {}, 16),
    "nothing to share": ({"CORESIZE_SHARE_RANKS": "1"}, {}, 64),
}


@pytest.mark.parametrize("case", RANKS)
def test_a_rank_gets_its_share(case):
    env, details, cores = RANKS[case]
    host = machine(env, **details)
    assert detect(host).cpu.limit == cores
    with use_host(host):
        assert available_cores() == int(cores + 0.5)


@pytest.mark.parametrize(("affinity", "cores"), [(range(8), 2), ({0, 1}, 2), ({0}, 1)])
def test_ranks_share_the_cpuset_of_their_container(affinity, cores):
    host = machine(OPEN_MPI, affinity=affinity)
    host.files["/sys/fs/cgroup/cpuset.cpus.effective"] = "0-7\n"
    assert detect(host).cpu.limit == cores


def test_ranks_share_physical_cores():
    host = container(cpus=8, env={"MPI_LOCALNRANKS": "2"})
    host.files.update(topology(EIGHT, core_cpus_list=pairs))
    with use_host(host):
        assert available_cores(physical=True) == 2
    bound = container(cpus=8, env={"MPI_LOCALNRANKS": "2"}, affinity=range(4))
    bound.files.update(host.files)
    with use_host(bound):
        assert available_cores(physical=True) == 2


#: case: (variables, details of a machine with 256 GiB, of which 16 are used, bytes
#: that a rank may use). No limit is a rank's own: the kernel counts all of them.
SHARED = {
    "the machine's": (OPEN_MPI, {}, 60 * GIB),
    "the container's": (OPEN_MPI, {"memory": "64GiB"}, 12 * GIB),
    "the job's": ({**FOUR, "SLURM_MEM_PER_NODE": "8192"}, {}, 2 * GIB),
    "a cap of the user": ({**OPEN_MPI, "CORESIZE_MAX_MEMORY": "8GiB"}, {}, 8 * GIB),
    "an override": ({**OPEN_MPI, "CORESIZE_OVERRIDE_MEMORY": "8GiB"}, {}, 8 * GIB),
    "turned off": ({**OPEN_MPI, "CORESIZE_SHARE_RANKS": "0"}, {}, 240 * GIB),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_rank_gets_its_share_of_the_memory(case):
    env, details, share = SHARED[case]
    host = machine(env, used="16GiB", **details)
    without = machine({**env, "CORESIZE_SHARE_RANKS": "0"}, used="16GiB", **details)
    with use_host(host):
        assert available_memory() == share
    assert detect(host).memory.limit == detect(without).memory.limit


def test_the_report_says_that_it_is_a_share():
    limits = detect(machine(OPEN_MPI))
    binding = limits.cpu.binding
    assert binding.source == "ranks:OMPI_COMM_WORLD_LOCAL_SIZE"
    assert binding.raw == "64 cores / 4 ranks"
    assert "CORESIZE_SHARE_RANKS=0" in limits.warnings[0]
    assert not detect(machine({**OPEN_MPI, "CORESIZE_SHARE_RANKS": "0"})).warnings


@pytest.mark.parametrize("value", ["2", "-1", "maybe", "\u0660"])
@pytest.mark.parametrize("env", [{}, OPEN_MPI])
def test_a_malformed_switch_raises(value, env):
    with pytest.raises(ConfigError, match="CORESIZE_SHARE_RANKS"):
        detect(machine({**env, "CORESIZE_SHARE_RANKS": value}))


PROGRAM = """
from coresize import available_cores, detect
print(available_cores(), *(fact.source for fact in detect().facts))
"""


def test_a_process_is_told_its_share_of_this_machine():
    def told(**variables):
        env = {**os.environ, "MPI_LOCALNRANKS": "1000", **variables}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, capture_output=True, check=True
        )
        return done.stdout.decode().split()

    cores, *sources = told()
    assert (cores, "ranks:MPI_LOCALNRANKS" in sources) == ("1", True)
    assert "ranks:MPI_LOCALNRANKS" not in told(CORESIZE_SHARE_RANKS="0")


@settings(max_examples=30)
@given(
    cpus=st.integers(1, 64),
    ranks=st.integers(1, 64),
    quota=st.none() | st.floats(0.5, 64),
    name=st.sampled_from(["MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"]),
)
def test_ranks_that_are_not_bound_fit_together(cpus, ranks, quota, name):
    host = container(cpus=cpus, quota=quota, env={name: str(ranks)})
    share = detect(host).cpu.limit
    alone = detect(container(cpus=cpus, quota=quota)).cpu.limit
    assert share <= alone
    assert share * ranks <= max(alone, ranks) + 1e-9


# --- Places of shards -----------------------------------------------------------

#: case: (variables, the shard, or a text of the error)
PLACES = {
    "gitlab": ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "3"}, "0/3"),
    "gitlab: the last": ({"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "3"}, "2/3"),
    "gitlab: from 0": (
        {"CI_NODE_INDEX": "0", "CI_NODE_TOTAL": "3"},
        "CI_NODE_INDEX='0' is not valid: use one of the array's 1-3:1",
    ),
    "gitlab: not parallel": ({"CI_NODE_TOTAL": "1"}, "this is no array job"),
    "circleci": ({"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "3"}, "0/3"),
    "circleci: the last": ({"CIRCLE_NODE_INDEX": "2", "CIRCLE_NODE_TOTAL": "3"}, "2/3"),
    "buildkite": (
        {"BUILDKITE_PARALLEL_JOB": "1", "BUILDKITE_PARALLEL_JOB_COUNT": "3"},
        "1/3",
    ),
    "azure pipelines": (
        {"SYSTEM_JOBPOSITIONINPHASE": "1", "SYSTEM_TOTALJOBSINPHASE": "3"},
        "0/3",
    ),
    "bitbucket": (
        {"BITBUCKET_PARALLEL_STEP": "1", "BITBUCKET_PARALLEL_STEP_COUNT": "3"},
        "1/3",
    ),
    "semaphore": ({"SEMAPHORE_JOB_INDEX": "3", "SEMAPHORE_JOB_COUNT": "3"}, "2/3"),
    "google batch": ({"BATCH_TASK_INDEX": "0", "BATCH_TASK_COUNT": "3"}, "0/3"),
    "aws batch: nodes": (
        {"AWS_BATCH_JOB_NODE_INDEX": "2", "AWS_BATCH_JOB_NUM_NODES": "3"},
        "2/3",
    ),
    "lsf": ({"LSB_JOBINDEX": "2", "LSB_JOBINDEX_END": "3"}, "1/3"),
    "lsf: with a step": (
        {"LSB_JOBINDEX": "4", "LSB_JOBINDEX_END": "8", "LSB_JOBINDEX_STEP": "3"},
        "LSF tells 1-8:3 alone, as of an array that runs again in part",
    ),
    "lsf: the user knows the step": (
        {
            "LSB_JOBINDEX": "4",
            "LSB_JOBINDEX_END": "8",
            "LSB_JOBINDEX_STEP": "3",
            "CORESIZE_SHARDS": "1-8:3",
        },
        "1/3",
    ),
    "lsf: not from 1": (
        {"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "8", "LSB_JOBINDEX_STEP": "3"},
        "one of the array's 1-8:3",
    ),
    "lsf: the user says more": (
        {"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "8", "CORESIZE_SHARDS": "5-8"},
        "0/4",
    ),
    "lsf: the number of jobs": ({"LSB_JOBINDEX": "4", "CORESIZE_SHARDS": "4"}, "3/4"),
    "lsf: no array": (
        {"LSB_JOBINDEX": "0", "LSB_JOBINDEX_END": "0", "LSB_JOBINDEX_STEP": "0"},
        "this is no array job",
    ),
    "no count": ({"CIRCLE_NODE_INDEX": "0"}, "CIRCLE_NODE_TOTAL=''"),
    "a count of 0": (
        {"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "0"},
        "CIRCLE_NODE_INDEX='0'",
    ),
    "two places": (
        {
            "CI_NODE_INDEX": "1",
            "CI_NODE_TOTAL": "3",
            "BATCH_TASK_INDEX": "0",
            "BATCH_TASK_COUNT": "3",
        },
        "which of them counts is not known",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_the_place_of_a_shard(case):
    env, expected = PLACES[case]
    host = container(env=env)
    if "/" in expected and len(expected) == 3:
        assert str(find_shard("auto", host=host)) == expected
    else:
        with pytest.raises(ConfigError) as caught:
            find_shard("auto", host=host)
        assert expected in str(caught.value)
