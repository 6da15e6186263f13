"""The main module: its name, its file, and whether workers import it.

A spawned worker imports the main module of its parent, so that functions defined there
can be sent by name. After the last line of a script, CPython deletes
``__main__.__file__`` (Python/pythonrun.c, _PyRun_SimpleFile), and only then waits for
threads and calls the hooks of atexit. A worker that starts that late would import
nothing, and miss the functions of the script. So the file that was once seen of a
module counts as long as it is the main module.
"""

from __future__ import annotations

import multiprocessing
import operator
import sys
import weakref

from coresize.errors import CoresizeError
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: The file name that Python uses for a program from standard input.
STDIN = "<stdin>"

#: The advice for programs that workers would run once more.
GUARD = 'put what starts the work below if __name__ == "__main__":'

#: The file of each main module that has been seen.
_files: weakref.WeakKeyDictionary[ModuleType, str] = weakref.WeakKeyDictionary()


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
_latest: tuple[tuple[object, ...], MainModule] | None = None


def known() -> MainModule:
    """The main module, with the file that it has now or had before."""
    global _latest  # noqa: PLW0603 - there is one main module at a time
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    parts = module, spec, file
    if _latest is not None and all(map(operator.is_, _latest[0], parts)):
        return _latest[1]
    if isinstance(module, type(sys)):
        if file is not None:
            _files[module] = str(file)
        file = _files.get(module)
    name = getattr(spec, "name", None)
    main = MainModule(name=name, file=None if file is None else str(file))
    _latest = parts, main
    return main


def refuse_while_importing(what: str) -> None:
    """Refuse to run in a worker that is importing the main module.

    Args:
        what: what such a worker may do, such as "measure no task", for the message.

    Raises:
        CoresizeError: this process is such a worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        msg = f"a worker that imports the main module may {what}: {GUARD}"
        raise CoresizeError(msg)


# Most programs import this module before their last line has run.
known()
