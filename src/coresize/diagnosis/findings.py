"""What a diagnosis has found, as values, text, JSON. Pure."""

from __future__ import annotations

import json
import textwrap

from coresize.model import Value
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    #: error: work is lost, or many times too slow. warning: it costs much, or will.
    #: note: worth to know.
    Severity: TypeAlias = Literal["error", "warning", "note"]


SEVERITIES = ("error", "warning", "note")
_WIDTH = 80


class Finding(Value):
    """One thing that was found.

    Attributes:
        severity: "error", "warning" or "note".
        check: which check has found it.
        title: what it is, in a few words.
        seen: the numbers.
        where: the files, variables or calls that they were read from.
        why: why that matters.
        advice: one thing to do.
    """

    severity: Severity
    check: str
    title: str
    seen: str
    where: str
    why: str
    advice: str


class Diagnosis(Value):
    """All that was found, the most severe first.

    Attributes:
        findings: what was found.
        checks: the checks that were made.
        skipped: those that could not be, each with the reason.
        seconds: that it took.
    """

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    seconds: float

    def has(self, severity: str) -> bool:
        """Whether anything is at least that severe.

        >>> Diagnosis(findings=(), checks=(), skipped=(), seconds=0.0).has("note")
        False
        """
        serious = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(one.severity in serious for one in self.findings)

    def as_json(self) -> str:
        """All of it as JSON, for programs."""
        return json.dumps(
            {
                "findings": [one.as_dict() for one in self.findings],
                "checks": list(self.checks),
                "skipped": [dict(zip(("check", "why"), s)) for s in self.skipped],  # noqa: B905 - pairs
                "seconds": self.seconds,
            },
            indent=2,
        )

    def __str__(self) -> str:
        counts = [
            format_count(number, severity)
            for severity in SEVERITIES
            if (number := sum(one.severity == severity for one in self.findings))
        ]
        said = ", ".join(counts) or "nothing found"
        head = f"{said} in {len(self.checks)} checks ({self.seconds:.1f} s)"
        lines = [head, *_summary(self.findings)]
        for one in self.findings:
            lines += ["", *_details(one)]
        if self.skipped:
            lines += [
                "",
                *(f"not checked: {name}: {why}" for name, why in self.skipped),
            ]
        return "\n".join(lines)


#: Lines of the summary: a screen has 24.
_MOST = 18


def order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The most severe first; of equals, as they were found."""
    return tuple(sorted(findings, key=lambda one: SEVERITIES.index(one.severity)))


def _summary(findings: Sequence[Finding]) -> list[str]:
    lines = [f"{one.severity:>8}  {one.title}" for one in findings[:_MOST]]
    if len(findings) > _MOST:
        lines.append(f"{'':>8}  and {len(findings) - _MOST} more")
    return lines


def _details(one: Finding) -> list[str]:
    return [
        f"{one.severity.upper()}  {one.title}",
        *_part("seen", one.seen),
        *_part("where", one.where),
        *_part("why", one.why),
        *_part("do", one.advice),
    ]


def _part(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {name:<5}  ",
        subsequent_indent=" " * 9,
        break_on_hyphens=False,
        break_long_words=False,
    )


# -----------------------------------------------------------------------------
# A check that cannot be made here.


class Skipped(Exception):  # noqa: N818 - it is no error
    """It cannot be made, with the reason."""
