"""The process that an object belongs to, and what a fork of it may do with the object.

A fork copies every object of a program, but no thread: a copied pool has neither the
thread that serves it nor the right to its workers, sockets and files, which the parent
goes on using. A copied lock may be held by a thread that does not exist in the child,
and so for ever. So each object that has such things notes its `Owner`, and keeps one
rule:

1. What uses the object calls `Owner.check` first, before it takes any lock: in a child
   it raises an error that names the object, its owner and what to do.
2. What ends the object does nothing unless `Owner.is_here`: a shutdown, a finalizer, a
   hook that runs at the end of the program.
3. An object that its owner has not used yet has nothing to share: `Owner.take` gives it
   to the child.
"""

from __future__ import annotations

import os
from multiprocessing import process

from coresize import processes
from coresize.errors import InheritedError


class Owner:
    """The process that has made an object.

    Attributes:
        pid: the id of the process.
        forks: its `coresize.processes.forks`.
    """

    __slots__ = ("forks", "pid")

    # Not the global name: finalizers that run after the module is cleared look it up.
    _counted = processes

    def __init__(self) -> None:
        self._note()

    def _note(self) -> None:
        self.pid, self.forks = os.getpid(), processes.forks

    @property
    def is_here(self) -> bool:
        """Whether this is the process that has made the object, and no fork of it."""
        return self.forks == self._counted.forks

    def check(self, what: str, advice: str = "") -> None:
        """Check that this is the process that has made the object.

        Args:
            what: a noun for the object, such as "pool".
            advice: what to do; by default, to make another object in the child.

        Raises:
            InheritedError: this process is a fork of that process.
        """
        if not self.is_here:
            raise InheritedError(what, self.pid, advice)

    def take(self, what: str, *, used: bool) -> bool:
        """Make this process the owner, if the object was not used before the fork.

        Args:
            what: a noun for the object.
            used: the object has threads, workers or tasks of its owner.

        Returns:
            Whether the owner has changed.

        Raises:
            InheritedError: this process is a fork of the owner, which has used the
                object.
        """
        if self.is_here:
            return False
        if used:
            self.check(what)
        self._note()
        return True


def present() -> Owner:
    """This process as the owner of many small objects, which share this one value."""
    global _present  # noqa: PLW0603 - it belongs to the process
    if _present.forks != processes.forks:
        _present = Owner()
    return _present


_present = Owner()


def _disown() -> None:
    """In a forked child, forget the processes that coresize has started in the parent.

    multiprocessing waits for its processes at the end of a program, and raises an error
    if they are not children of this process.
    """
    children: set[process.BaseProcess] = process._children  # type: ignore[attr-defined]  # noqa: SLF001
    children -= {child for child in children if type(child.name) is not str}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
