"""The first process of the guest: play the scenarios, write the answers, power off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path


CGROUPS = Path("/sys/fs/cgroup")
PLAN = Path("/payload/plan.json")
CONTROLLERS = ("cpuset", "cpu", "memory", "pids")

#: Answers once a line of input, as ``coresize report --json`` does.
PROBE = """\
import json, sys
sys.path.insert(0, "/payload/src")
from coresize import available_cores, detect
from coresize.cli.report import as_json
for _line in sys.stdin:
    print(json.dumps(as_json(detect(), cores=available_cores(), reserve=0)), flush=True)
"""

#: What the shell does between joining the cgroup and starting the probe.
VIEWS = {
    "host": "",
    "private": "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup",
    "unmounted": "",
    "bound": 'mount --bind "/sys/fs/cgroup/$OWN" /sys/fs/cgroup',
    "hidden": "mount -t tmpfs tmpfs /sys/fs/cgroup",
}


def main() -> None:
    """Everything the guest is for."""
    plan = json.loads(PLAN.read_text())
    mount_cgroups(hybrid=plan["hybrid"])
    answers = {}
    for name, scenario in plan["scenarios"].items():
        try:
            answers[name] = play(scenario)
        except Exception:  # noqa: BLE001 - the host shows what went wrong here
            answers[name] = [{"error": traceback.format_exc()}]
    Path("/dev/ttyS1").write_text(json.dumps(answers) + "\n")


def mount_cgroups(*, hybrid: bool) -> None:
    """As systemd does: v2 alone, or a tmpfs with v1 hierarchies and v2 beside."""
    if not hybrid:
        mount("cgroup2", CGROUPS)
        return
    mount("tmpfs", CGROUPS)
    for controllers in ("cpu,cpuacct", "memory", "cpuset"):
        mount("cgroup", CGROUPS / controllers, "-o", controllers)
    mount("cgroup2", CGROUPS / "unified")


def mount(kind: str, point: Path, *options: str) -> None:
    """One mount, its point made if need be."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, *options, kind, point], check=True)


def play(scenario: dict) -> list[dict]:
    """The answers of a process in the place that a scenario describes."""
    write(scenario["write"])
    for directory in scenario["join"]:
        make(CGROUPS / directory)
    process = start(scenario)
    if scenario["program"]:
        out, _ = process.communicate()
        remove(scenario)
        return [{"code": process.returncode, "out": json.loads(out or "null")}]
    try:
        reports = [ask(process)]
        if scenario["later"]:
            write(scenario["later"])
            reports.append(ask(process))
        return reports
    finally:
        process.stdin.close()
        process.wait()
        remove(scenario)


def start(scenario: dict) -> subprocess.Popen:
    """The probe, in its cgroup before it looks around."""
    joins = [f'echo $$ > "{CGROUPS / path}/cgroup.procs"' for path in scenario["join"]]
    view = scenario["view"]
    spaces = ["--mount"] if view in ("bound", "hidden") else []
    if view in ("private", "unmounted"):
        spaces = ["--mount", "--cgroup"]
    program = scenario["program"]
    words = f"/payload/{program}" if program else '-c "$PROBE"'
    inner = " ; ".join(
        filter(None, [VIEWS[view], f'exec "{sys.executable}" -B {words}'])
    )
    bound = ["taskset", "-c", scenario["cpus"]] if scenario["cpus"] else []
    words = [*bound, *(["unshare", *spaces] if spaces else []), "sh", "-c", '"$INNER"']
    return subprocess.Popen(
        ["sh", "-c", " && ".join([*joins, "exec " + " ".join(words)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            "PATH": os.defpath + ":/usr/sbin:/sbin:/usr/bin:/bin",
            "PROBE": PROBE,
            "INNER": inner,
            "OWN": scenario["join"][0],
            **scenario["env"],
        },
    )


def ask(process: subprocess.Popen) -> dict:
    """One answer of the probe."""
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def write(texts: dict[str, str]) -> None:
    """Set limits, in the order given."""
    for name, text in texts.items():
        path = CGROUPS / name
        make(path.parent)
        path.write_text(text)


def make(directory: Path) -> None:
    """A cgroup and those above it; in v2 each hands its controllers down."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        control = path.parent / "cgroup.subtree_control"
        if control.exists():
            offered = (path.parent / "cgroup.controllers").read_text().split()
            control.write_text(
                " ".join(f"+{name}" for name in CONTROLLERS if name in offered)
            )
        path.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):  # v1 starts with none
            inherited, own = path.parent / name, path / name
            if own.exists() and not control.exists():
                own.write_text(inherited.read_text())


def remove(scenario: dict) -> None:
    """Take the cgroups away, deepest first."""
    paths = {CGROUPS / path for path in scenario["join"]}
    paths |= {(CGROUPS / name).parent for name in scenario["write"]}
    for path in sorted(paths, key=lambda path: len(path.parts), reverse=True):
        for _attempt in range(50):  # the last process may still be on its way out
            try:
                path.rmdir()
            except OSError:
                time.sleep(0.02)
            else:
                break


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - to the console, which the host shows
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        subprocess.run(
            ["sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"], check=False
        )
