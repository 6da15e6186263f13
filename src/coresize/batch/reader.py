"""The outcomes of one batch, as somebody reads them; and its end, whoever brings it.

A batch is over when it was read to its end, fails, is closed, or when nobody holds it
any more. In the first three somebody waits for what still runs. The last is told by the
garbage collector, in any thread at all: there a thread is started that ends the batch,
since a finalizer never waits (`coresize.executor.finalizing`). For that reason this is
no generator: its ``finally`` could not tell who closes it.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import TYPE_CHECKING

from coresize.executor import finalizing
from coresize.processes import exit_hooks, transfer


if TYPE_CHECKING:
    from typing import Self

    from coresize.batch.engine import Engine
    from coresize.batch.outcomes import Outcome

#: Failures that are raised together at the end, at most.
_RAISED = 1000


class Reader:
    """An iterator over the outcomes of a batch.

    Args:
        engine: runs the batch.
        name: of its function.
        raises: errors are raised together at the end.

    Attributes:
        begun: somebody has asked for outcomes, or closed it.
    """

    def __init__(self, engine: Engine, name: str, *, raises: bool) -> None:
        self.begun = False
        self._over = False
        self._engine = engine
        self._name = name
        self._raises = raises
        self._errors: list[BaseException] = []
        self._steps = engine.steps()
        _open.add(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        """The next outcome.

        Raises:
            StopIteration: there is none.
            BaseExceptionGroup: tasks have failed, where that is to be raised.
            CoresizeError: the batch cannot go on.
        """
        if self._over:
            raise StopIteration
        try:
            self.begun = True
            outcome = next(self._steps)
            if self._raises and outcome.error is not None:
                self._keep(outcome, outcome.error)
        except StopIteration:
            self._end(done=True)
            self._raise()
            raise
        except BaseException as error:
            self._end(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        return outcome

    def close(self, *, interrupted: bool = False) -> None:
        """End it: cancel what has not begun, and wait for what runs, or kill that.

        Args:
            interrupted: what runs is killed, where that can be.
        """
        self._steps.close()  # which raises where another thread is reading
        self._end(interrupted=interrupted)

    def _end(self, *, done: bool = False, interrupted: bool = False) -> None:
        if self._over:
            return
        self._over = True
        if self.begun:
            self._engine.end(done=done, interrupted=interrupted)
        else:
            self.begun = True
            self._engine.abandon()

    def _keep(self, outcome: Outcome, error: BaseException) -> None:
        if len(self._errors) < _RAISED:
            transfer.add_note(error, f"of task {outcome.key}, {outcome.status}")
            self._errors.append(error)

    def _raise(self) -> None:
        if self._errors:
            msg = f"{self._engine.report().failed} tasks of {self._name} have failed"
            raise BaseExceptionGroup(msg, self._errors)

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self._over = True
            engine = self._engine
            end = engine.end if self.begun else engine.abandon
            finalizing.later(end, hurry=engine.kill)


#: Those that are to be ended before the program ends.
_open: weakref.WeakSet[Reader] = weakref.WeakSet()


@atexit.register  # before the pools: the last that registers goes first
def _finish() -> None:
    """At the end of the program: what was left early is ended, and its journal closed.

    One that another thread is reading, a daemon's, is left alone.
    """
    interrupted = exit_hooks.is_interrupted()
    for reader in list(_open):
        with contextlib.suppress(ValueError):
            reader.close(interrupted=interrupted)
