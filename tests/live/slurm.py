"""A cluster of Slurm with this machine as its only node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from live import cgroups


PACKAGES = "slurmctld slurmd slurm-client munge"

#: Memory is limited by cgroup v1, as that of containers in `cgroups`.
CGROUPS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
"""
#: A job that is requeued waits for cred_expire seconds.
CONFIG = """\
ClusterName=coresize
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""
STEPS = 1200
STEP = 0.1


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    commands = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    without = [name for name in commands if shutil.which(name, path=path) is None]
    if without:
        return f"no {', '.join(without)}: install {PACKAGES}"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return cgroups.missing()


class Cluster:
    """The cluster; a context manager that ends all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = socket.gethostname().partition(".")[0]
        self._daemons: list[subprocess.Popen[bytes]] = []
        search = (str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin")
        self.env = {
            **os.environ,
            "PATH": ":".join(search),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _start(self) -> None:
        folder = self._folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        config = CONFIG.format(folder=folder, host=self._host, ports=_free_ports(2))
        (folder / "slurm.conf").write_text(config)
        (folder / "cgroup.conf").write_text(CGROUPS)
        own = ("socket", "pid-file", "log-file", "seed-file", "key-file")
        names = ("munge.socket", "munge.pid", "munge.log", "seed", "key")
        options = [f"--{a}={folder / b}" for a, b in zip(own, names, strict=True)]
        self._begin("munged", "--foreground", "--force", *options)
        wait_for((folder / "munge.socket").exists)
        self._begin("slurmctld", "-D")
        self._begin("slurmd", "-D")
        wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", check=False))

    def _begin(self, *words: str) -> None:
        with (self._folder / f"{words[0]}.out").open("wb") as out:
            process = subprocess.Popen(
                words,
                env=self.env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._daemons.append(process)

    def ask(self, *words: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(
            words, env=self.env, stdout=subprocess.PIPE, text=True, check=check
        ).stdout

    def jobs(self, number: str) -> dict[str, dict[str, str]]:
        """The jobs of an array by index, with the fields that Slurm shows."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", number)
        rows = [
            dict(word.partition("=")[::2] for word in line.split() if "=" in word)
            for line in shown.splitlines()
        ]
        return {row["ArrayTaskId"]: row for row in rows}

    def ended(self, number: str) -> dict[str, dict[str, str]]:
        """Wait until all jobs of an array have ended."""
        going = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING"}
        wait_for(
            lambda: not going & {row["JobState"] for row in self.jobs(number).values()}
        )
        return self.jobs(number)

    def close(self) -> None:
        """End the jobs and the daemons, and remove the cgroup."""
        if len(self._daemons) > 1:
            self.ask("scancel", "--user=root", check=False)
        for process in reversed(self._daemons):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._daemons):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _remove(Path(f"/sys/fs/cgroup/memory/slurm_{self._host}"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _remove(folder: Path) -> None:
    """Remove a cgroup with those below it; what is left in them is ended."""
    for _attempt in range(STEPS):
        for procs in folder.rglob("cgroup.procs"):
            for pid in procs.read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
        folders = [*folder.rglob("*/"), folder]
        for one in sorted(folders, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                one.rmdir()
        if not folder.exists():
            return
        time.sleep(STEP)


def wait_for(condition) -> None:
    """Wait until a condition holds, on however slow a machine."""
    for _attempt in range(STEPS):
        if condition():
            return
        time.sleep(STEP)
    msg = "it did not come true"
    raise AssertionError(msg)
