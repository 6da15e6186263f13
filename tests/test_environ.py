"""What environment variables do to the answer, on a machine of 64 CPUs."""

from __future__ import annotations

import pytest

from coresize import ConfigError, available_cores, detect
from coresize.testing import Recorded, container, use_host


GIB = 1024**3
MIB = 1024**2
SLURM = {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n1"}
STEP = {**SLURM, "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
SGE = {"JOB_ID": "1", "SGE_ROOT": "/opt/sge"}
FILES = {
    "/nodes": "me.example.org\nme.example.org\nother\n",
    "/pe": "other 8 all.q@other x\nme 3 all.q@me x\n",
    "/ad": 'Machine = "me"\nCpus = 4\nMemory = 2048\n',
    "/pe-bad": "me 3 q x\nother x q x\n",
    "/bad": "not a node file\n",
}

#: case: (variables, cores or None for the whole machine's 64)
CORES = {
    "nothing": ({}, 64),
    "override": ({"CORESIZE_OVERRIDE_CORES": "8"}, 8),
    "override with a fraction": ({"CORESIZE_OVERRIDE_CORES": "8.5"}, 8.5),
    "override above the machine": ({"CORESIZE_OVERRIDE_CORES": "96"}, 96),
    "empty is unset": ({"CORESIZE_OVERRIDE_CORES": ""}, 64),
    "own override first": (
        {"PARALLELLY_OVERRIDE_CORES": "4", "CORESIZE_OVERRIDE_CORES": "8"},
        8,
    ),
    "parallelly": ({"PARALLELLY_OVERRIDE_CORES": "4"}, 4),
    "parallelly before python": (
        {"PYTHON_CPU_COUNT": "2", "PARALLELLY_OVERRIDE_CORES": "4"},
        4,
    ),
    "python": ({"PYTHON_CPU_COUNT": "2"}, 2),
    "python default": ({"PYTHON_CPU_COUNT": "default"}, 64),
    "malformed foreign override": (
        {"PARALLELLY_OVERRIDE_CORES": "all", "PYTHON_CPU_COUNT": "2"},
        2,
    ),
    "cap": ({"CORESIZE_MAX_CORES": "6.5"}, 6.5),
    "loky": ({"LOKY_MAX_CPU_COUNT": "6"}, 6),
    "loky malformed": ({"LOKY_MAX_CPU_COUNT": "six"}, 64),
    "loky zero": ({"LOKY_MAX_CPU_COUNT": "0"}, 64),
    "caps bound an override": (
        {"CORESIZE_OVERRIDE_CORES": "8", "LOKY_MAX_CPU_COUNT": "6"},
        6,
    ),
    "cap above the machine": ({"CORESIZE_MAX_CORES": "128"}, 64),
    # Slurm
    "slurm without a mark": ({"SLURM_CPUS_ON_NODE": "4"}, 64),
    "slurm login node": ({"SLURM_JOB_ID": "1", "SLURM_JOB_CPUS_PER_NODE": "4"}, 64),
    "slurm batch": ({**SLURM, "SLURM_CPUS_ON_NODE": "4"}, 4),
    "slurm batch ignores per task": (
        {**SLURM, "SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "1"},
        16,
    ),
    "slurm per node": (
        {**SLURM, "SLURM_JOB_CPUS_PER_NODE": "4(x2),3", "SLURM_NODEID": "2"},
        3,
    ),
    "slurm node out of range": (
        {**SLURM, "SLURM_JOB_CPUS_PER_NODE": "4(x2),3", "SLURM_NODEID": "5"},
        64,
    ),
    "slurm node malformed": (
        {**SLURM, "SLURM_JOB_CPUS_PER_NODE": "4(x2),3", "SLURM_NODEID": "x"},
        64,
    ),
    "slurm malformed, then per node": (
        {**SLURM, "SLURM_CPUS_ON_NODE": "x", "SLURM_JOB_CPUS_PER_NODE": "5"},
        5,
    ),
    "slurm step": ({**STEP, "SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "3"}, 3),
    "slurm step without -c": (
        {**STEP, "SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "4"},
        2,
    ),
    "slurm step on the third node": (
        {
            **STEP,
            "SLURM_CPUS_ON_NODE": "8",
            "SLURM_STEP_TASKS_PER_NODE": "2(x2),4",
            "SLURM_NODEID": "2",
        },
        2,
    ),
    "slurm more tasks than cpus": (
        {**STEP, "SLURM_CPUS_ON_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "4"},
        1,
    ),
    "slurm step malformed tasks": (
        {**STEP, "SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "x"},
        8,
    ),
    "slurm step of other digits": (
        {**STEP, "SLURM_STEP_ID": "²", "SLURM_CPUS_ON_NODE": "8"},
        8,
    ),
    "slurm batch step": (
        {
            **STEP,
            "SLURM_STEP_ID": "4294967291",
            "SLURM_CPUS_ON_NODE": "8",
            "SLURM_CPUS_PER_TASK": "1",
        },
        8,
    ),
    # The others
    "torque": ({"PBS_JOBID": "1", "PBS_NUM_PPN": "4", "PBS_NP": "32"}, 4),
    "openpbs": ({"PBS_JOBID": "1", "NCPUS": "6"}, 6),
    "openpbs node file": ({"PBS_JOBID": "1", "PBS_NODEFILE": "/nodes"}, 2),
    "ncpus without a mark": ({"NCPUS": "6"}, 64),
    "sge": ({**SGE, "PE_HOSTFILE": "/pe", "NSLOTS": "11", "NHOSTS": "2"}, 3),
    "sge one host": ({**SGE, "NSLOTS": "5", "NHOSTS": "1"}, 5),
    "sge several hosts": ({**SGE, "NSLOTS": "5", "NHOSTS": "2"}, 64),
    "sge no number of hosts": ({**SGE, "NSLOTS": "5"}, 5),
    "sge lost host file": (
        {**SGE, "PE_HOSTFILE": "/lost", "NSLOTS": "5", "NHOSTS": "1"},
        5,
    ),
    "sge elsewhere": ({**SGE, "PE_HOSTFILE": "/bad", "NSLOTS": "5"}, 64),
    "sge other host's bad line": ({**SGE, "PE_HOSTFILE": "/pe-bad"}, 3),
    "sge submit host": ({"SGE_ROOT": "/opt/sge", "NSLOTS": "5"}, 64),
    "nslots without a mark": ({"NSLOTS": "5"}, 64),
    "lsf": ({"LSB_JOBID": "1", "LSB_MCPU_HOSTS": "other 8 me 3"}, 3),
    "lsf hosts": ({"LSB_JOBID": "1", "LSB_HOSTS": "me me other"}, 2),
    "lsf host file": ({"LSB_JOBID": "1", "LSB_DJOB_HOSTFILE": "/nodes"}, 2),
    "lsf total": ({"LSB_JOBID": "1", "LSB_DJOB_NUMPROC": "7"}, 7),
    "lsf elsewhere": (
        {"LSB_JOBID": "1", "LSB_MCPU_HOSTS": "a 8 b 3", "LSB_DJOB_NUMPROC": "11"},
        64,
    ),
    "fujitsu": ({"PJM_JOBID": "1", "PJM_VNODE_CORE": "12"}, 12),
    "oar": ({"OAR_JOB_ID": "1", "OAR_FILE_NODES": "/nodes"}, 2),
    "oar second name": (
        {"OAR_JOB_ID": "1", "OAR_NODEFILE": "/lost", "OAR_NODE_FILE": "/nodes"},
        2,
    ),
    "oar unreadable": ({"OAR_JOB_ID": "1", "OAR_NODEFILE": "/lost"}, 64),
    "htcondor": ({"_CONDOR_MACHINE_AD": "/ad", "OMP_NUM_THREADS": "1"}, 4),
    "htcondor malformed": ({"_CONDOR_MACHINE_AD": "/bad"}, 64),
    "flux": ({"FLUX_JOB_ID": "f1", "FLUX_JOB_SIZE": "4"}, 64),
    "nomad": ({"NOMAD_ALLOC_ID": "1", "NOMAD_CPU_CORES": "0,5-7"}, 4),
    "nomad megahertz": ({"NOMAD_ALLOC_ID": "1", "NOMAD_CPU_LIMIT": "2400"}, 64),
    "lambda": (
        {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"},
        1,
    ),
    "galaxy": ({"GALAXY_SLOTS": "9"}, 9),
    "nested schedulers take the least": (
        {**SLURM, "SLURM_CPUS_ON_NODE": "16", "GALAXY_SLOTS": "9", "NCPUS": "2"},
        9,
    ),
    "threads are not cores": ({"OMP_NUM_THREADS": "2"}, 64),
}

#: case: (variables, memory limit in bytes)
MEMORY = {
    "nothing": ({}, None),
    "override": ({"CORESIZE_OVERRIDE_MEMORY": "12GiB"}, 12 * GIB),
    "override above the machine": ({"CORESIZE_OVERRIDE_MEMORY": "1TiB"}, 1024 * GIB),
    "cap": ({"CORESIZE_MAX_MEMORY": "4Gi"}, 4 * GIB),
    "cap above the machine": ({"CORESIZE_MAX_MEMORY": "1TiB"}, None),
    "cap bounds an override": (
        {"CORESIZE_OVERRIDE_MEMORY": "12GiB", "CORESIZE_MAX_MEMORY": "4GiB"},
        4 * GIB,
    ),
    "slurm per node": ({**SLURM, "SLURM_MEM_PER_NODE": "2048"}, 2 * GIB),
    "slurm with a unit": ({**SLURM, "SLURM_MEM_PER_NODE": "4G"}, 4 * GIB),
    "slurm all": ({**SLURM, "SLURM_MEM_PER_NODE": "0"}, None),
    "slurm per cpu": (
        {**SLURM, "SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "8"},
        16 * GIB,
    ),
    "slurm per cpu of an unknown number": (
        {**SLURM, "SLURM_MEM_PER_CPU": "2048"},
        None,
    ),
    "slurm without a mark": ({"SLURM_MEM_PER_NODE": "2048"}, None),
    "htcondor": ({"_CONDOR_MACHINE_AD": "/ad"}, 2 * GIB),
    "nomad": ({"NOMAD_ALLOC_ID": "1", "NOMAD_MEMORY_LIMIT": "512"}, 512 * MIB),
    "nomad maximum": (
        {
            "NOMAD_ALLOC_ID": "1",
            "NOMAD_MEMORY_LIMIT": "512",
            "NOMAD_MEMORY_MAX_LIMIT": "1024",
        },
        1 * GIB,
    ),
    "lambda": (
        {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024"},
        1 * GIB,
    ),
    "galaxy": ({"GALAXY_SLOTS": "4", "GALAXY_MEMORY_MB": "2048"}, 2 * GIB),
}


def _host(env):
    host = container(cpus=64, machine_memory="256GiB", env=env, hostname="me")
    host.files.update(FILES)
    return host


@pytest.mark.parametrize("case", CORES)
def test_cores(case):
    env, cores = CORES[case]
    assert detect(_host(env)).cpu.limit == cores


@pytest.mark.parametrize("case", MEMORY)
def test_memory(case):
    env, memory = MEMORY[case]
    assert detect(_host(env)).memory.limit == memory


@pytest.mark.parametrize("variable", ["CORESIZE_OVERRIDE_CORES", "CORESIZE_MAX_CORES"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "8,5", "٨", "eight", " "])
def test_a_malformed_own_variable_raises(variable, value):
    with pytest.raises(ConfigError) as caught:
        detect(_host({variable: value}))
    assert (caught.value.setting, caught.value.value) == (variable, value)
    for part in (variable, repr(value), '"8"', '"8.5"', "above 0"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["0", "-1", "much", "12 gigs", "512m"])
def test_a_malformed_own_size_raises(value):
    with pytest.raises(ConfigError, match=r"CORESIZE_OVERRIDE_MEMORY.*512MiB"):
        detect(_host({"CORESIZE_OVERRIDE_MEMORY": value}))


@pytest.mark.parametrize("value", ["-1", "1.5", "all"])
def test_a_malformed_reserve_raises(value):
    host = container(env={"CORESIZE_RESERVE_CORES": value})
    with use_host(host), pytest.raises(ConfigError, match="CORESIZE_RESERVE_CORES"):
        available_cores()


def test_the_reserve_is_kept_free():
    host = container(cpus=8, env={"CORESIZE_RESERVE_CORES": "2"})
    with use_host(host):
        assert available_cores() == 6
        assert available_cores(reserve=1) == 7
        assert available_cores(reserve=0) == 8


@pytest.mark.parametrize(
    ("env", "warning"),
    [
        ({"LOKY_MAX_CPU_COUNT": "abc"}, "LOKY_MAX_CPU_COUNT is ignored: 'abc' is not"),
        (
            {"OAR_JOB_ID": "1", "OAR_NODEFILE": "/lost"},
            "OAR_NODEFILE is ignored: /lost",
        ),
        ({"CORESIZE_OVERRIDE_CORES": "96"}, "only 64 CPUs"),
        (
            {"CORESIZE_OVERRIDE_MEMORY": "1TiB"},
            "CORESIZE_OVERRIDE_MEMORY=1TiB is obeyed",
        ),
        (
            {"CORESIZE_OVERRIDE_CORES": "8", "LOKY_MAX_CPU_COUNT": "6"},
            "CORESIZE_OVERRIDE_CORES=8 is lowered to 6 CPUs by env:LOKY_MAX_CPU_COUNT",
        ),
        (
            {
                "CORESIZE_OVERRIDE_CORES": "8",
                "LSB_JOBID": "1",
                "LSB_MCPU_HOSTS": "me 2 other 3",
            },
            "CORESIZE_OVERRIDE_CORES=8 is lowered to 2 CPUs by lsf:LSB_MCPU_HOSTS",
        ),
        (
            {"CORESIZE_OVERRIDE_MEMORY": "8GiB", "_CONDOR_MACHINE_AD": "/ad"},
            "CORESIZE_OVERRIDE_MEMORY=8GiB is lowered to 2.0 GiB by htcondor:",
        ),
    ],
)
def test_warnings(env, warning):
    (sentence,) = detect(_host(env)).warnings
    assert warning in sentence


def test_a_malformed_foreign_variable_is_a_gap():
    (gap,) = detect(_host({"LOKY_MAX_CPU_COUNT": "abc"})).gaps
    assert (gap.resource, gap.source, gap.where) == (
        "cpu",
        "env:LOKY_MAX_CPU_COUNT",
        "LOKY_MAX_CPU_COUNT",
    )


def test_an_active_override_is_in_limits():
    limits = detect(_host({"CORESIZE_OVERRIDE_CORES": "8"}))
    assert [fact.where for fact in limits.overrides] == ["CORESIZE_OVERRIDE_CORES"]
    assert limits.cpu.binding in limits.overrides


def test_the_share_of_a_host_whose_name_is_unknown():
    env = {"OAR_JOB_ID": "1", "OAR_NODEFILE": "/one"}
    alone = Recorded(cpu_count=64, env=env, files={"/one": "a\na\n"})
    several = Recorded(cpu_count=64, env=env, files={"/one": "a\nb\n"})
    assert detect(alone).cpu.limit == 2
    assert detect(several).cpu.limit == 64
