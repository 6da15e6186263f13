"""The values that travel between the stages: immutable, compared by content.

They are not dataclasses, because importing ``dataclasses`` alone takes most of the time
that ``from coresize import available_cores`` may take; type checkers see them as such
all the same (docs/decisions/0001-values-without-dataclasses.md).
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, NoReturn, Self, TypeAlias, dataclass_transform

    from typing_extensions import override as override  # noqa: PLC0414 - for others

    #: ``cpu`` is counted in cores, ``gpu`` in devices, ``workers`` in processes that
    #: one pool can have, ``processes`` in processes and threads, ``files`` in open
    #: files, and the rest in bytes: ``memory`` of all processes together;
    #: ``address_space`` and ``data`` of one process, by its rlimits;
    #: ``process_memory``, which this process alone can still take below those.
    Resource: TypeAlias = Literal[
        "cpu",
        "memory",
        "address_space",
        "data",
        "process_memory",
        "gpu",
        "workers",
        "processes",
        "files",
    ]

    #: Where the kernel's count of out-of-memory kills rose: in the cgroup of the
    #: process ("yes"), only on the whole machine ("probably"), nowhere ("no").
    OutOfMemory: TypeAlias = Literal["yes", "probably", "no"]

    #: capacity: what the machine has. limit: takes part in the minimum. cap: a bound
    #: set by a user or a scheduler; takes part in the minimum too. override: replaces
    #: the detected amount. soft: a process above it is throttled, not killed.
    #: used: what a cgroup uses now. reclaimable: the part of it that is cache, which
    #: the kernel gives up before it kills a process. available, soft_available: what is
    #: left now below a limit, or a soft limit: the limit less what is used and is not
    #: reclaimable. unenforced: a limit that is set, but that the kernel does not
    #: enforce.
    Role: TypeAlias = Literal[
        "capacity",
        "limit",
        "cap",
        "override",
        "soft",
        "used",
        "reclaimable",
        "available",
        "soft_available",
        "unenforced",
    ]
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201, D103
        return lambda cls: cls

    def override(method):  # noqa: ANN001, ANN201, D103
        return method


#: The version of coresize.
VERSION = "0.1.0.dev0"

#: Sources that get special treatment when facts are combined: the affinity mask, the
#: share of one rank (the part before the colon), and the CFS quota by cgroup version.
AFFINITY = "affinity"
RANK_SHARE = "ranks"
CFS_QUOTA = {1: "cgroup1:cpu.cfs_quota_us", 2: "cgroup2:cpu.max"}


class _Slotted(type):
    """A metaclass that gives a class one slot per annotation."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
    ) -> _Slotted:
        namespace["__slots__"] = tuple(namespace.get("__annotations__", ()))
        return super().__new__(cls, name, bases, namespace)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value(metaclass=_Slotted):
    """An immutable record; its fields are its annotations, passed by keyword."""

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
        """The fields by name, in the order of their declaration."""
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
        resource: the resource.
        amount: cores (float) or bytes (int); None when this source sets no limit.
        role: what the amount means when facts are combined.
        source: the kind of source, such as ``cgroup2:cpu.max``.
        where: the file, variable or call that was read.
        raw: the exact text that was read there.
    """

    resource: Resource
    amount: float | None
    role: Role
    source: str
    where: str
    raw: str

    if not TYPE_CHECKING:
        # The loop of Value.__init__, unrolled: every call of available_cores() makes
        # several facts, and the loop takes nearly twice as long.
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
        code: the kind of reason: stable, while the wording of the reason changes.
            docs/reference/codes.md lists all codes.
        resource: the resource that the source describes.
        source: the kind of source.
        where: the file, variable or call that was tried.
        reason: why the source gave no answer.
    """

    code: str
    resource: Resource
    source: str
    where: str
    reason: str


class Notice(str):
    """A sentence about a problem that the user should look at, with a stable code.

    Attributes:
        code: the kind of problem: stable, while the wording of the sentence changes.
            docs/reference/codes.md lists all codes.

    >>> notice = Notice("unknown-variable", "CORESIZE_WORKER has no effect")
    >>> notice.code, f"warning: {notice}"
    ('unknown-variable', 'warning: CORESIZE_WORKER has no effect')
    """

    __slots__ = ("code",)

    code: str

    def __new__(cls, code: str, text: str) -> Self:
        """Make a notice from its code and its sentence."""
        notice = super().__new__(cls, text)
        notice.code = code
        return notice

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """The arguments of `__new__`, for copies and pickles."""
        return self.code, str(self)


class CpuLimits(Value):
    """How many cores this process may use.

    Attributes:
        limit: cores, fractional where a quota is fractional; None when unknown.
        quota: the tightest CFS quota of the visible cgroups, in cores; None without
            a quota.
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
        limit: the tightest hard limit, cap or override; None when the machine's
            memory is the only bound.
        soft_limit: the tightest memory.high, which throttles and never kills.
        available: what the process can use now without reaching a hard limit.
        available_together: what the process and its workers can use now together:
            ``available`` without the limits of a single process, such as RLIMIT_AS.
        soft_available: what the process can use now without reaching a memory.high.
        total: the memory of the machine, or of the memory nodes that the process may
            use.
        binding: the fact that bounds the memory: a limit, or the machine's total.
    """

    limit: int | None
    soft_limit: int | None
    available: int | None
    available_together: int | None
    soft_available: int | None
    total: int | None
    binding: Fact | None


class Limits(Value):
    """What this process may use, which sources say so, and which could not be read.

    Attributes:
        cpu: the cores.
        memory: the memory.
        facts: everything that the sources said, in the order of reading.
        gaps: the sources that could not be read or understood.
        warnings: sentences about problems that the user should look at.
    """

    cpu: CpuLimits
    memory: MemoryLimits
    facts: tuple[Fact, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[Notice, ...]

    @property
    def overrides(self) -> tuple[Fact, ...]:
        """The overrides in force: the facts that replaced detected amounts."""
        return tuple(fact for fact in self.facts if fact.role == "override")
