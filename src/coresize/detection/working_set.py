"""The memory that is left below a limit now: the limit less the working set.

The working set is what a cgroup uses, less what the kernel gives up before it kills a
process of the cgroup. What the kernel gives up stands in memory.stat, in the lines of
`_KINDS`:

- Pages of files, on both of their lists. "active" means only that a page was read more
  than once; the kernel drops such pages too. The lists contain neither the files of a
  tmpfs, nor shared memory, nor locked pages, which stay.
- The part of the kernel's own objects that is a cache: names and inodes of files. v1
  tells only how much all objects take together, so there it counts as used.

A part of these stays in the working set. Among the active pages is the code that runs.
Among the kernel's objects are some that others hold: those of open files and of files
in a tmpfs, which come with objects that are no cache, and those of locked pages.
On v2, the kernel kills rather than wait for a slow disk, so most of the pages that are
dirty or being written stay; no number tells whether the disk is slow. On v1, the kernel
waits. Swap does not count at all.

A limit of an ancestor holds for its whole subtree, and so do the numbers beside it: a
neighbour's cache is given up as well. The exception is memory.min, within which the
kernel takes nothing from a neighbour. memory.low is an exception only until the kernel
would have to kill, so it is not read.

Decision 13 has the measurements.
"""

from __future__ import annotations

from coresize import units
from coresize.detection import parse
from coresize.detection.reading import gap, read_fact
from coresize.errors import ParseError
from coresize.model import Fact, Gap, Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host

    _Names: TypeAlias = tuple[str, ...]

#: By cgroup version, the file with the bytes in use.
_USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}

#: The names of one line of memory.stat; the first one found counts. On v1, the lines
#: with "total_" include the cgroups below.
_V1_INACTIVE = ("total_inactive_file ", "inactive_file ")
_V1_ACTIVE = ("total_active_file ", "active_file ")

#: By cgroup version, the kinds of memory that the kernel gives up. A kind has lines
#: that are added up, and lines that tell what stays of it, with the bytes that stay for
#: each byte of these.
_KINDS: dict[
    int, tuple[tuple[tuple[_Names, ...], tuple[tuple[_Names, float], ...]], ...]
]
_KINDS = {
    1: (((_V1_INACTIVE, _V1_ACTIVE), ((_V1_ACTIVE, 1 / 16),)),),
    2: (
        (
            (("inactive_file ",), ("active_file ",)),
            (
                (("active_file ",), 1 / 16),
                (("file_dirty ",), 3 / 4),
                (("file_writeback ",), 3 / 4),
            ),
        ),
        (
            (("slab_reclaimable ",),),
            (
                (("slab_reclaimable ",), 1 / 8),
                (("slab_unreclaimable ",), 4),
                (("unevictable ",), 1 / 32),
            ),
        ),
    ),
}

#: The line that every memory.stat has; a kernel or a recording may lack the others.
_ALWAYS = {1: _V1_INACTIVE, 2: ("inactive_file ",)}


class Cache(Value):
    """What the kernel can take back from a cgroup, in the text of its memory.stat.

    Attributes:
        size: bytes that are cache.
        kept: bytes of these that count as used all the same.
        raw: the lines that were read.
        problems: why lines could not be read.
    """

    size: int
    kept: int
    raw: str
    problems: tuple[str, ...]

    @property
    def given_up(self) -> int:
        """The bytes that count as available."""
        return self.size - self.kept


def parse_cache(text: str, version: int) -> Cache:
    r"""Find the cache in a memory.stat.

    >>> cache = parse_cache("inactive_file 100\nactive_file 1600\n", 2)
    >>> cache.size, cache.given_up
    (1700, 1600)
    """
    found = {line[: line.find(" ") + 1]: line for line in text.split("\n")}
    size = kept = 0
    problems = []
    read = [_first(found, names) for kind, _ in _KINDS[version] for names in kind]
    for line in filter(None, read):
        try:
            parse.memory_stat(line)
        except ParseError as error:
            problems.append(str(error))
    if not _first(found, _ALWAYS[version]):
        problems.append(f"no line begins with {units.shown(_ALWAYS[version][0])}")
    for kind, staying in _KINDS[version]:
        amount = sum(_amount(found, names) for names in kind)
        stays = sum(int(_amount(found, names) * part) for names, part in staying)
        size += amount
        kept += min(amount, stays)
    raw = ", ".join(line.strip() for line in read if line)
    return Cache(size=size, kept=kept, raw=raw, problems=tuple(problems))


def _first(found: dict[str, str], names: _Names) -> str:
    """The line with the first name that there is; "" if there is none."""
    return next((found[name] for name in names if name in found), "")


def _amount(found: dict[str, str], names: _Names) -> int:
    """The bytes in a line; 0 if it is not there or not a number."""
    try:
        return parse.memory_stat(_first(found, names))
    except ParseError:
        return 0


def available(
    host: Host,
    limits: Iterable[FactOrGap | None],
    version: int,
    directories: tuple[str, ...],
) -> Iterator[FactOrGap]:
    """What is used, given up and left below the limits of one directory.

    A difference below 0 counts as 0, since the files are read one after the other.

    Args:
        host: the machine.
        limits: the facts and gaps from the directory's limit files.
        version: the cgroup version.
        directories: the own directory and its ancestors, up to this directory.
    """
    bounds = [
        fact for fact in limits if isinstance(fact, Fact) and fact.amount is not None
    ]
    if not bounds:
        return
    directory = directories[-1]
    where = f"{directory}/{_USAGE[version]}"
    used = read_fact(
        host,
        where,
        units.whole,
        resource="memory",
        role="used",
        source=f"cgroup{version}:{_USAGE[version]}",
    )
    if used:
        yield used
    if not isinstance(used, Fact):
        return
    droppable = 0
    for finding in _given_up(host, version, directories):
        yield finding
        if isinstance(finding, Fact):
            droppable = int(finding.amount or 0)
    working_set = max(0, int(used.amount or 0) - droppable)
    for role in ("limit", "soft"):
        of_role = [bound for bound in bounds if bound.role == role]
        if of_role:
            bound = min(of_role, key=lambda fact: fact.amount or 0)
            yield Fact(
                resource="memory",
                amount=max(0, (bound.amount or 0) - working_set),
                role="soft_available" if role == "soft" else "available",
                source=f"cgroup{version}:working set",
                where=where,
                raw=f"{bound.raw} - ({used.raw} - {droppable})",
            )


def _given_up(
    host: Host, version: int, directories: tuple[str, ...]
) -> Iterator[FactOrGap]:
    """The fact about what the kernel gives up in one directory; gaps."""
    source = f"cgroup{version}:memory.stat"
    where = f"{directories[-1]}/memory.stat"
    try:
        cache = parse_cache(host.read(where), version)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield gap(error, resource="memory", source=source, where=where)
        return
    for reason in cache.problems:
        yield Gap(
            code="malformed",
            resource="memory",
            source=source,
            where=where,
            reason=reason,
        )
    protected = _protected(host, directories) if version == 2 else 0
    less = "".join(f" - {part}" for part in (cache.kept, protected) if part)
    yield Fact(
        resource="memory",
        amount=max(0, cache.given_up - protected),
        role="reclaimable",
        source=source,
        where=where,
        raw=cache.raw + less,
    )


# --- What memory.min protects ---------------------------------------------------------


def _protected(host: Host, directories: tuple[str, ...]) -> int:
    """The cache of neighbours below a limit that the kernel does not take back.

    The neighbours are those of each directory on the way from the own one up to the
    limit. memory.min of the own directories protects nothing from this process: the
    more it takes, the more they exceed it.
    """
    return sum(
        _protected_in(host, neighbour)
        for above in directories[1:]
        for neighbour in _neighbours(host, directories[0], above)
    )


def _neighbours(host: Host, own: str, above: str) -> Iterator[str]:
    """The directories in one directory, apart from the one that leads to the own."""
    try:
        folders = host.folders(above)
    except OSError:
        return
    paths = (f"{above}/{folder}" for folder in folders)
    yield from (path for path in paths if not f"{own}/".startswith(f"{path}/"))


def _protected_in(host: Host, directory: str) -> int:
    """The cache of one cgroup within its memory.min (cgroup-v2.rst, "memory.min")."""
    try:
        limit = parse.memory_limit(host.read(f"{directory}/memory.min"))
        if limit == 0:
            return 0
        used = units.whole(host.read(f"{directory}/{_USAGE[2]}"))
        given_up = parse_cache(host.read(f"{directory}/memory.stat"), 2).given_up
    except (OSError, ParseError):
        return 0
    exceeds = 0 if limit is None else max(0, used - limit)
    return max(0, given_up - exceeds)
