"""What is examined: the machine as one process sees it, asked once."""

from __future__ import annotations

from coresize import available
from coresize.host import current
from coresize.model import Value
from coresize.settings import load_settings


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.host import Host
    from coresize.model import Limits
    from coresize.settings import Settings


class Patient(Value):
    """What the checks look at.

    Attributes:
        host: the machine.
        limits: what may be used of it.
        cores: whole cores that may be used.
        settings: what the user decided.
        main: the program whose start is looked at, a path; None for this one.
        modules: what was imported before any check, in that order.
        seconds: how long counters are watched.
    """

    __slots__ = (  # noqa: RUF023
        "host",
        "limits",
        "cores",
        "settings",
        "main",
        "modules",
        "seconds",
    )

    host: Host
    limits: Limits
    cores: int
    settings: Settings
    main: str | None
    modules: tuple[str, ...]
    seconds: float

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


def admit(main: str | None, modules: tuple[str, ...], seconds: float) -> Patient:
    """This machine, asked now."""
    host = current()
    return Patient(
        host=host,
        limits=available.detect(host),
        cores=available.available_cores(),
        settings=load_settings(host=host),
        main=main,
        modules=modules,
        seconds=seconds,
    )
