"""What a batch needs by its options: an executor, a journal, a history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.batch.executors import Pool
from coresize.batch.journal.identity import identify, name_of
from coresize.batch.journal.schema import JournalError
from coresize.batch.journal.writer import Journal
from coresize.batch.recorder import Recorder
from coresize.executor import finalizing
from coresize.planning.settings import load_settings
from coresize.processes import nesting


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.batch.options import Options
    from coresize.batch.shards import Shard


def open_recorder(function: Callable[[Any], Any], options: Options) -> Recorder | None:
    """What keeps the history, where that is asked for, here or in the settings."""
    asked = options.history
    if asked is None:
        asked = load_settings().history
    if not asked:
        return None
    name = asked if isinstance(asked, str) else name_of(function)
    return Recorder(name, options.item_size)


def open_journal(
    function: Callable[[Any], Any], shard: Shard | None, options: Options
) -> Journal | None:
    """The journal, where one is asked for."""
    if options.journal is None:
        return None
    identity = identify(function, shard, options.serializer)
    try:
        return Journal(options.journal, identity)
    except JournalError:
        # Maybe of a run that was dropped, and is about to end; a task may not wait for
        # that, as it may be of that very run.
        if nesting.is_task() or not finalizing.wait():
            raise
    return Journal(options.journal, identity)


def open_pool(options: Options) -> Pool:
    """The executor, made where it is not the caller's own."""
    return Pool(
        options.executor,
        max_workers=options.max_workers,
        memory=options.memory,
        cpus=options.cpus,
        timeout=options.timeout,
        oom_retries=options.oom_retries,
    )
