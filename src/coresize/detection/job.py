"""One job of a scheduler: its limits on this host, from variables and their files."""

from __future__ import annotations

from coresize import units
from coresize.detection.reading import explain, gap
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource


class SchedulerJob:
    """A job as its scheduler's variables describe it.

    Attributes:
        scheduler: the name of the scheduler.
        host: the machine, for the files that variables name.
        resource: the resource to find limits for.
        env: the variables of the scheduler.
    """

    def __init__(
        self, scheduler: str, host: Host, resource: Resource, env: dict[str, str]
    ) -> None:
        self.scheduler = scheduler
        self.host = host
        self.resource = resource
        self.env = env

    def ask(self, name: str, parser: Callable[[str], float | None]) -> FactOrGap | None:
        """The fact or gap from a variable; None if it is not set or sets no limit."""
        if name not in self.env:
            return None
        raw = self.env[name]
        try:
            amount = parser(raw)
        except ParseError as error:
            return self.gap(name, str(error), error.code)
        return self.fact(name, amount, name, raw) if amount is not None else None

    def ask_file(
        self, name: str, parser: Callable[[str], float | None]
    ) -> FactOrGap | None:
        """The fact or gap from the file that a variable names.

        None if the variable is not set, or if the file sets no limit.
        """
        if name not in self.env:
            return None
        where = self.env[name]
        try:
            text = self.host.read(where)
            amount = parser(text)
        except (OSError, ParseError) as error:
            return gap(
                error,
                resource=self.resource,
                source=self._source(name),
                where=name,
                reason=f"{where}: {explain(error)}",
            )
        if amount is None:
            return None
        return self.fact(name, amount, where, text.strip())

    def own(self, parser: Callable[[str], dict[str, int]]) -> Callable[[str], float]:
        """Turn a parser for the slots of all hosts into one for those of this host."""

        def own_slots(text: str) -> float:
            return float(slots_here(parser(text), self.host.hostname()))

        return own_slots

    def prefer(
        self, own: FactOrGap | None, *general: FactOrGap | None
    ) -> Iterator[FactOrGap]:
        """Yield what the scheduler says of this host, else what it says in general.

        A general variable that contradicts this host's number is a gap.
        """
        if not isinstance(own, Fact):
            yield from first(own, *general)
            return
        yield own
        for other in general:
            if isinstance(other, Fact) and other.amount != own.amount:
                said = f"{own.source.partition(':')[2]} gives this host {own.amount:g}"
                reason = f"it says {other.raw}, but {said}"
                yield self.gap(other.where, reason, "contradicted")

    def fact(self, name: str, amount: float | None, where: str, raw: str) -> Fact:
        """A cap that this scheduler sets."""
        return Fact(
            resource=self.resource,
            amount=amount,
            role="cap",
            source=self._source(name),
            where=where,
            raw=raw,
        )

    def _source(self, name: str) -> str:
        return f"{self.scheduler}:{name}"

    def gap(self, name: str, reason: str, code: str) -> Gap:
        """A gap: a variable of this scheduler that cannot be used."""
        return Gap(
            code=code,
            resource=self.resource,
            source=self._source(name),
            where=name,
            reason=reason,
        )


class NotListedError(ParseError):
    """A list of hosts does not name this host, or names several like it."""

    code = "host-not-listed"


def count(text: str) -> float:
    """A number of cores or tasks, above 0."""
    return float(units.positive(text))


def mebibytes(text: str) -> int:
    """Bytes in a number of mebibytes, above 0."""
    return units.positive(text) * 1024**2


def first(*answers: FactOrGap | None) -> Iterator[FactOrGap]:
    """Yield the answers up to the first fact, with it; later answers are fallbacks."""
    for answer in answers:
        if answer:
            yield answer
        if isinstance(answer, Fact):
            return


def slots_here(slots: dict[str, int], hostname: str | None) -> int:
    """The slots of this host; one of two equal names may be short, the other qualified.

    Raises:
        NotListedError: no host in the list matches this host, or several do.
    """
    if hostname is None and len(slots) == 1:
        return next(iter(slots.values()))
    own = (hostname or "").lower()
    mine = [name for name in slots if _same_host(name.lower(), own)]
    if len({name.lower() for name in mine}) == 1:
        return sum(slots[name] for name in mine)
    what = "is more than one of those listed" if mine else "is not listed"
    msg = f"this host ({hostname or 'name unknown'}) {what}"
    raise NotListedError(msg)


def _same_host(one: str, other: str) -> bool:
    if "." in one and "." in other:
        return one == other
    return one.partition(".")[0] == other.partition(".")[0]
