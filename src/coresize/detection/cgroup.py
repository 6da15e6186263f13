"""Finds the cgroup directories that limit this process, from membership and mounts.

Rule 1: the own cgroup *and every visible ancestor* count, through every mount that
shows one of them. Rule 2: a mount that cannot contain the own path belongs to a
neighbour; its numbers are never used, and the limit is a gap.
"""

from __future__ import annotations

from coresize.detection import parse_cgroup
from coresize.detection.reading import explain, keep_last
from coresize.model import Gap, Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from coresize.host import Host
    from coresize.model import Resource

    #: The version, and directories from the own cgroup up to a mount point.
    Chain: TypeAlias = tuple[int, tuple[str, ...]]

    Located: TypeAlias = tuple[tuple[Chain, ...], tuple[Gap, ...]]


CGROUP = "/proc/self/cgroup"
MOUNTINFO = "/proc/self/mountinfo"

#: A file that every directory of a v1 hierarchy has.
_EVERYWHERE = "notify_on_release"


class Membership(Value):
    """The two files that locate this process, read once for all controllers.

    Attributes:
        cgroup: the text of /proc/self/cgroup; empty if the file cannot be read.
        mountinfo: the text of /proc/self/mountinfo; empty if it cannot be read.
        problems: path and reason for each file that cannot be read.
    """

    cgroup: str
    mountinfo: str
    problems: tuple[tuple[str, str], ...]

    def of(self, cgroup: str) -> Membership:
        """The membership of another process, by its /proc/PID/cgroup; same mounts."""
        return Membership(cgroup=cgroup, mountinfo=self.mountinfo, problems=())


def read_membership(host: Host) -> Membership:
    """Read both files; the texts are empty if the platform has no cgroups."""
    if host.platform != "linux":
        return Membership(cgroup="", mountinfo="", problems=())
    texts = []
    problems = []
    for where in (CGROUP, MOUNTINFO):
        try:
            texts.append(host.read(where))
        except OSError as error:
            texts.append("")
            problems.append((where, explain(error)))
    return _membership((texts[0], texts[1], tuple(problems)))


@keep_last
def _membership(texts: tuple[str, str, tuple[tuple[str, str], ...]]) -> Membership:
    """Return the same object while the texts are the same: comparisons are quick."""
    cgroup, mountinfo, problems = texts
    return Membership(cgroup=cgroup, mountinfo=mountinfo, problems=problems)


@keep_last
def locate(membership: Membership, controller: str, resource: Resource) -> Located:
    """The chains that limit this process by one controller, and the gaps."""
    gaps = tuple(
        Gap(
            code="unreadable",
            resource=resource,
            source="cgroup",
            where=where,
            reason=reason,
        )
        for where, reason in membership.problems
    )
    mountinfo = membership.mountinfo
    own = parse_cgroup.own_cgroup(membership.cgroup, controller)
    if own:
        chains = _chains(mountinfo, controller, *own)
        answered = chains or any(gap.where == MOUNTINFO for gap in gaps)
        code, where = "not-mounted", MOUNTINFO
        reason = f"no mount shows the {controller} controller of cgroup {own[1]}"
    else:
        # If the file is empty, the roots of the mounts are used.
        roots = _roots(mountinfo, controller)
        chains = () if membership.cgroup.strip() else roots
        answered = not roots or any(gap.where == CGROUP for gap in gaps)
        code, where = "not-listed", CGROUP
        reason = f"no line names the {controller} controller, although it is mounted"
    if answered:
        return chains, gaps
    missing = Gap(
        code=code, resource=resource, source="cgroup", where=where, reason=reason
    )
    return chains, (*gaps, missing)


def _chains(
    mountinfo: str, controller: str, version: int, path: str
) -> tuple[Chain, ...]:
    """The chain of the own cgroup below each mount that can contain it.

    Directories that a later mount covers are left out: that mount shows them itself, or
    it shows directories of a neighbour.
    """
    mounts = parse_cgroup.cgroup_mounts(mountinfo, version, controller)
    points = list(mounts)
    chains = []
    for place, (point, root) in enumerate(mounts.items(), start=1):
        hidden_below = tuple(f"{later}/" for later in points[place:])
        directories = tuple(
            directory
            for directory in climb(path, root, point) or ()
            if not f"{directory}/".startswith(hidden_below)
        )
        if directories:
            chains.append((version, directories))
    return tuple(chains)


def check_shown(
    host: Host, version: int, mount_point: str, resource: Resource
) -> Iterator[Gap]:
    """Yield a gap if a mount that should show the own cgroup shows nothing.

    Called when no limit file was found. That is valid, since a v2 group may lack the
    controller; but another mount may also hide this one.
    """
    where = f"{mount_point}/{'cgroup.controllers' if version == 2 else _EVERYWHERE}"
    try:
        host.read(where)
    except OSError as error:
        reason = f"the mount is hidden: {explain(error)}"
        yield Gap(
            code="mount-hidden",
            resource=resource,
            source="cgroup",
            where=where,
            reason=reason,
        )


def climb(path: str, root: str, mount_point: str) -> tuple[str, ...] | None:
    """The directories of a cgroup and its ancestors below one mount, nearest first.

    Args:
        path: the own cgroup, as in /proc/self/cgroup.
        root: the directory of the hierarchy that is mounted.
        mount_point: the directory on which it is mounted.

    Returns:
        The directories, or None if the mount cannot contain the path. ``..`` is a
        component like any other, with one exception: a root that consists of ``..``
        only, more of them than the path begins with, is an ancestor of the own cgroup.
        Its limit applies; the directories between are not known.
    """
    own = _components(path)
    shown = _components(root)
    only_up = shown.count("..") == len(shown)
    if only_up and len(shown) > _steps_up(own):
        return (mount_point.rstrip("/"),)
    below = own[len(shown) :]
    if own[: len(shown)] != shown or ".." in below:
        return None
    directories = [mount_point.rstrip("/")]
    for component in below:
        directories.insert(0, f"{directories[0]}/{component}")
    return tuple(directories)


def _components(path: str) -> list[str]:
    return [component for component in path.split("/") if component]


def _steps_up(components: list[str]) -> int:
    """The number of ``..`` at the beginning of a path."""
    steps = 0
    while components[steps : steps + 1] == [".."]:
        steps += 1
    return steps


def _roots(mountinfo: str, controller: str) -> tuple[Chain, ...]:
    """The roots of all mounts, used if the own path is not known at all."""
    return tuple(
        (version, (point,))
        for version in (1, 2)
        for point in parse_cgroup.cgroup_mounts(mountinfo, version, controller)
    )
