"""Which CPUs a program is bound to. Pure.

Rule 1: as many as wanted, out of the allowed ones. Rule 2: on one NUMA node if one has
enough, else on as few as possible. Rule 3: whole physical cores first, so that at most
one core is shared with a neighbour who is bound by the same rule. Rule 4: by chance
among equals, so that containers which know nothing of each other do not meet on CPU 0.

Kubernetes' static CPU manager has the rules 2 and 3 (takeByTopology).
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet


def choose(
    allowed: AbstractSet[int],
    count: int,
    *,
    cores: Iterable[AbstractSet[int]],
    nodes: Iterable[AbstractSet[int]],
    random: Callable[[], float],
) -> frozenset[int]:
    """The CPUs to bind a program to.

    Args:
        allowed: the CPUs that the program may use.
        count: the number of CPUs to choose; all that are allowed if there are fewer.
        cores: the CPUs of each physical core, allowed or not.
        nodes: the CPUs of each NUMA node, allowed or not.
        random: gives another number, 0 or above and below 1, with each call.

    >>> pairs = [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    >>> allowed = set(range(8)) - {4}
    >>> sorted(choose(allowed, 5, cores=pairs, nodes=[], random=lambda: 0.5))
    [0, 1, 2, 5, 6]
    """
    whole = [*_disjoint([*cores, *({cpu} for cpu in sorted(allowed))])]
    groups = [allowed & node for node in _disjoint([*nodes, allowed])]
    chosen: frozenset[int] = frozenset()
    while True:
        left = count - len(chosen)
        enough = [group for group in groups if len(group) >= left]
        if enough or not groups:
            break
        largest = max(groups, key=lambda group: (len(group), random()))
        chosen |= largest
        groups.remove(largest)
    tries = [_in_node(group, left, whole, random) for group in enough]
    best = max(tries, key=lambda cpus: (_whole(cpus, whole), random()), default=())
    return chosen.union(best)


def _in_node(
    allowed: AbstractSet[int],
    count: int,
    cores: Sequence[frozenset[int]],
    random: Callable[[], float],
) -> frozenset[int]:
    """A number of CPUs of one node: whole cores, then others, then a part of one."""
    groups = [(core <= allowed, core & allowed) for core in cores]
    groups.sort(key=lambda group: (not group[0], -len(group[1]), random()))
    chosen: frozenset[int] = frozenset()
    split: list[frozenset[int]] = []
    for _, core in groups:
        if len(chosen) + len(core) <= count:
            chosen |= core
        else:
            split.append(core)
    if len(chosen) < count:
        part = min(split, key=len)
        chosen |= {*sorted(part)[: count - len(chosen)]}
    return chosen


def _whole(cpus: AbstractSet[int], cores: Iterable[frozenset[int]]) -> int:
    """The number of CPUs whose whole core is there."""
    return sum(len(core) for core in cores if core <= cpus)


def _disjoint(sets: Iterable[AbstractSet[int]]) -> Iterator[frozenset[int]]:
    """Yield the sets without what an earlier one has, and without empty ones."""
    seen: set[int] = set()
    for members in sets:
        new = frozenset(members - seen)
        seen |= new
        if new:
            yield new
