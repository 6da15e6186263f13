"""One file, one question: the meeting point of reading and parsing."""

from __future__ import annotations

import errno

from coresize.detection.parse import line as pick_line
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from coresize.host import Host
    from coresize.model import Resource, Role

    Finding: TypeAlias = Fact | Gap


def read_fact(
    host: Host,
    where: str,
    parse: Callable[[str], float | None],
    *,
    resource: Resource,
    role: Role,
    source: str,
    lines: tuple[str, ...] = (),
) -> Finding | None:
    """What a file says, a gap where it cannot be read or understood, None for no file.

    Of a file of many lines the one that begins as the first of ``lines`` does is
    parsed, or as the second where there is none, and so on.

    A file that does not exist says nothing, about its own level or any other: the v2
    root has no cpu.max, and a leaf may lack the controller.
    """
    try:
        text = host.read(where)
        raw = pick_line(text, *lines) if lines else text
        amount = parse(raw)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ParseError) as error:
        return Gap(
            resource=resource,
            source=source,
            where=where,
            reason=explain(error),
        )
    return Fact(
        resource=resource,
        amount=amount,
        role=role,
        source=source,
        where=where,
        raw=raw.strip(),
    )


def explain(error: OSError | ParseError) -> str:
    """Why a source has no answer, for a gap."""
    if isinstance(error, ParseError):
        return str(error)
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name}: {error.strerror or error}"
