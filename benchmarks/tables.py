"""Tables as Markdown, kept in pages of the documentation."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).parents[1] / "docs"


def machine(*distributions: str) -> str:
    """What was measured on, and the versions of what was measured."""
    return ", ".join(
        [
            f"Python {platform.python_version()}",
            f"Linux {platform.release()}",
            f"{len(os.sched_getaffinity(0))} CPUs",
            *(f"{name} {_version(name)}" for name in distributions),
        ]
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "is missing"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a table."""
    heads = list(head)
    every = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(row)} |" for row in every]


def keep(page: str, section: str, lines: Iterable[str]) -> None:
    """Write lines between the marks of a section of a page."""
    path = DOCS / page
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    text = "\n".join(lines)
    path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
