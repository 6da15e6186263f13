"""What is examined: the machine as one process sees it, asked once."""

from __future__ import annotations

from coresize.detection import available
from coresize.detection.limits import memory_left, whole_cores
from coresize.diagnosis.findings import Skipped
from coresize.host import current
from coresize.model import Value
from coresize.planning.settings import load_settings
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.host import Host
    from coresize.model import Fact, Limits
    from coresize.planning.settings import Settings


class Context(Value):
    """What the checks look at.

    Attributes:
        host: the machine.
        limits: what may be used of it.
        cores: whole cores that may be used.
        settings: what the user decided.
        main: the program whose start is looked at: the path of a file or the name of a
            module, and its arguments; empty for this one.
        modules: what was imported before any check, in that order.
        seconds: how long counters are watched.
    """

    host: Host
    limits: Limits
    cores: int
    settings: Settings
    main: tuple[str, ...]
    modules: tuple[str, ...]
    seconds: float

    @property
    def there(self) -> Fact | None:
        """The tightest of what the machine allows: no override, no cap."""
        told = [
            fact
            for fact in self.limits.facts
            if fact.resource == "cpu"
            and fact.role in ("limit", "capacity")
            and fact.amount
        ]
        return min(told, key=lambda fact: fact.amount or 0.0, default=None)

    @property
    def cores_there(self) -> float:
        """The cores of that; 0 where nobody tells."""
        return (self.there and self.there.amount) or 0.0

    @property
    def real_cores(self) -> int:
        """Whole cores that may be used and are there, whatever an override says."""
        there = self.cores_there
        return min(self.cores, whole_cores(there)) if there else self.cores

    def require(self, memory: int) -> None:
        """Let nothing be killed for a check.

        Raises:
            Skipped: so many bytes are not left.
        """
        left = memory_left(self.limits.memory)
        if left is not None and memory > left:
            reason = (
                f"it takes {format_bytes(memory)} of memory, and {format_bytes(left)} "
                "are left"
            )
            raise Skipped(reason)

    def variable(self, *names: str) -> dict[str, str]:
        """Those of the environment's variables that are set."""
        found = self.host.variables(frozenset(names))
        return {name: found[name] for name in names if name in found}

    def read(self, path: str) -> str:
        """A file of the machine; empty where it cannot be read."""
        try:
            return self.host.read(path)
        except OSError:
            return ""


def collect(main: tuple[str, ...], modules: tuple[str, ...], seconds: float) -> Context:
    """This machine, asked now."""
    host = current()
    return Context(
        host=host,
        limits=available.detect(host),
        cores=available.available_cores(),
        settings=load_settings(host=host),
        main=main,
        modules=modules,
        seconds=seconds,
    )
