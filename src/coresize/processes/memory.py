"""Files of one process in /proc: text to bytes. Pure."""

from __future__ import annotations

from coresize import processes
from coresize.detection import parse
from coresize.errors import ParseError
from coresize.model import Value


TYPE_CHECKING = False


class Memory(Value):
    """The memory of one process in bytes.

    Attributes:
        size: its address space.
        high: the most that was resident since the mark was reset.
        private: what it holds apart from files: anonymous and shared memory.
        file: pages of files, which the kernel can drop.
    """

    size: int
    high: int
    private: int
    file: int

    @property
    def anonymous_peak(self) -> int:
        """The most that was resident, without the pages of files that are."""
        return max(self.private, self.high - self.file)

    def without(self, inherited: int) -> Memory:
        """The same, apart from so many bytes that belong to another process."""
        return Memory(
            size=self.size,
            high=max(0, self.high - inherited),
            private=max(0, self.private - inherited),
            file=self.file,
        )


_STATUS = ("VmSize", "VmHWM", "RssAnon", "RssFile", "RssShmem")
_ROLLUP = ("Pss_Anon", "Pss_Shmem")


def status(text: str) -> Memory | None:
    """The memory in /proc/PID/status (proc(5)); None of a process that has none.

    A zombie and a kernel thread have no such lines.
    """
    lines = _lines(text, _STATUS)
    if len(lines) < len(_STATUS):
        return None
    return Memory(
        size=lines["VmSize"],
        high=lines["VmHWM"],
        private=lines["RssAnon"] + lines["RssShmem"],
        file=lines["RssFile"],
    )


def parse_proportional(text: str) -> int | None:
    """The process's part of what it holds apart from files, in /proc/PID/smaps_rollup.

    What several processes share is counted in parts that add up to it (kernel
    Documentation/ABI/testing/procfs-smaps_rollup; Linux 5.4).
    """
    lines = _lines(text, _ROLLUP)
    return sum(lines.values()) if len(lines) == len(_ROLLUP) else None


def unshared(text: str) -> int | None:
    """What the process alone holds and the kernel cannot drop, in smaps_rollup.

    So what is inherited by fork is left out until it is written, which the counts in
    /proc/PID/status never show: there a page and its copy are the same (Linux 4.14).
    """
    return _lines(text, ("Private_Dirty",)).get("Private_Dirty")


def run_delay(text: str) -> float | None:
    r"""Seconds that a thread was ready and had no CPU, in /proc/PID/task/TID/schedstat.

    >>> run_delay("1007518 2500000000 2\n")
    2.5
    """
    fields = text.split()
    if len(fields) > 1 and fields[1].isdigit():
        return int(fields[1]) / 1e9
    return None


def activity(text: str) -> tuple[str, int]:
    """The state of a process, a letter, and its CPU time in ticks, in /proc/PID/stat.

    proc(5): T is stopped by a signal, t by a debugger. Of one that is gone there is no
    text, and nothing is known.

    >>> activity("7 (a ) b) T 1 7 7 0 -1 4194304 9 0 0 0 12 30 0 0 20 0 1 0")
    ('T', 42)
    """
    fields = text.rpartition(")")[2].split()
    try:
        return fields[0], int(fields[11]) + int(fields[12])
    except (IndexError, ValueError):
        return "", 0


def _lines(text: str, names: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for line in text.split("\n"):
        name = line.partition(":")[0]
        if name in names:
            try:
                found[name] = parse.meminfo(line)
            except ParseError:
                continue
    return found


# -----------------------------------------------------------------------------
# What a process holds of memory: read from /proc, and understood.


def read_memory(pid: int | str = "self", *, inherits: bool = False) -> Memory | None:
    """The memory of a process; None where the kernel does not tell, or it is gone.

    Args:
        pid: its number, or "self".
        inherits: leave out what it shares with the process that it was forked from.
    """
    known = status(processes.read(pid, "status"))
    if known is None or not inherits:
        return known
    own = unshared(processes.read(pid, "smaps_rollup"))
    return None if own is None else known.without(max(0, known.private - own))


def read_proportional(pid: int | str = "self") -> int | None:
    """Its part in bytes of what it holds apart from files; None where none is told."""
    return parse_proportional(processes.read(pid, "smaps_rollup"))
