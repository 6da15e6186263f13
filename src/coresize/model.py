"""The values that travel between the stages: immutable, compared by content.

They are not dataclasses, because importing ``dataclasses`` alone takes most of the time
that ``from coresize import available_cores`` may take; type checkers see them as such
all the same (docs/decisions/0001-values-without-dataclasses.md).
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, NoReturn, TypeAlias, dataclass_transform

    #: ``cpu`` is counted in cores, ``memory`` and ``address_space`` in bytes, ``gpu``
    #: in devices, ``workers`` in processes that one pool can have.
    Resource: TypeAlias = Literal["cpu", "memory", "address_space", "gpu", "workers"]

    #: The kernel's count of kills for memory moved in the cgroup of a process, moved on
    #: the whole machine, did not move.
    OutOfMemory: TypeAlias = Literal["yes", "probably", "no"]

    #: capacity: what the machine has. limit: joins the minimum. cap: a bound set by a
    #: user or a scheduler, joins the minimum too. override: replaces what was detected.
    #: soft: crossing it throttles, nothing is killed. available, soft_available: what
    #: is left now below a limit, or below a soft limit.
    Role: TypeAlias = Literal[
        "capacity", "limit", "cap", "override", "soft", "available", "soft_available"
    ]
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201, D103
        return lambda cls: cls


#: Of coresize.
VERSION = "0.1.0.dev0"

#: The sources that are told apart when facts are combined: the affinity mask, and the
#: CFS quota by version of cgroups.
AFFINITY = "affinity"
CFS_QUOTA = {1: "cgroup1:cpu.cfs_quota_us", 2: "cgroup2:cpu.max"}


class _Slotted(type):
    """Gives a class a slot for each of its annotations."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
    ) -> _Slotted:
        namespace["__slots__"] = tuple(namespace.get("__annotations__", ()))
        return super().__new__(cls, name, bases, namespace)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value(metaclass=_Slotted):
    """An immutable record whose fields are its annotations, given by keyword."""

    if TYPE_CHECKING:
        __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: object) -> None:
        set_field = object.__setattr__
        for name, value in fields.items():
            set_field(self, name, value)
        if len(fields) != len(self.__slots__):
            missing = ", ".join(name for name in self.__slots__ if name not in fields)
            msg = f"{type(self).__name__}() needs {missing}"
            raise TypeError(msg)

    def as_dict(self) -> dict[str, object]:
        """The fields by name, in the order they are declared."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = f"{type(self).__name__} is immutable: {name!r} cannot be set"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> NoReturn:
        msg = f"{type(self).__name__} is immutable: {name!r} cannot be deleted"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(self) is not type(other):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((type(self), *self.as_dict().values()))

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={value!r}" for name, value in self.as_dict().items()
        )
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Callable[..., Value], tuple[type, dict[str, object]]]:
        return _rebuild, (type(self), self.as_dict())


def _rebuild(cls: type, fields: dict[str, object]) -> Value:
    value: Value = cls(**fields)
    return value


class Fact(Value):
    """What one source says about one resource.

    Attributes:
        resource: which resource.
        amount: cores (float) or bytes (int); None when this source sets no limit.
        role: what the amount means when facts are combined.
        source: which kind of source, such as ``cgroup2:cpu.max``.
        where: the file, variable or call that was asked.
        raw: the exact text that was found there.
    """

    resource: Resource
    amount: float | None
    role: Role
    source: str
    where: str
    raw: str

    if not TYPE_CHECKING:
        # What Value.__init__ does, written out: several facts are made at every call
        # of available_cores(), and the loop takes nearly twice as long.
        def __init__(self, *, resource, amount, role, source, where, raw):  # noqa: ANN001, ANN204
            set_field = object.__setattr__
            set_field(self, "resource", resource)
            set_field(self, "amount", amount)
            set_field(self, "role", role)
            set_field(self, "source", source)
            set_field(self, "where", where)
            set_field(self, "raw", raw)


class Gap(Value):
    """A source that could not be read or understood.

    Attributes:
        resource: which resource it would have told about.
        source: which kind of source.
        where: the file, variable or call that was asked.
        reason: why there is no answer.
    """

    resource: Resource
    source: str
    where: str
    reason: str


class CpuLimits(Value):
    """How many cores this process may use.

    Attributes:
        limit: cores, a fraction where a quota is one; None when nothing is known.
        quota: the tightest CFS quota of the visible cgroups in cores; None for none.
        affinity: the number of CPUs this process may run on; None when unknown.
        capacity: the number of CPUs online; None when unknown.
        binding: the fact that ``limit`` comes from.
    """

    limit: float | None
    quota: float | None
    affinity: int | None
    capacity: int | None
    binding: Fact | None


class MemoryLimits(Value):
    """How much memory this process may use, in bytes.

    Attributes:
        limit: the tightest hard limit, cap or override; None when only the machine
            sets one.
        soft_limit: the tightest memory.high, which throttles and never kills.
        available: what can be used now without reaching a hard limit.
        soft_available: what can be used now without reaching a memory.high.
        total: the memory of the machine.
        binding: the fact that bounds the memory: a limit, or the machine's total.
    """

    limit: int | None
    soft_limit: int | None
    available: int | None
    soft_available: int | None
    total: int | None
    binding: Fact | None


class Limits(Value):
    """What this process may use, who says so, and what could not be read.

    Attributes:
        cpu: the cores.
        memory: the memory.
        facts: everything that was found, in the order it was asked.
        gaps: everything that could not be read or understood.
        warnings: sentences about what a person should look at.
    """

    cpu: CpuLimits
    memory: MemoryLimits
    facts: tuple[Fact, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]

    @property
    def overrides(self) -> tuple[Fact, ...]:
        """The overrides in force: what replaced detection."""
        return tuple(fact for fact in self.facts if fact.role == "override")
