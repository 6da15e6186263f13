"""Which directories limit a process: paths against mounts."""

from __future__ import annotations

import pytest

from coresize.detection.cgroup import climb


#: case: (own path, mount root, mount point, directories)
CASES = {
    "root": ("/", "/", "/cg", ("/cg",)),
    "leaf and ancestors": ("/a/b", "/", "/cg", ("/cg/a/b", "/cg/a", "/cg")),
    "own directory mounted": ("/a/b", "/a/b", "/cg", ("/cg",)),
    "parent mounted": ("/a/b", "/a", "/cg", ("/cg/b", "/cg")),
    "neighbour": ("/a/b", "/a/c", "/cg", None),
    "prefix of a name": ("/a/bc", "/a/b", "/cg", None),
    "below the own": ("/a", "/a/b", "/cg", None),
    "above the namespace": ("/..", "/", "/cg", None),
    "beside the namespace": ("/../sib", "/", "/cg", None),
    "same steps up": ("/../../x", "/../..", "/cg", ("/cg/x", "/cg")),
    "root above the namespace": ("/", "/..", "/cg", ("/cg",)),
    "root two above": ("/a", "/../..", "/cg", ("/cg",)),
    "root above the path": ("/../x", "/../..", "/cg", ("/cg",)),
    "root beside": ("/", "/../sib", "/cg", None),
    "steps up inside": ("/../../x", "/..", "/cg", None),
    "mounted at the root": ("/a", "/", "/", ("/a", "")),
}


@pytest.mark.parametrize("case", CASES)
def test_climb(case):
    path, root, point, directories = CASES[case]
    assert climb(path, root, point) == directories
