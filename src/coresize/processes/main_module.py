"""The main module: its name, its file, and whether workers import it.

A spawned worker imports the main module of its parent, so that functions defined there
can be sent by name. After the last line of a script, CPython deletes
``__main__.__file__`` (Python/pythonrun.c, _PyRun_SimpleFile), and only then waits for
threads and calls the hooks of atexit. A worker that starts that late would import
nothing, and miss the functions of the script. So the file that was once seen of a
module counts as long as it is the main module.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import traceback
import weakref
from multiprocessing import process
from time import monotonic

from coresize.errors import CoresizeError
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType, TracebackType
    from typing import TypeAlias

    #: What tells one version of a file from another; None if there is no such file.
    Stamp: TypeAlias = tuple[int, int, int] | None

#: The file name that Python uses for a program from standard input.
STDIN = "<stdin>"

#: The file names that Python and IPython use for what is typed at a prompt or executed
#: from a text.
_TYPED = ("<stdin>", "<console>", "<string>", "<python-input", "<ipython-input")

#: The advice for programs that workers would run once more.
GUARD = 'put what starts the work below if __name__ == "__main__":'

#: The file of each main module that has been seen, with its `_stamp` at that time.
_files: weakref.WeakKeyDictionary[ModuleType, tuple[str, Stamp]]
_files = weakref.WeakKeyDictionary()


class MainModule(Value):
    """The main module as a worker must find it.

    Attributes:
        name: the name that was passed to ``python -m``, or None.
        file: the file of the module; None at a prompt and in a notebook.
    """

    name: str | None
    file: str | None

    @property
    def is_imported(self) -> bool:
        """Whether workers import the module, so that they find its functions by name.

        They do not import a prompt, a notebook, ``python -c``, standard input, or any
        ``__main__.py`` (of a package, a folder or a zip file), because that seldom has
        a guard (multiprocessing.spawn, _fixup_main_from_name).
        """
        if self.name is not None:
            return self.name.rpartition(".")[2] != "__main__"
        return self.file is not None and self.file[:1] != "<"

    @property
    def importable_name(self) -> str:
        """The name by which other modules can import this module."""
        if self.name is not None:
            return self.name.removesuffix(".__main__")
        file = (self.file or "__main__").replace("\\", "/")
        return file.rpartition("/")[2].removesuffix(".py")


#: The main module of workers that import none.
NONE = MainModule(name=None, file=None)

#: The parts of the main module at the last call of `known`, and its answer.
_latest: tuple[object, object, object, MainModule | None] = None, None, None, None


def known() -> MainModule:
    """The main module, with the file that it has now or had before."""
    global _latest  # noqa: PLW0603 - there is one main module at a time
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    before, of_spec, of_file, main = _latest
    if main and module is before and spec is of_spec and file is of_file:
        return main
    if isinstance(module, type(sys)):
        if file is not None and _files.get(module, ("", None))[0] != str(file):
            _files[module] = str(file), _stamp(str(file))
        file, _ = _files.get(module, (None, None))
    name = getattr(spec, "name", None)
    main = MainModule(
        name=str(name) if isinstance(name, str) else None,  # pdb has a subclass of it
        file=None if file is None else str(file),
    )
    _latest = module, spec, file, main
    return main


#: The seconds for which the file of a main module is taken to be there, as each call of
#: a function of the main module asks for it.
_FRESH = 1.0

#: The main module whose file was last there, and when that was (time.monotonic).
_there: tuple[MainModule | None, float] = None, 0.0


def importable(*, now: bool = False) -> MainModule:
    """The main module as workers import it: without a file that does not exist.

    A script may have been removed since it was started, and the main module of a
    program that was compiled or is run by other means may name a file that never
    existed. Then functions have to be sent by value.

    Args:
        now: look for the file now, even if it was there a moment ago.
    """
    global _there  # noqa: PLW0603 - there is one main module at a time
    main, time = known(), monotonic()
    if not now and _there[0] is main and time - _there[1] < _FRESH:
        return main
    if main.name is not None or not main.is_imported:
        return main
    if _stamp(main.file or "") is None:
        return MainModule(name=None, file=None)
    _there = main, time
    return main


def defines(function: object) -> bool:
    """Whether a worker that imports the main module finds a function in it.

    Functions that were typed at a prompt or run by ``exec()`` are in the namespace of
    the main module, but not in its file.

    Args:
        function: the function; partial objects are followed to the function in them.
    """
    code = getattr(function, "__code__", None)
    while code is None and hasattr(function, "func"):
        function = function.func  # of functools.partial, and of a task of a batch
        code = getattr(function, "__code__", None)
    if code is None or getattr(function, "__module__", None) != "__main__":
        return True
    return not code.co_filename.startswith(_TYPED)


def complete() -> None:
    """Make the main module such that multiprocessing can start a process.

    Debuggers such as pdb run a program in a main module without ``__spec__``, which
    multiprocessing reads, or with a name that it cannot pickle.
    """
    module = sys.modules.get("__main__")
    if not isinstance(module, type(sys)):
        return
    if not hasattr(module, "__spec__"):
        module.__spec__ = None
    name = getattr(module.__spec__, "name", None)
    if isinstance(name, str) and type(name) is not str:
        module.__spec__.name = str(name)  # type: ignore[union-attr]


def _stamp(file: str) -> Stamp:
    try:
        status = os.stat(os.path.join(process.ORIGINAL_DIR or "", file))  # type: ignore[attr-defined]  # noqa: PTH116, PTH118
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _has_changed() -> bool:
    """Whether the file of the main module is another one than it was at first."""
    module = sys.modules.get("__main__")
    file, stamp = _files.get(module, ("", None))  # type: ignore[arg-type]
    return stamp is not None and _stamp(file) != stamp


def advice() -> str:
    """Advice for a worker that has ended while it imported the main module."""
    if _has_changed():
        return f"{known().file} was changed while the program runs: start that again"
    return GUARD


# -----------------------------------------------------------------------------
# Programs without a guard.
#
# If the main module starts its work without a guard, each worker that imports it would
# start the work again. All workers meet this at the same time, but the user wants to
# read it once. So a worker of ours prints nothing: it ends with an exit status that its
# parent knows, and the parent raises the error that tells the cause. If that error ends
# the program, `_show_briefly` prints it with the one line of the main module that has
# started the work: the frames of the library below that line say nothing about it. A
# program that reads no result does not see the error; for such a program, the cause is
# logged at its end.

#: The exit status of a worker whose main module has no guard (sysexits.h, EX_CONFIG).
_UNGUARDED = 78

_log = logging.getLogger("coresize")


class _Parent:
    """The process that has started this one.

    Attributes:
        understands: it knows the exit status of a worker whose main module has no
            guard.
    """

    understands = False


def note_parent() -> None:
    """Note that this process is a worker, which coresize has started."""
    _Parent.understands = True


def refuse_while_importing(what: str) -> None:
    """Refuse to run in a worker that is importing the main module.

    A worker of ours ends at once, and its parent tells why.

    Args:
        what: what such a worker may do, such as "measure no task", for the message.

    Raises:
        CoresizeError: this process is such a worker, of another library.
    """
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    if _Parent.understands:
        os._exit(_UNGUARDED)
    msg = f"a worker that imports the main module may {what}: {GUARD}"
    raise CoresizeError(msg)


def explain_exit(code: int | None) -> str:
    """Why a worker has ended by itself while it imported the main module.

    Args:
        code: the exit status of the worker.

    Returns:
        A text that ends with the advice to write a guard; empty if the worker did not
        end for lack of one.
    """
    if code != _UNGUARDED:
        return ""
    main = known()
    text = (
        f"since each worker imports the main module, {main.name or main.file}, which "
        f"starts the work again: {GUARD}"
    )
    _causes.add(text)
    from coresize.processes import exit_hooks  # workers do not need it

    exit_hooks.register(_log_causes, exit_hooks.WORDS)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show_briefly
    return text


#: Why workers of this program have ended.
_causes: set[str] = set()


def _show_briefly(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error that tells a missing guard with the last line of the main module.

    Other errors are printed as usual.
    """
    file = known().file
    lines = [one for one in traceback.extract_tb(trace) if one.filename == file]
    if not (lines and any(cause in str(error) for cause in _causes)):
        sys.__excepthook__(kind, error, trace)
        return
    brief = ["Traceback (most recent call last):\n", *traceback.format_list(lines[-1:])]
    brief += traceback.format_exception_only(error)
    sys.stderr.write("".join(brief))


def _log_causes() -> None:
    """Log the lack of a guard, unless an error has ended the program."""
    if getattr(sys, "last_type", None) is None:
        for cause in _causes:
            _log.critical("workers have ended, %s", cause)


# Most programs import this module before their last line has run.
known()
