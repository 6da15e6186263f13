"""Parses /proc/self/cgroup and mountinfo, under the rules of `parse`.

Only a newline ends a line, and only a space ends a field of mountinfo, since names of
cgroups may contain the other characters that ``splitlines()`` and ``split()`` break at.
A carriage return before the newline is dropped, as if an editor had added it. Invalid
lines are skipped: others may have the answer.
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def own_cgroup(text: str, controller: str) -> tuple[int, str] | None:
    """The version and path of the own cgroup for a controller, in /proc/self/cgroup.

    cgroups(7), kernel proc_cgroup_show. A line is ``ID:CONTROLLERS:PATH``:

    1. the hierarchy; 0 is v2, whose line names no controllers,
    2. the controllers of a v1 hierarchy, or ``name=X``, which has none,
    3. the path, raw: it may hold colons and spaces, and ``/..`` at its start.

    A controller is v1 if a v1 hierarchy names it, else v2. Lines of another form are
    skipped; None means that no line applies to the controller.
    """
    unified = None
    for row in text.split("\n"):
        if controller not in row and "0:" not in row:
            continue
        hierarchy, _, rest = row.partition(":")
        controllers, _, path = rest.rstrip("\r").partition(":")
        number = hierarchy.strip()
        if not number.isdigit():
            continue
        if number != "0" and controller in controllers.split(","):
            return (1, path) if path[:1] == "/" else None
        if number == "0" and path[:1] == "/":
            unified = 2, path
    return unified


#: The word in a mountinfo line of lxcfs, a file system that shows a container its share
#: of the machine instead of the whole machine.
LXCFS = "lxcfs"


def cgroup_lines(text: str) -> str:
    """The lines of mountinfo that `cgroup_mounts` reads."""
    return "".join(f"{row}\n" for row in text.split("\n") if " - cgroup" in row)


def cgroup_mounts(text: str, version: int, controller: str) -> dict[str, str]:
    """Mount roots by mount point, of the v2 mounts or those of one v1 controller.

    A later mount on the same point hides the earlier one.
    """
    kind, word = ("cgroup", controller) if version == 1 else ("cgroup2", " - cgroup2")
    roots: dict[str, str] = {}
    for its_kind, point, root, options in mounts(text, word):
        if its_kind != kind:
            continue
        if version == 2 or controller in options.replace(" ", ",").split(","):
            roots.pop(point, None)  # keeps the order of the visible mounts
            roots[point] = root
    return roots


def mounts(text: str, word: str = " - ") -> Iterator[tuple[str, str, str, str]]:
    """File system, mount point, root and super options of each line with the word.

    proc(5), kernel show_mountinfo. The fields, each ended by one space:

    1-3. mount, parent, device
    4.   root: the directory of the hierarchy that is mounted, escaped
    5.   mount point, escaped
    6.   mount options
    7.   optional fields, any number, ended by ``-``
    8-9. file system type and source
    10.  super options, which name the controllers of v1 and may contain spaces
    """
    for row in _rows_with(text, word):
        before, _, after = row.partition(" - ")  # no earlier field is a lone dash
        fields = before.split(" ", 5)
        kind, _, rest = after.rstrip("\r").partition(" ")
        if len(fields) == 6:
            options = rest.partition(" ")[2]
            yield kind, unescape(fields[4]), unescape(fields[3]), options


def _rows_with(text: str, word: str) -> Iterator[str]:
    """Yield the lines with a word; of thousands, the others are not even copied."""
    at = text.find(word)
    while at >= 0:
        end = text.find("\n", at)
        end = end if end >= 0 else len(text)
        yield text[text.rfind("\n", 0, at) + 1 : end]
        at = text.find(word, end)


def unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes, such as ``\040`` for a space."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    for part in rest:
        code = part[:3]
        if len(code) == 3 and set(code) <= set("01234567") and code < "200":
            first += chr(int(code, 8)) + part[3:]
        else:
            first += "\\" + part
    return first
