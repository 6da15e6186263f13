"""The findings of a diagnosis, as values, text, JSON. Pure."""

from __future__ import annotations

import json
import textwrap

from coresize.model import Value
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    #: error: work is lost, or many times too slow. warning: a high cost, now or later.
    #: note: worth knowing.
    Severity: TypeAlias = Literal["error", "warning", "note"]


SEVERITIES = ("error", "warning", "note")
_WIDTH = 80


class Finding(Value):
    """One finding.

    Attributes:
        severity: "error", "warning" or "note".
        code: the kind of finding: stable, while the wording of the other texts changes.
            docs/reference/codes.md lists all codes.
        check: the check that has made the finding.
        title: the finding in a few words.
        seen: the evidence, such as numbers.
        where: the files, variables or calls that the evidence was read from.
        why: why the finding matters.
        advice: one thing to do.
    """

    severity: Severity
    code: str
    check: str
    title: str
    seen: str
    where: str
    why: str
    advice: str


class Diagnosis(Value):
    """The result of a diagnosis.

    Attributes:
        findings: the findings, the most severe first.
        checks: the checks that were made.
        skipped: the checks that could not be made, each with the reason.
        seconds: the duration of the diagnosis.
    """

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    seconds: float

    def has(self, severity: str) -> bool:
        """Whether any finding is at least that severe.

        >>> Diagnosis(findings=(), checks=(), skipped=(), seconds=0.0).has("note")
        False
        """
        serious = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(finding.severity in serious for finding in self.findings)

    def as_json(self) -> str:
        """The diagnosis as JSON, for programs."""
        return json.dumps(
            {
                "findings": [finding.as_dict() for finding in self.findings],
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
            if (number := sum(f.severity == severity for f in self.findings))
        ]
        total = ", ".join(counts) or "nothing found"
        head = f"{total} in {len(self.checks)} checks ({self.seconds:.1f} s)"
        lines = [head, *_summary(self.findings)]
        for finding in self.findings:
            lines += ["", *_details(finding)]
        if self.skipped:
            lines += [
                "",
                *(f"not checked: {name}: {why}" for name, why in self.skipped),
            ]
        return "\n".join(lines)


#: The most lines of the summary: a screen has 24.
_MOST = 18


def order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings, the most severe first; equal ones keep their order."""
    return tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))


def _summary(findings: Sequence[Finding]) -> list[str]:
    lines = [f"{f.severity:>8}  {f.title}" for f in findings[:_MOST]]
    if len(findings) > _MOST:
        lines.append(f"{'':>8}  and {len(findings) - _MOST} more")
    return lines


def _details(finding: Finding) -> list[str]:
    return [
        f"{finding.severity.upper()}  {finding.title}",
        *_part("seen", finding.seen),
        *_part("where", finding.where),
        *_part("why", finding.why),
        *_part("do", finding.advice),
        *_part("code", finding.code),
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


class Skipped(Exception):  # noqa: N818 - not an error
    """The check cannot be made; the text is the reason."""
