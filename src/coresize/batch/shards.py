"""Shards: the part of a batch that this program runs."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from coresize import processes
from coresize.batch import array_jobs
from coresize.batch.journal import reader
from coresize.batch.keys import bucket
from coresize.batch.outcomes import BAD
from coresize.errors import ConfigError, JournalError
from coresize.host import CLAIMED, RETRY, SHARD, STATUS, Live, current
from coresize.model import Value
from coresize.processes import nesting


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from coresize.host import Host

    By: TypeAlias = Literal["index", "key"]


_log = logging.getLogger("coresize")

AUTO = "auto"
_BY = ("index", "key")


class Shard(Value):
    """One of n parts of a batch; together the parts are the whole batch.

    Args:
        text: "i/n": part i of n parts, counted from 0; "0/4" to "3/4".
        by: "index" assigns items in turn: shard 0 of 4 takes items 0, 4, 8 ...; "key"
            assigns an item by a hash of its key, so items that are added later do not
            move others to another shard.

    Attributes:
        index: the number of this part, from 0.
        count: the number of parts.
        by: how items are assigned.

    Raises:
        ConfigError: the text is not a valid part.

    >>> from coresize import Shard
    >>> shard = Shard("1/4")
    >>> [index for index in range(10) if shard.takes(index)]
    [1, 5, 9]
    """

    index: int
    count: int
    by: By

    def __init__(self, text: str, *, by: By = "index") -> None:
        if by not in _BY:
            raise ConfigError("shard_by", by, '"index" or "key"')
        index, count = _parsed(text)
        super().__init__(index=index, count=count, by=by)

    def takes(self, index: int, key: str = "") -> bool:
        """Whether this part takes an item, by its place in the input or its key."""
        if self.by == "key":
            return bucket(key, self.count) == self.index
        return index % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def __reduce__(  # type: ignore[override] # it is made from its text
        self,
    ) -> tuple[Callable[..., Shard], tuple[str, By]]:
        return _rebuild, (str(self), self.by)


def _rebuild(text: str, by: By) -> Shard:
    return Shard(text, by=by)


def _parsed(text: object) -> tuple[int, int]:
    first, slash, second = str(text).strip().partition("/")
    if not (slash and array_jobs.is_whole(first) and array_jobs.is_whole(second)):
        allowed = '"i/n", the part i of n, counted from 0: "0/4" to "3/4"'
        raise ConfigError("shard", text, allowed)
    index, count = int(first), int(second)
    if count < 1:
        raise ConfigError("shard", text, '"i/n" with n above 0')
    if not 0 <= index < count:
        allowed = f'"0/{count}" to "{count - 1}/{count}": parts are counted from 0'
        if index == count:
            allowed += f"; tools that count from 1 call the last of them {text}"
        raise ConfigError("shard", text, allowed)
    return index, count


def find_shard(
    shard: Shard | str | None,
    *,
    by: By = "index",
    host: Host | None = None,
    journal: str | None = None,
) -> Shard | None:
    """The shard to run: from the argument, CORESIZE_SHARD or the array job.

    Args:
        shard: a `Shard`, "i/n", "auto" for the index in an array job, or None for the
            value of CORESIZE_SHARD.
        by: how items are assigned, unless `shard` is a `Shard`.
        host: the machine; None is this machine.
        journal: the journal of the batch; if it exists, it knows the number of shards
            of an array job that runs again in part.

    Returns:
        The shard, or None for all items.

    Raises:
        ConfigError: the text is not a valid shard, or this is not an array job.
    """
    if isinstance(shard, Shard):
        return shard
    host = host or current()
    named = shard is not None  # "" is an error: perhaps from an unset variable
    text = shard if named else host.variables(frozenset({SHARD})).get(SHARD)
    if text is None:
        return None
    if text == AUTO:
        index, count = array_jobs.place(host, _known(journal))
        text = f"{index}/{count}"
    return Shard(text, by=by)


def _known(journal: str | None) -> tuple[int, int] | None:
    """The place of an earlier start with a journal; None if there is none to read."""
    if journal is None:
        return None
    try:
        shard = Shard(reader.describe(journal)[0].shard)
    except (JournalError, ConfigError):  # opening the journal reports what is wrong
        return None
    return shard.index, shard.count


# -----------------------------------------------------------------------------
# The batch of a program to which CORESIZE_SHARD, CORESIZE_STATUS and CORESIZE_RETRY
# apply.
#
# The variables, as set by ``coresize shards``, are meant for one batch: that of the
# program that it starts. But a program may run several batches, its tasks may run their
# own, and its child processes inherit its environment. A batch that is sharded by
# mistake silently leaves out the items of all other shards. So:
#
# 1. A batch in a task, in any executor, ignores the variables; so does `parallel_map`.
# 2. The first other batch of a program claims them. Processes that the program starts
#    later inherit CORESIZE_CLAIMED too, which tells them to ignore the variables.
# 3. A second batch is refused, unless it names its shard or continues the journal of
#    the first batch.


class Claim:
    """The claim of one batch to the variables.

    Args:
        shard: the shard that the batch names; None if it names none.
        by: how items are assigned.
        journal: the path of the journal of the batch; None without a journal.
        name: the name of the function of the batch.

    Attributes:
        shard: the shard to run; None for all items.
        status: the path of a second status file; None for none.
        retry: the statuses of tasks that run again, beside those that the batch names.

    Raises:
        ConfigError: a variable is not valid, or another batch has claimed it.
    """

    def __init__(
        self, shard: Shard | str | None, *, by: By, journal: str | None, name: str
    ) -> None:
        self.status: str | None = None
        self.retry: tuple[str, ...] = ()
        self._host = current()
        self._own = _own(self._host)
        self._journal = journal and os.path.realpath(journal)
        self._name = name
        self._named = shard is not None
        self.shard = self._find(shard, by)
        if self._own and self._is_meant():
            with _lock:
                self._take()

    def _find(self, shard: Shard | str | None, by: By) -> Shard | None:
        if shard is None and SHARD not in self._own:
            return None
        if shard == AUTO and nesting.is_task():
            allowed = '"i/n", or None for all items: a task has no place in an array'
            raise ConfigError("shard", AUTO, allowed)
        return find_shard(shard, by=by, host=self._host, journal=self._journal)

    def _is_meant(self) -> bool:
        """Whether the variables are for this batch: it names no other shard."""
        if not self._named or SHARD not in self._own:
            return True
        try:
            spoken_of = find_shard(None, host=self._host, journal=self._journal)
        except ConfigError:  # "auto" in no array job; the named shard does not need it
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
            self.retry = _statuses(self._own.get(RETRY, ""))

    def _is_of(self, other: Claim) -> bool:
        """Whether this claim bars another one; a start with the same journal may go."""
        if self._host is not other._host or self._own != other._own:
            return False
        return self._journal is None or self._journal != other._journal

    def release(self) -> None:
        """Give the variables back, for another batch: this one has not begun."""
        global _first  # noqa: PLW0603 - it belongs to the process
        with _lock:
            if _first is self:
                _first = None


#: The batch that has claimed the variables, if any.
_first: Claim | None = None
_lock = threading.Lock()


def _statuses(text: str) -> tuple[str, ...]:
    """The statuses in a list such as "failed,oom".

    Raises:
        ConfigError: a status is not known.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in BAD:
            raise ConfigError(RETRY, text, f"some of {', '.join(BAD)}")
    return names


def own_shard() -> Shard | None:
    """The shard of this program, by CORESIZE_SHARD; None if that does not apply.

    Raises:
        ConfigError: the variable is not valid.
    """
    return find_shard(None) if SHARD in _own(current()) else None


#: The variables; the last one may contain spaces.
_OWN = (SHARD, RETRY, STATUS)


def _own(host: Host) -> dict[str, str]:
    """The variables that apply to this program."""
    present = host.variables(frozenset({*_OWN, CLAIMED}))
    pid, _, taken = present.pop(CLAIMED, "").partition(" ")
    if pid and pid != str(processes.own()):
        values = [*taken.split(" ", len(_OWN) - 1), *("" for _ in _OWN)]
        for name, value in zip(_OWN, values, strict=False):
            if present.get(name) == value:
                del present[name]
    if present and nesting.is_task():
        if SHARD in present and not nesting.is_inside():
            _tell(present[SHARD])
        return {}
    return present


_told = False


def _tell(shard: str) -> None:
    """Log once that a batch in a worker of any pool runs all items."""
    global _told  # noqa: PLW0603 - it belongs to the process
    if not _told:
        _told = True
        _log.warning(
            "%s=%s is not for a batch in a worker of a pool, which does all its "
            'items: shard="%s" would do that part alone',
            *(SHARD, shard, shard),
        )


def _mark(own: dict[str, str], host: Host) -> None:
    """Tell later child processes that the variables are for this program."""
    if isinstance(host, Live):
        taken = " ".join(own.get(name, "").strip() for name in _OWN)
        os.environ[CLAIMED] = f"{processes.own()} {taken}"


def _refused(first: Claim, second: Claim) -> ConfigError:
    part = second.shard
    allowed = (
        f"it for one batch: that of {first._name} has taken it, and this one is of "  # noqa: SLF001 - of this module
        f'{second._name}. Name the shard of each: shard="{part}" for that part, '  # noqa: SLF001 - as above
        'shard="0/1" for all items'
    )
    return ConfigError(SHARD, second._own[SHARD], allowed)  # noqa: SLF001 - as above
