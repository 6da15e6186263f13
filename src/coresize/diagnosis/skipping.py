"""A check that cannot be made here."""

from __future__ import annotations


class Skipped(Exception):  # noqa: N818 - it is no error
    """It cannot be made, with the reason."""
