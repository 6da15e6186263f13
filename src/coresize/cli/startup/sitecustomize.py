"""Lets Python below 3.13 obey PYTHON_CPU_COUNT, as later versions do by themselves.

``coresize run`` puts the folder of this file in front of PYTHONPATH. Every Python that
the program starts imports ``sitecustomize`` before anything else (module ``site``), and
finds this one. It must not be noticed otherwise:

- It hides a ``sitecustomize`` of the user's or the distribution's own, so it imports
  that one in its place: the folder leaves ``sys.path``, and the import is made again.
  What that module raises, Python reports as ever.
- The variable is inherited by Pythons of any version: this file is Python 2 as well.
- Options that ignore the variable (-I, -E) or skip the module (-S) keep their meaning.
- CORESIZE_PYTHON=off, or PYTHON_CPU_COUNT=default, turns it off for what one starts.
"""

import os
import sys


_OFF = ("0", "off", "false", "no", "n", "f")


def _wanted():
    """The count to answer, or None to leave it as it is."""
    if os.environ.get("CORESIZE_PYTHON", "").lower() in _OFF:
        return None
    text = getattr(sys, "_xoptions", {}).get("cpu_count")
    if text is None:
        text = os.environ.get("PYTHON_CPU_COUNT")
    try:
        count = int(text)
    except (TypeError, ValueError):  # not set, "default", or an option without a value
        return None
    return count if count > 0 else None


def _answer(count):
    """Let the functions that count CPUs answer this count, where Python has them."""
    for name in ("cpu_count", "process_cpu_count"):
        original = getattr(os, name, None)
        if original is not None:
            setattr(os, name, _replacement(original, name, count))


def _replacement(original, name, count):
    def replacement():
        return count

    replacement.__name__ = replacement.__qualname__ = name
    replacement.__module__ = "os"  # where pickle finds it
    replacement.__doc__ = original.__doc__
    return replacement


def _run_next():
    """Import the ``sitecustomize`` that this one hides, in its place."""
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if not _is(entry, folder)]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:  # Python 2 has the name in the message alone
        name = getattr(error, "name", None) or str(error).split()[-1]
        if name != "sitecustomize":
            raise
    finally:  # the import that runs this module expects one there
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


def _is(entry, folder):
    # "" is the working directory, and a program may have put in what is no text.
    return bool(entry) and isinstance(entry, str) and os.path.abspath(entry) == folder


if "." not in __name__:  # imported as a part of coresize, it does nothing
    if sys.version_info < (3, 13):
        _wanted_count = _wanted()
        if _wanted_count is not None:
            _answer(_wanted_count)
    _run_next()
