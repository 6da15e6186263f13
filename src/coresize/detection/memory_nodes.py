"""The memory of the nodes that this process may use, where others exist.

A cpuset, or a policy of its own (numactl --membind), confines a process to some memory
nodes of the machine; the kernel kills a process for memory once these are full, however
much the other nodes have free (cpuset(7), set_mempolicy(2), kernel
Documentation/admin-guide/mm/numa_memory_policy.rst). A machine with one node costs one
read.
"""

from __future__ import annotations

from coresize.detection import cgroup, meminfo, parse
from coresize.detection.reading import explain, read_text
from coresize.detection.rlimits import STATUS
from coresize.detection.system import MEMINFO
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from coresize.detection.cgroup import Membership
    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Role

_ONLINE = "/sys/devices/system/node/online"
_NODE = "/sys/devices/system/node/node{}/meminfo"
_SOURCE = "system:memory nodes"
_POLICY = "get_mempolicy(2)"

#: By cgroup version, the files with the nodes in effect; for a process whose status
#: does not name them.
_FILES = {
    1: ("cpuset.effective_mems", "cpuset.mems"),
    2: ("cpuset.mems.effective",),
}


def memory(host: Host, membership: Membership) -> Iterator[FactOrGap]:
    """Yield the memory of the allowed nodes, in all and available, if some are not."""
    text = read_text(host, _ONLINE, "memory", _SOURCE)
    if isinstance(text, Gap):
        yield text
    if not isinstance(text, str) or text.strip() in ("0", ""):
        return
    try:
        online = parse.cpu_list(text)
    except ParseError as error:
        yield _gap(_ONLINE, explain(error))
        return
    where, said = _allowed(host, membership)
    try:
        allowed = parse.memory_nodes(said)
    except ParseError as error:
        yield _gap(where, explain(error))
        return
    bound = host.bound_nodes()
    if bound and not allowed <= bound:
        where, said = _POLICY, f"bind:{parse.format_cpu_list(bound)}"
        allowed = allowed & bound
    if online - allowed:
        yield from _of_nodes(host, online & allowed, where, " ".join(said.split()))


def _allowed(host: Host, membership: Membership) -> tuple[str, str]:
    """The place that names the nodes that this process may use, and what it says."""
    try:
        text = parse.line(host.read(STATUS), "Mems_allowed_list:", "Mems_allowed:")
    except (OSError, ParseError):
        pass
    else:
        return STATUS, text
    chains, _ = cgroup.locate(membership, "cpuset", "memory")
    for version, directories in chains:
        for directory in directories:
            for where in (f"{directory}/{name}" for name in _FILES[version]):
                found = read_text(host, where, "memory", _SOURCE)
                if isinstance(found, str) and found.strip():
                    return where, f"list:{found}"
    return STATUS, ""


def _of_nodes(
    host: Host, nodes: AbstractSet[int], where: str, said: str
) -> Iterator[FactOrGap]:
    """The memory of some nodes; a gap if one of them does not tell its own."""
    texts = []
    for path in (_NODE.format(node) for node in sorted(nodes)):
        text = read_text(host, path, "memory", _SOURCE)
        if not isinstance(text, str):
            yield text or _gap(path, "missing, although the node is online")
            return
        texts.append(text)
    machine = read_text(host, MEMINFO, "memory", _SOURCE)
    total, left = meminfo.of_nodes(texts, machine if isinstance(machine, str) else "")
    if not total:
        yield _gap(where, f"the nodes of {said!r} tell no memory")
        return
    yield _fact(total, "capacity", where, said)
    yield _fact(left, "available", where, said)


def _fact(amount: int, role: Role, where: str, said: str) -> Fact:
    """What the allowed nodes have, or have available."""
    return Fact(
        resource="memory",
        amount=amount,
        role=role,
        source=_SOURCE,
        where=where,
        raw=said,
    )


def _gap(where: str, reason: str) -> Gap:
    """Why the memory of the allowed nodes is not known."""
    return Gap(
        code="node-unknown",
        resource="memory",
        source=_SOURCE,
        where=where,
        reason=reason,
    )
