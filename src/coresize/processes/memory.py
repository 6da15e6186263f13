"""The memory and activity of one process: parsing and reading its files in /proc."""

from __future__ import annotations

from coresize import processes
from coresize.detection import parse
from coresize.errors import ParseError
from coresize.model import Value
from coresize.processes import segments


TYPE_CHECKING = False


class Memory(Value):
    """The memory of one process in bytes.

    Attributes:
        size: the address space.
        high: the peak of resident memory since the mark was last reset.
        private: resident memory apart from files: anonymous and shared memory.
        shared: the part of it that is shared memory.
        file: resident pages of files, which the kernel can drop.
    """

    size: int
    high: int
    private: int
    file: int
    shared: int

    @property
    def anonymous_peak(self) -> int:
        """The peak of resident memory, minus the pages of files resident now."""
        return max(self.private, self.high - self.file)

    def without(self, inherited: int) -> Memory:
        """A copy without these bytes, which are inherited from another process."""
        return Memory(
            size=self.size,
            high=max(0, self.high - inherited),
            private=max(0, self.private - inherited),
            file=self.file,
            shared=self.shared,
        )

    def beside(self, mapped: int) -> Memory:
        """A copy without shared memory that belongs to others.

        Args:
            mapped: bytes of such memory that the process has mapped. It may have
                touched only a part of them, which is resident.
        """
        theirs = min(mapped, self.shared)
        # At the peak, which may be one of an earlier task, all of it may have been
        # resident.
        return Memory(
            size=self.size,
            high=max(0, self.high - mapped),
            private=self.private - theirs,
            file=self.file,
            shared=self.shared - theirs,
        )


_STATUS = ("VmSize", "VmHWM", "RssAnon", "RssFile", "RssShmem")
_ROLLUP = ("Pss_Anon", "Pss_Shmem")


def status(text: str) -> Memory | None:
    """The memory in /proc/PID/status (proc(5)); None for a process without memory.

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
        shared=lines["RssShmem"],
    )


def parse_proportional(text: str, mapped: int = 0) -> int | None:
    """The proportional memory apart from files, in /proc/PID/smaps_rollup.

    Each process is charged a part of the memory that it shares with others; the parts
    add up to the whole (kernel Documentation/ABI/testing/procfs-smaps_rollup; Linux
    5.4).

    Args:
        text: the text of the file.
        mapped: bytes of shared memory that belongs to others; see `Memory.beside`.
    """
    lines = _lines(text, _ROLLUP)
    if len(lines) < len(_ROLLUP):
        return None
    return lines["Pss_Anon"] + max(0, lines["Pss_Shmem"] - mapped)


def unshared(text: str) -> int | None:
    """The memory that belongs to the process alone and cannot be dropped.

    The text is that of smaps_rollup. Memory inherited by fork does not count until the
    process writes to it; the counts in /proc/PID/status do not make that distinction
    (Linux 4.14).
    """
    return _lines(text, ("Private_Dirty",)).get("Private_Dirty")


def run_delay(text: str) -> float | None:
    r"""Seconds that a thread was ready without a CPU, in /proc/PID/task/TID/schedstat.

    >>> run_delay("1007518 2500000000 2\n")
    2.5
    """
    fields = text.split()
    if len(fields) > 1 and fields[1].isdigit():
        return int(fields[1]) / 1e9
    return None


def activity(text: str) -> tuple[str, int]:
    """The state letter and the CPU time in ticks, in /proc/PID/stat.

    proc(5): T is stopped by a signal, t by a debugger. For a process that is gone, the
    text is empty and so is the state.

    >>> activity("7 (a ) b) T 1 7 7 0 -1 4194304 9 0 0 0 12 30 0 0 20 0 1 0")
    ('T', 42)
    """
    fields = text.rpartition(")")[2].split()
    try:
        return fields[0], int(fields[11]) + int(fields[12])
    except (IndexError, ValueError):
        return "", 0


def _lines(text: str, names: tuple[str, ...]) -> dict[str, int]:
    amounts = {}
    for line in text.split("\n"):
        name = line.partition(":")[0]
        if name in names:
            try:
                amounts[name] = parse.meminfo(line)
            except ParseError:
                continue
    return amounts


# -----------------------------------------------------------------------------
# Reading the memory of a process from /proc.


def read_memory(pid: int | str = "self", *, inherits: bool = False) -> Memory | None:
    """The memory of a process; None if the kernel does not tell, or it is gone.

    Args:
        pid: the id of the process, or "self".
        inherits: whether to leave out memory that the process shares with the process
            that it was forked from.
    """
    known = status(processes.read(pid, "status"))
    if known is None or not inherits:
        return known
    own = unshared(processes.read(pid, "smaps_rollup"))
    return None if own is None else known.without(max(0, known.private - own))


def read_own(*, inherits: bool = False) -> Memory | None:
    """The memory of this process, without the segments of a pool that it has mapped.

    None if the kernel does not tell.

    Args:
        inherits: see `read_memory`.
    """
    own = read_memory("self", inherits=inherits)
    mapped = segments.mapped()
    # All of them were resident when the task began (`segments.attach`), and since then
    # only pages that it has written to have become its own. So what is left of the peak
    # is the task's, and is never too low.
    return own.beside(min(mapped, own.shared)) if own and mapped else own


def read_proportional(pid: int | str = "self", mapped: int = 0) -> int | None:
    """The proportional memory of a process apart from files; None if unknown.

    Args:
        pid: the id of the process, or "self".
        mapped: see `parse_proportional`.
    """
    return parse_proportional(processes.read(pid, "smaps_rollup"), mapped)
