"""The kernel's counters of the cgroups of this process: throttling, kills, swap."""

from __future__ import annotations

from coresize.detection import cgroup, parse, sources
from coresize.detection.system import MEMINFO
from coresize.errors import ParseError
from coresize.host import current
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.host import Host
    from coresize.model import Resource

_NANOSECONDS, _MICROSECONDS = 1e9, 1e6

#: By version: the file with the count of kills for memory (kernel
#: Documentation/admin-guide: cgroup-v1/memory.rst, cgroup-v2.rst "memory.events").
KILLS = {1: "memory.oom_control", 2: "memory.events"}


class Throttling(Value):
    """How often a cgroup has used up its quota since its creation.

    Attributes:
        where: the path of its cpu.stat.
        periods: periods of the quota in which a task ran.
        throttled: periods in which the quota was used up.
        seconds: seconds that all its CPUs together had to wait.
    """

    where: str
    periods: int
    throttled: int
    seconds: float

    @property
    def share(self) -> float:
        """The part of the periods that were throttled."""
        return self.throttled / self.periods if self.periods else 0.0

    def since(self, before: Throttling) -> Throttling:
        """The difference from an earlier reading of the same file."""
        return Throttling(
            where=self.where,
            periods=self.periods - before.periods,
            throttled=self.throttled - before.throttled,
            seconds=self.seconds - before.seconds,
        )


def throttling(host: Host | None = None) -> dict[str, Throttling]:
    """The throttling of the own cgroup and every visible ancestor, by file.

    Source: kernel Documentation/scheduler/sched-bwc.rst, "Statistics".
    """
    found = {}
    for where, values in read_stat("cpu", "cpu", "cpu.stat", host).items():
        if "nr_periods" in values:
            waited = values.get("throttled_usec", 0) / _MICROSECONDS
            waited += values.get("throttled_time", 0) / _NANOSECONDS
            found[where] = Throttling(
                where=where,
                periods=values["nr_periods"],
                throttled=values.get("nr_throttled", 0),
                seconds=waited,
            )
    return found


def tightest(
    after: dict[str, Throttling], before: dict[str, Throttling]
) -> Throttling | None:
    """The difference between two readings, of the cgroup that was throttled most."""
    between = [
        now.since(before[where]) for where, now in after.items() if where in before
    ]
    return max(between, key=lambda one: one.share, default=None)


def swapped_out(host: Host | None = None) -> int | None:
    """Pages that the machine has written to swap since it started; None if unknown.

    Source: proc(5), /proc/vmstat, pswpout.
    """
    try:
        text = (host or current()).read("/proc/vmstat")
    except OSError:
        return None
    return parse_stat(text).get("pswpout")


def read_stat(
    controller: str, resource: Resource, name: str, host: Host | None = None
) -> dict[str, dict[str, int]]:
    """A file of names and numbers in each directory of a controller, by path."""
    texts = read_files(controller, resource, name, host)
    return {where: parse_stat(text) for where, text in texts.items()}


def read_files(
    controller: str, resource: Resource, name: str, host: Host | None = None
) -> dict[str, str]:
    """A file in each directory of a controller, the own cgroup first, by path."""
    machine = host or current()
    membership = sources.read_membership(machine)
    chains, _ = cgroup.locate(membership, controller, resource)
    found = {}
    for _, directories in chains:
        for directory in directories:
            path = f"{directory}/{name}"
            try:
                found[path] = machine.read(path)
            except OSError:
                continue
    return found


def parse_stat(text: str) -> dict[str, int]:
    r"""Parse lines of a name and a number; other lines are skipped.

    >>> parse_stat("nr_periods 10\nnr_throttled 3\n")
    {'nr_periods': 10, 'nr_throttled': 3}
    """
    found = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isascii() and number.isdigit():
            found[name] = int(number)
    return found


def memory_events(host: Host | None = None) -> dict[str, dict[str, int]]:
    """The counts of memory events, by file and event, such as "oom_kill" (v1, v2)."""
    found = read_stat("memory", "memory", KILLS[2], host)
    return found or read_stat("memory", "memory", KILLS[1], host)


def oom_groups(host: Host | None = None) -> list[str]:
    """The memory.oom.group files by which one kill ends all processes of a cgroup."""
    texts = read_files("memory", "memory", "memory.oom.group", host)
    return [where for where, text in texts.items() if text.strip() == "1"]


def swap_used(host: Host | None = None) -> tuple[int, str]:
    """Bytes that are swapped out, and the file that reports them; "" if none does.

    The bytes are those of this cgroup, else those of the machine, from /proc/meminfo.
    """
    for where, text in read_files(
        "memory", "memory", "memory.swap.current", host
    ).items():
        if text.strip().isdigit():
            return int(text), where
    for where, values in read_stat("memory", "memory", "memory.stat", host).items():
        if "swap" in values:
            return values["swap"], where
    try:
        text = (host or current()).read(MEMINFO)
        total = parse.meminfo(parse.line(text, "SwapTotal:"))
        free = parse.meminfo(parse.line(text, "SwapFree:"))
    except (OSError, ParseError):
        return 0, ""
    return max(0, total - free), MEMINFO


def pressures(host: Host | None = None) -> list[tuple[str, str, float]]:
    """Resource, file, and percent of the last minute in which some task waited.

    The percentages are those of the own cgroup (v2), else those of the machine. Source:
    kernel Documentation/accounting/psi.rst.
    """
    machine = host or current()
    found = []
    for resource in ("cpu", "memory", "io"):
        own = read_files("memory", "memory", f"{resource}.pressure", machine)
        where = next(iter(own), f"/proc/pressure/{resource}")
        try:
            text = own[where] if own else machine.read(where)
        except OSError:
            continue
        number = text.partition("avg60=")[2].partition(" ")[0]
        if text.startswith("some") and number.replace(".", "", 1).isdigit():
            found.append((resource, where, float(number)))
    return found
