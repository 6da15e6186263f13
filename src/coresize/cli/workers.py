"""The sub-command ``workers``: the number of workers, and its reason."""

from __future__ import annotations

import json

from coresize.cli import options as given
from coresize.cli import report, streams
from coresize.detection import available


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands


def add_workers(commands: Commands, of_plan: argparse.ArgumentParser) -> None:
    """Add the sub-command ``workers``."""
    text = "print a safe number of workers: pytest -n $(coresize workers)"
    command = commands.add_parser("workers", parents=[of_plan], help=text)
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--explain", action="store_true", help="explain the number")
    shape.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_workers)


def _workers(options: argparse.Namespace) -> str:
    machine = given.host(options)
    settings = given.settings_of(options, machine)
    limits = available.detect(machine)
    plan = given.plan_of(options, limits, settings)
    if options.json:
        answer = {**plan.as_dict(), "settings": settings.rows()}
        return json.dumps(answer, indent=2)
    if options.explain:
        return report.plan_as_text(plan, limits, settings.rows())
    for warning in plan.warnings:
        streams.complain(f"coresize: warning: {warning}")
    return str(plan)
