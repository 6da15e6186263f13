"""The grammars of batch schedulers: text to counts, under the rules of `parse`."""

from __future__ import annotations

from contextlib import suppress

from coresize.detection.parse import cpu_list
from coresize.errors import ParseError
from coresize.units import cores, fail, positive, shown, whole


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def slurm_count(text: str, node: int | None) -> int:
    """The count for one node in Slurm's ``72(x2),36``, which means 72, 72, 36.

    Args:
        text: the counts.
        node: the place in the list; None is valid if all counts are the same.
    """
    counts = []
    for part in text.strip().split(","):
        count, repeated, times = part.partition("(x")
        if repeated and not times.endswith(")"):
            fail(f"{shown(part)} is not closed")
        counts.append((positive(count), positive(times[:-1]) if repeated else 1))
    if node is None:
        node = 0
        if len({count for count, _ in counts}) > 1:
            fail(f"{shown(text)} differs by node, and this node's place is unknown")
    end = 0
    for cpus, nodes in counts:
        end += nodes
        if node < end:
            return cpus
    msg = f"{shown(text)} has no place {node}"
    raise ParseError(msg)


def slurm_mebibytes(text: str) -> int:
    """Bytes in a number of mebibytes, or in a number with K, M, G or T (Slurm)."""
    number = text.strip()
    power = {"K": 1, "M": 2, "G": 3, "T": 4}.get(number[-1:].upper(), 0)
    return whole(number[:-1]) * 1024**power if power else whole(number) * 1024**2


def tres_cpus(text: str) -> float | None:
    """The CPUs in Slurm's ``cpu=4,gres/gpu:a100=1``; None where CPUs are not named."""
    for part in text.split(","):
        name, _, number = part.strip().replace("=", ":").partition(":")
        if name == "cpu":
            return float(positive(number))
    return None


def typed_count(text: str) -> float:
    """The number of devices in Slurm's ``4``, ``a100:4`` or ``a100:2,k80:1``."""
    return float(sum(positive(part.rpartition(":")[2]) for part in text.split(",")))


#: Grid Engine writes multipliers of 1024 in upper case, and of 1000 in lower case
#: (sge_types(1), "memory_specifier").
_SGE_UNITS = {
    letter: base**power
    for power, letters in enumerate(("Kk", "Mm", "Gg", "Tt"), start=1)
    for letter, base in zip(letters, (1024, 1000), strict=True)
}


def sge_size(text: str) -> int | None:
    """Bytes in Grid Engine's ``16.000G``; None for ``INFINITY``."""
    number = text.strip()
    if number.upper() == "INFINITY":
        return None
    scale = _SGE_UNITS.get(number[-1:])
    return int(cores(number[:-1]) * scale) if scale else int(cores(number))


def host_cpus(text: str) -> dict[str, int]:
    """CPUs by host in LSF's affinity file, whose lines are ``HOST CPUS NODES POLICY``.

    Lines without CPUs are skipped: those tasks are not bound.
    """
    cpus: dict[str, frozenset[int]] = {}
    for row in text.split("\n"):
        host, listed, *_ = [*row.split(), "", ""]
        if listed:
            cpus[host] = cpus.get(host, frozenset()) | cpu_list(listed)
    return {host: len(numbers) for host, numbers in cpus.items()}


def host_lines(text: str) -> dict[str, int]:
    """Slots by host in a node file: one line, or one word, is one slot."""
    return _by_host((host, 1) for host in text.split())


def host_pairs(text: str) -> dict[str, int]:
    """Slots by host in LSF's ``hostA 2 hostB 3``."""
    words = text.split()
    if len(words) % 2:
        fail(f"{shown(text)} is not a list of hosts and counts")
    return _by_host(zip(words[::2], map(positive, words[1::2]), strict=True))


def pe_hosts(text: str) -> dict[str, int]:
    """Slots by host in an SGE PE_HOSTFILE, whose lines are ``HOST N QUEUE PROCS``.

    Lines of another form are skipped: they may be about another host.
    """
    slots = []
    for row in text.split("\n"):
        host, count, *_ = [*row.split(), "", ""]
        with suppress(ParseError):
            slots.append((host, positive(count)))
    return _by_host(slots)


def _by_host(slots: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for host, count in slots:
        total[host] = total.get(host, 0) + count
    return total


def classad(text: str, name: str) -> float:
    """One number above 0 of an HTCondor ClassAd, whose lines are ``Name = value``."""
    for candidate in text.split("\n"):
        key, _, value = candidate.partition("=")
        if key.strip().lower() == name.lower():
            return cores(value)
    msg = f"no line {shown(name)}"
    raise ParseError(msg)
