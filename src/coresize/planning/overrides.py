"""What the user has overridden, put into words: the log is all that some users have.

One sentence for each variable that replaces, lowers or fixes something, or has no
effect: what it says, and what was detected or goes before it.
"""

from __future__ import annotations

from coresize.detection import environ, limits
from coresize.planning.exports import SET, of_user
from coresize.planning.settings import VARIABLES
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from coresize.model import Fact, Limits, Resource
    from coresize.planning.settings import Settings

    #: A variable, its value, and what that does.
    Override: TypeAlias = tuple[str, str, str]

#: The variables that the sentences are about.
NAMES = frozenset({*environ.NAMES, *VARIABLES.values(), SET})


def notes(
    found: Limits, settings: Settings, present: Mapping[str, str]
) -> Iterator[tuple[Override, str]]:
    """Yield a sentence about each variable of the user that overrides something.

    With each comes what it is about, which stays the same when numbers in the sentence
    change, such as those of the available memory.

    Args:
        found: the limits that were found.
        settings: the settings of the user.
        present: the variables of `NAMES` that are set. Those that ``coresize run`` or a
            pool has set are not the user's.
    """
    users = of_user(present)
    for resource in ("cpu", "memory"):
        facts = [fact for fact in found.facts if fact.resource == resource]
        for fact in facts:
            if fact.where in users and fact.source.startswith("env:"):
                yield from _of_fact(fact, facts, resource)
        yield from _replaced(facts, users, resource)
    for name, variable in VARIABLES.items():
        if variable in users:
            has_effect = settings.origins[name] == variable
            about = variable, users[variable], "sets" if has_effect else _NO_EFFECT
            yield (
                about,
                f"{variable}={users[variable]} {_effect(name, variable, settings)}",
            )


_NO_EFFECT = "has no effect"


def _of_fact(
    fact: Fact, facts: Sequence[Fact], resource: Resource
) -> Iterator[tuple[Override, str]]:
    """What an override replaces, or what a cap lowers."""
    if fact.role not in ("override", "cap") or fact.amount is None:
        return
    # The share of a job is a cap, too, but no wish of the user's.
    counted = _DETECTED if fact.role == "override" else (*_DETECTED, "override")
    others = [
        one
        for one in facts
        if one.role in counted
        or (one.role == fact.role == "cap" and not one.source.startswith("env:"))
    ]
    bound = _bound([one for one in others if one is not fact], resource)
    effect, why = "is in force", ": nothing was detected"
    if bound is not None and bound.amount is not None:
        what = f"{_shown(bound.amount, resource)} ({_place(bound)})"
        effect, why = _NO_EFFECT, f": it is not below {what}"
        if fact.role == "override":
            effect, why = "replaces", f" the detected {what}"
        elif fact.amount < bound.amount:
            effect, why = "lowers", f" {what}"
    yield (fact.where, fact.raw, effect), f"{fact.where}={fact.raw} {effect}{why}"


#: The roles of facts that were detected, and are no wish of the user's.
_DETECTED = ("capacity", "limit")


def _bound(facts: Sequence[Fact], resource: Resource) -> Fact | None:
    """The fact that would bind if there were only these."""
    if resource == "cpu":
        return limits.combine_cpu(facts).binding
    return limits.combine_memory(facts).binding


def _replaced(
    facts: Sequence[Fact], users: Mapping[str, str], resource: Resource
) -> Iterator[tuple[Override, str]]:
    """The overrides that a stronger one makes ineffective."""
    active = [fact for fact in facts if fact.role == "override"]
    if not active:
        return
    names = [name for name, of in environ.OVERRIDES.items() if of == resource]
    for name in names[names.index(active[0].where) + 1 :]:
        text = users.get(name, "default")
        if text != "default":  # how CPython spells "not set"
            why = f"{active[0].where} goes before it"
            yield (name, text, _NO_EFFECT), f"{name}={text} {_NO_EFFECT}: {why}"


def _place(fact: Fact) -> str:
    """Where a number comes from: its source, and the file unless it is the same."""
    if fact.source.startswith("env:"):
        return f"{fact.where}={fact.raw}"
    return f"{fact.source}, {fact.where}"


def _shown(amount: float, resource: Resource) -> str:
    if resource == "memory":
        return format_bytes(amount)
    return "1 CPU" if amount == 1 else f"{amount:g} CPUs"


def _effect(name: str, variable: str, settings: Settings) -> str:
    """What the variable of a setting does."""
    value, origin = getattr(settings, name), settings.origins[name]
    if origin != variable:
        return f"{_NO_EFFECT}: {name} = {str(value).lower()} ({origin}) goes before it"
    if name == "parallel" and not value:
        return "turns parallelism off: all tasks run in one worker"
    if name == "workers" and not settings.parallel:
        return f"{_NO_EFFECT}: parallelism is off"
    if name == "workers":
        return "replaces the planned number of workers"
    if name == "reserve_cores" and value:
        return f"keeps {format_count(value, 'core')} free"
    return f"sets {name} = {str(value).lower()}"
