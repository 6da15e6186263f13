"""Which batch of a program CORESIZE_SHARD and CORESIZE_STATUS are for.

Whoever sets them, as ``coresize shards`` does, means one batch: that of the program
that is started. But a program may run several, its tasks may run batches of their own,
and what it starts inherits its environment. A batch that is sharded by mistake leaves
the items of all other shards out, and nobody hears of it. So:

1. A task takes nothing from them, whatever executor runs it, nor does `parallel_map`.
2. The first other batch of a program claims them. What the program starts after that
   inherits CORESIZE_CLAIMED as well, and so knows that they are not for it.
3. A second batch is refused, unless its shard is named, or it goes on with the journal
   of the first.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from coresize import processes
from coresize.batch.shards import AUTO, Shard, find_shard
from coresize.errors import ConfigError
from coresize.host import CLAIMED, SHARD, STATUS, Live, current
from coresize.processes import nesting


if TYPE_CHECKING:
    from coresize.batch.options import Options
    from coresize.host import Host

_log = logging.getLogger("coresize")


class Claim:
    """What one batch was given of the variables.

    Args:
        options: of the batch.
        name: of its function.

    Attributes:
        shard: the part to do; None for all items.
        status: a second place for the status; None for none.

    Raises:
        ConfigError: a variable is not valid, or another batch has claimed it.
    """

    def __init__(self, options: Options, name: str) -> None:
        self.status: str | None = None
        self._host = current()
        self._own = _own(self._host)
        self._journal = options.journal and os.path.realpath(options.journal)
        self._name = name
        self._named = options.shard is not None
        self.shard = self._find(options)
        if self._own and self._is_meant():
            with _lock:
                self._take()

    def _find(self, options: Options) -> Shard | None:
        if options.shard is None and SHARD not in self._own:
            return None
        if options.shard == AUTO and nesting.is_task():
            allowed = '"i/n", or None for all items: a task has no place in an array'
            raise ConfigError("shard", AUTO, allowed)
        return find_shard(options.shard, by=options.shard_by, host=self._host)

    def _is_meant(self) -> bool:
        """Whether this is the part that the variable speaks of, where it speaks."""
        if not self._named or SHARD not in self._own:
            return True
        try:
            spoken_of = find_shard(None, host=self._host)
        except ConfigError:  # "auto" in no array job: what is named does not need it
            return False
        return str(self.shard) == str(spoken_of)

    def _take(self) -> None:
        global _first  # noqa: PLW0603 - it belongs to the process
        first = _first
        if first is None or not first._is_of(self):  # noqa: SLF001 - of this class
            _first = self
            _mark(self._own, self._host)
        elif SHARD in self._own and not self._named:
            raise _refused(first, self)
        elif SHARD in self._own and not first._named:  # noqa: SLF001 - as above
            _log.warning(
                "%s=%s was taken by the batch of %s already, which did that part of "
                "its items alone: name shard= of that, too",
                *(SHARD, self._own[SHARD], first._name),  # noqa: SLF001 - as above
            )
        if _first is self:
            self.status = self._own.get(STATUS)

    def _is_of(self, other: Claim) -> bool:
        """Whether this one bars another: not an earlier start with its journal."""
        if self._host is not other._host or self._own != other._own:
            return False
        return self._journal is None or self._journal != other._journal

    def release(self) -> None:
        """The batch has not come to run: another may have them."""
        global _first  # noqa: PLW0603 - it belongs to the process
        with _lock:
            if _first is self:
                _first = None


#: The batch that has them, if any.
_first: Claim | None = None
_lock = threading.Lock()


def own_shard() -> Shard | None:
    """The part of the program that this is, by the variable; None for none.

    Raises:
        ConfigError: the variable is not valid.
    """
    return find_shard(None) if SHARD in _own(current()) else None


def _own(host: Host) -> dict[str, str]:
    """The variables as far as they are for this program."""
    present = host.variables(frozenset({SHARD, STATUS, CLAIMED}))
    pid, _, taken = present.pop(CLAIMED, "").partition(" ")
    if pid and pid != str(processes.own()):
        shard, _, status = taken.partition(" ")
        for name, value in ((SHARD, shard), (STATUS, status)):
            if present.get(name) == value:
                del present[name]
    if present and nesting.is_task():
        if SHARD in present and not nesting.is_inside():
            _tell(present[SHARD])
        return {}
    return present


_told = False


def _tell(shard: str) -> None:
    """Say once that a worker of whatever pool does all items."""
    global _told  # noqa: PLW0603 - it belongs to the process
    if not _told:
        _told = True
        _log.warning(
            "%s=%s is not for a batch in a worker of a pool, which does all its "
            'items: shard="%s" would do that part alone',
            *(SHARD, shard, shard),
        )


def _mark(own: dict[str, str], host: Host) -> None:
    """Let what this program starts know that they were for this one."""
    if isinstance(host, Live):
        taken = f"{own.get(SHARD, '')} {own.get(STATUS, '')}"
        os.environ[CLAIMED] = f"{processes.own()} {taken}"


def _refused(first: Claim, second: Claim) -> ConfigError:
    part = second.shard
    allowed = (
        f"it for one batch: that of {first._name} has taken it, and this one is of "  # noqa: SLF001 - of this module
        f'{second._name}. Name the shard of each: shard="{part}" for that part, '  # noqa: SLF001 - as above
        'shard="0/1" for all items'
    )
    return ConfigError(SHARD, second._own[SHARD], allowed)  # noqa: SLF001 - as above
