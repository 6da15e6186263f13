"""A module that takes memory while it is imported, and gives it back."""

from __future__ import annotations

import tasks


taken = tasks.array(200)
del taken


def array(size):
    """A function of this module: who is to call it has imported this."""
    return tasks.array(size)
