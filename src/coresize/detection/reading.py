"""Reads one file and parses it into a fact or a gap.

Rule: a file is read anew at every call. The result of parsing is a pure function of the
text, so the result for the last text may be kept; a limit is never kept.
"""

from __future__ import annotations

import errno

from coresize.detection.parse import line as pick_line
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias, TypeVar, TypeVarTuple

    from coresize.host import Host
    from coresize.model import Resource, Role

    FactOrGap: TypeAlias = Fact | Gap

    _Content = TypeVar("_Content")
    _Key = TypeVarTuple("_Key")
    _Answer = TypeVar("_Answer")

#: The number of keys for which one function keeps an answer; then it forgets them all.
_MOST_KEPT = 256


def keep_last(
    function: Callable[[_Content, *_Key], _Answer],
) -> Callable[[_Content, *_Key], _Answer]:
    """Let a pure function keep its last answer for each key.

    The first argument is the content: an immutable value, such as the text of a file.
    The other arguments are the key, such as the path. An answer is returned again only
    while the content under its key stays the same.

    Threads need no lock: an entry is one tuple, and a lost entry is computed again.
    """
    last: dict[tuple[*_Key], tuple[_Content, _Answer]] = {}

    def answer(content: _Content, *key: *_Key) -> _Answer:
        kept = last.get(key)
        if kept and (kept[0] is content or kept[0] == content):
            return kept[1]
        made = function(content, *key)
        if len(last) >= _MOST_KEPT:
            last.clear()
        last[key] = content, made
        return made

    return answer


def read_fact(
    host: Host,
    where: str,
    parse: Callable[[str], float | None],
    *,
    resource: Resource,
    role: Role,
    source: str,
    lines: tuple[str, ...] = (),
) -> FactOrGap | None:
    """The fact in a file; a gap if it cannot be read or parsed; None if it is missing.

    With ``lines``, only one line is parsed: the first one that begins with the first of
    these texts; without such a line, with the second text, and so on.

    A missing file tells nothing about its own level or any other: the v2 root has no
    cpu.max, and a leaf may lack the controller.
    """
    text = read_text(host, where, resource, source)
    if not isinstance(text, str):
        return text
    return parse_fact(
        text, where, parse, resource=resource, role=role, source=source, lines=lines
    )


def read_text(
    host: Host, where: str, resource: Resource, source: str
) -> str | Gap | None:
    """The text of a file; a gap if it cannot be read; None if it is missing."""
    try:
        return host.read(where)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return gap(error, resource=resource, source=source, where=where)


def parse_fact(
    text: str,
    where: str,
    parse: Callable[[str], float | None],
    *,
    resource: Resource,
    role: Role,
    source: str,
    lines: tuple[str, ...] = (),
) -> FactOrGap:
    """The fact in a text that was read before; a gap if it cannot be parsed.

    The arguments are those of `read_fact`.
    """
    try:
        raw = pick_line(text, *lines) if lines else text
        return _fact(raw, where, parse, (resource, role, source))
    except ParseError as error:
        return gap(error, resource=resource, source=source, where=where)


@keep_last
def _fact(
    raw: str,
    where: str,
    parse: Callable[[str], float | None],
    labels: tuple[Resource, Role, str],
) -> Fact:
    """The fact in the text of a file, or of one of its lines."""
    resource, role, source = labels
    return Fact(
        resource=resource,
        amount=parse(raw),
        role=role,
        source=source,
        where=where,
        raw=raw.strip(),
    )


def gap(
    error: OSError | ParseError,
    *,
    resource: Resource,
    source: str,
    where: str,
    reason: str = "",
) -> Gap:
    """The gap that an error leaves; without a reason, with the error's own."""
    return Gap(
        code=error.code if isinstance(error, ParseError) else "unreadable",
        resource=resource,
        source=source,
        where=where,
        reason=reason or explain(error),
    )


def not_told(resource: Resource, source: str, where: str = "the platform") -> Gap:
    """The gap where the platform, or a recording, has no answer."""
    return Gap(
        code="not-told",
        resource=resource,
        source=source,
        where=where,
        reason="this platform or recording does not tell",
    )


def explain(error: OSError | ParseError) -> str:
    """Why a source has no answer, for a gap."""
    if isinstance(error, ParseError):
        return str(error)
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name}: {error.strerror or error}"
