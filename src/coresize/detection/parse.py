"""Parses texts, with one function per grammar.

Rule 1: a parser takes a text, has no side effects, and raises only ParseError.
Rule 2: no parser returns a sentinel: "no limit" is None, and a text that is not a
number is an error.
Rule 3: digits are ASCII digits. ``int()`` also takes ``+5``, ``1_000`` and the digits
of other scripts, none of which the kernel or a scheduler writes.
Rule 4: only a newline ends a line, not the other characters of ``splitlines()``.
"""

from __future__ import annotations

from coresize.errors import ParseError
from coresize.units import fail, positive, shown, whole


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: The bandwidth period when cpu.max names none, in microseconds (kernel
#: Documentation/admin-guide/cgroup-v2.rst, "cpu.max").
_DEFAULT_PERIOD_US = 100_000

#: cgroup v1 writes "unlimited" as the largest multiple of the page size below 2**63, or
#: as ULONG_MAX; all these numbers are at least this.
_UNLIMITED_BYTES = 2**63 - 2**20

#: More CPUs than any kernel is built for (NR_CPUS); a list that names more is garbage.
_MOST_CPUS = 2**16


# --- Numbers ------------------------------------------------------------------


# --- CPUs ---------------------------------------------------------------------


def cpu_max(text: str) -> float | None:
    """Cores in a v2 cpu.max; None for no limit.

    1. ``QUOTA PERIOD`` in microseconds, or ``max PERIOD`` (kernel cpu_max_show).
    2. The period may be missing: 100000. Further fields are ignored.
    """
    fields = text.split()
    if not fields:
        fail("empty")
    if fields[0] == "max":
        return None
    period = positive(fields[1]) if len(fields) > 1 else _DEFAULT_PERIOD_US
    return positive(fields[0]) / period


def cfs_quota(text: str) -> int | None:
    """Microseconds in a v1 cpu.cfs_quota_us; None for ``-1``, which is no limit."""
    return None if text.strip() == "-1" else positive(text)


def cpu_list(text: str) -> frozenset[int]:
    """The CPUs in a list such as ``0-3,8,10-11`` (cpuset(7), "List format")."""
    cpus: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        low = whole(first)
        high = whole(last) if dash else low
        if not low <= high < _MOST_CPUS:
            fail(f"{shown(part)} is not a range of CPUs")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def cpu_mask(text: str) -> frozenset[int]:
    """The CPUs in a mask such as ``ff,00000001`` (cpuset(7), "Mask format")."""
    cpus: set[int] = set()
    for word, digits in enumerate(reversed(text.strip().split(","))):
        if not digits or len(digits) > 8 or digits.strip("0123456789abcdefABCDEF"):
            fail(f"{shown(text)} is not a mask of CPUs")
        bits = int(digits, 16)
        cpus.update(32 * word + bit for bit in range(32) if bits >> bit & 1)
    return frozenset(cpus)


def cpu_list_length(text: str) -> float | None:
    """The number of CPUs in a list; None for an empty list, "as the parent"."""
    return float(len(cpu_list(text))) or None


def online(text: str) -> float:
    """The number of CPUs in the list of online CPUs; an empty list is an error."""
    return cpu_list_length(text) or fail("empty")


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The text of a list of CPUs: the inverse of `cpu_list`."""
    ranges: list[list[int]] = []
    ordered = sorted(cpus)
    if ordered and ordered[-1] - ordered[0] == len(ordered) - 1:
        ranges.append([ordered[0], ordered[-1]])  # the usual case, quickly: one range
        ordered.clear()
    for cpu in ordered:
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if low < high else f"{low}" for low, high in ranges)


def devices(text: str) -> float:
    """The number of GPUs in CUDA_VISIBLE_DEVICES; see `visible_devices`."""
    return float(len(visible_devices(text)))


def visible_devices(text: str) -> tuple[int | str, ...]:
    """The GPUs in CUDA_VISIBLE_DEVICES, as the driver reads the list.

    1. A list that begins with ``GPU-`` or ``MIG-`` holds names of that kind, complete
       or abbreviated; any other list holds numbers.
    2. The first entry that is no such name or number, or is below 0, ends the list:
       ``-1``, ``NoDevFiles`` and an empty text hide all GPUs.
    3. A GPU that is listed twice hides all GPUs.

    CUDA C++ Programming Guide, "CUDA Environment Variables", and, for what that leaves
    open, torch/cuda/__init__.py of PyTorch, `_parse_visible_devices`, with its tests.
    """
    kind = next((kind for kind in ("GPU-", "MIG-") if text.startswith(kind)), "")
    visible: list[int | str] = []
    for entry in text.split(","):
        name = entry.rstrip() if entry.startswith(kind) else None
        device = name if kind else device_number(entry)
        if device is None:
            break
        if device in visible:
            return ()
        visible.append(device)
    return tuple(visible)


def device_number(text: str) -> int | None:
    """The number that a text begins with, as strtol(3) reads it; None below 0.

    White space and a sign may precede the digits; what follows them is ignored.
    """
    number = text.strip()
    sign = number[:1] if number[:1] in ("+", "-") else ""
    rest = number[len(sign) :]
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        value = whole(digits)
    except ParseError:  # no digits, or more than any number of a GPU has
        return None
    return None if sign == "-" and value else value


# --- Memory -------------------------------------------------------------------


def memory_limit(text: str) -> int | None:
    """Bytes in memory.max, memory.high or a v1 limit file; None for no limit.

    0 is a limit: the group may hold nothing.
    """
    return None if text.strip() == "max" else _unless_unlimited(whole(text))


def line(text: str, *starts: str) -> str:
    """The first line that begins with the first start; without one, the next start."""
    for start in starts:
        for candidate in text.split("\n"):
            if candidate.startswith(start):
                return candidate
    msg = f"no line begins with {shown(starts[0])}"
    raise ParseError(msg)


def memory_stat(text: str) -> int:
    """The number in a line of memory.stat, ``NAME VALUE``."""
    return whole(text.partition(" ")[2])


def hierarchical_limit(text: str) -> int | None:
    """Bytes in memory.stat's hierarchical_memory_limit; None for no limit."""
    return _unless_unlimited(memory_stat(text))


def meminfo(text: str) -> int:
    """Bytes in a line of /proc/meminfo, ``NAME:   VALUE kB`` (proc(5))."""
    return whole(text.partition(":")[2].strip().removesuffix("kB")) * 1024


def meminfo_total(text: str) -> int:
    """Bytes in the line MemTotal; 0 is an error."""
    return meminfo(text) or fail(f"{shown(text)} is not above 0")


def amounts(text: str) -> dict[str, int]:
    """Bytes by name, in the lines ``NAME:   VALUE kB`` of a meminfo.

    Other lines do not count. Those of a memory node begin with ``Node NUMBER``.
    """
    found = {}
    for row in text.split("\n"):
        before, colon, after = row.partition(":")
        value = after.strip().removesuffix("kB").strip()
        if colon and value.isdigit() and value.isascii():
            found[before.rpartition(" ")[2]] = int(value) * 1024
    return found


def rlimit(text: str) -> int | None:
    """The soft limit in a line of /proc/PID/limits; None for no limit (proc(5)).

    A line is ``Max NAME   SOFT   HARD   UNITS``, where a name has several words.
    """
    words = [word for word in text.split() if word == "unlimited" or not word.isalpha()]
    soft = "".join(words[:1])
    return None if soft == "unlimited" else whole(soft)


def memory_nodes(text: str) -> frozenset[int]:
    """The memory nodes in a line ``Mems_allowed_list:  0-1,3`` or ``Mems_allowed:  b``.

    A mask is in hexadecimal, in words of 32 bits with commas between them (proc(5)).
    """
    name, colon, value = text.partition(":")
    if not colon:
        fail("no line names the memory nodes")
    if name.endswith("list"):
        return cpu_list(value)
    try:
        mask = int(value.strip().replace(",", ""), 16)
    except ValueError:
        fail(f"{shown(value)} is not a mask")
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def count_limit(text: str) -> int | None:
    """The number in pids.max; None for ``max``, which is no limit."""
    return None if text.strip() == "max" else whole(text)


def all_tasks(text: str) -> int:
    """The processes and threads of the machine, in /proc/loadavg (proc(5))."""
    fields = text.split()
    return whole(fields[3].partition("/")[2]) if len(fields) > 3 else fail("empty")


def _unless_unlimited(limit: int) -> int | None:
    return limit if limit < _UNLIMITED_BYTES else None
