"""The workers of a pool, and what to listen to."""

from __future__ import annotations

import selectors
import time
from functools import partial

from coresize.executor.pool.workers import Outgoing, Slot
from coresize.executor.starts import Starts


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from coresize.executor.pool.options import Setup
    from coresize.processes.inheritance import Inheritance

#: Seconds that workers have to end by themselves.
_PATIENCE = 5.0


class Crew:
    """The slots of a pool, with the selector that tells of them.

    Args:
        setup: what workers are like.
        exchange: called with a slot and events when its socket is ready.
        bury: called with a slot when its process has ended.
    """

    def __init__(
        self,
        setup: Setup,
        exchange: Callable[[Slot, int], None],
        bury: Callable[[Slot], None],
    ) -> None:
        self.slots: list[Slot] = []
        self.selector = selectors.DefaultSelector()
        self.starts = Starts()
        self._setup = setup
        self._exchange = exchange
        self._bury = bury
        self._number = 0
        self._outgoing = Outgoing()

    def hear(self, bell: socket.socket, heard: Callable[[int], None]) -> None:
        """Tell when a bell has rung."""
        self.selector.register(bell, selectors.EVENT_READ, heard)

    @property
    def busy(self) -> list[Slot]:
        """Those that have something to do."""
        return [slot for slot in self.slots if slot.running]

    @property
    def has_room(self) -> bool:
        """Whether one more may be started: who forks later forks beside threads."""
        room = len(self.slots) < self._setup.max_workers
        return room and not self._setup.forks and self.starts.may_try

    def empty(self) -> bool:
        """End all workers; whether there are none left, or they cannot be replaced.

        What they keep of earlier tasks is memory that one task alone may need.
        """
        if self._setup.forks:
            return True
        for slot in self.slots:
            if not slot.ready and not slot.doomed:  # it may never be
                slot.kill("unused")
            elif not slot.retiring and not slot.stop():
                self.listen(slot, writing=True)
        return not self.slots

    def add(self, inheritance: Inheritance) -> Slot:
        """Start a worker.

        Args:
            inheritance: what it inherits.

        Raises:
            Exception: it cannot be started.
        """
        self._number += 1
        slot = Slot(
            self._setup,
            self._number,
            self._outgoing,
            self._setup.bequeathed(inheritance),
        )
        try:
            self.listen(slot, writing=False)
            self.selector.register(
                slot.gone, selectors.EVENT_READ, lambda _: self._bury(slot)
            )
        except BaseException:
            self.ignore(slot)
            slot.kill("unused")
            slot.bury()
            raise
        self.slots.append(slot)
        return slot

    def listen(self, slot: Slot, *, writing: bool) -> None:
        """Tell when a worker has written, and when more can be written to it."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        change = self.selector.modify if slot.watched else self.selector.register
        change(slot.pipe, events, partial(self._exchange, slot))
        slot.watched = True

    def flush(self) -> None:
        """Write what had to wait until less was on its way."""
        if self._outgoing.held and self._outgoing.has_room():
            self._outgoing.held = False
            for slot in self.slots:
                if not slot.flush():
                    self.listen(slot, writing=True)

    def ignore(self, slot: Slot) -> None:
        """Tell no more of its socket; its end is told by other means."""
        if slot.watched:
            self.selector.unregister(slot.pipe)
            slot.watched = False

    def remove(self, slot: Slot) -> int | None:
        """Forget a worker that has ended; with what exit code."""
        self.selector.unregister(slot.gone)
        self.ignore(slot)
        self.slots.remove(slot)
        return slot.bury()

    def drop(self, slot: Slot) -> None:
        """End a worker that has begun nothing, and wait for that."""
        slot.kill("unused")
        self.remove(slot)

    def end(self) -> None:
        """Let workers end by themselves, those that have begun to work at all."""
        for slot in self.slots:
            if slot.ready and not slot.doomed:
                slot.stop()
            elif not slot.doomed:
                slot.kill("unused")
        end = time.monotonic() + _PATIENCE
        for slot in self.slots:
            slot.process.join(max(0.0, end - time.monotonic()))
            if slot.process.exitcode is None:
                slot.kill("slow")
            slot.bury()
        self.slots.clear()
        self.selector.close()
