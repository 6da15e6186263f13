"""The subject of a diagnosis: the machine as this process sees it, read once."""

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
    """The input of the checks.

    Attributes:
        host: the machine.
        limits: what this process may use.
        cores: whole cores that this process may use.
        settings: the settings of the user.
        main: the program to check: the path of a file or the name of a module, and its
            arguments; empty for this program.
        modules: the modules imported before any check, in order of import.
        seconds: the time to watch counters.
    """

    host: Host
    limits: Limits
    cores: int
    settings: Settings
    main: tuple[str, ...]
    modules: tuple[str, ...]
    seconds: float

    @property
    def tightest(self) -> Fact | None:
        """The tightest limit of the machine on cores, without overrides and caps."""
        facts = [
            fact
            for fact in self.limits.facts
            if fact.resource == "cpu"
            and fact.role in ("limit", "capacity")
            and fact.amount
        ]
        return min(facts, key=lambda fact: fact.amount or 0.0, default=None)

    @property
    def machine_cores(self) -> float:
        """The cores of the tightest limit of the machine; 0 if unknown."""
        return (self.tightest and self.tightest.amount) or 0.0

    @property
    def real_cores(self) -> int:
        """Whole cores that this process may use and that the machine really allows."""
        allowed = self.machine_cores
        return min(self.cores, whole_cores(allowed)) if allowed else self.cores

    def require(self, memory: int) -> None:
        """Check that a check has enough memory, so that nothing is killed for it.

        Raises:
            Skipped: fewer bytes are left.
        """
        left = memory_left(self.limits.memory)
        if left is not None and memory > left:
            reason = (
                f"it takes {format_bytes(memory)} of memory, and {format_bytes(left)} "
                "are left"
            )
            raise Skipped(reason)

    def variable(self, *names: str) -> dict[str, str]:
        """The named environment variables that are set, in the order of the names."""
        present = self.host.variables(frozenset(names))
        return {name: present[name] for name in names if name in present}

    def read(self, path: str) -> str:
        """The text of a file; empty if the file cannot be read."""
        try:
            return self.host.read(path)
        except OSError:
            return ""


def collect(main: tuple[str, ...], modules: tuple[str, ...], seconds: float) -> Context:
    """Read this machine for a diagnosis."""
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
