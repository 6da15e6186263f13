"""What is known of the main module: its name, its file, and whether workers import it.

A worker that is spawned imports the main module of its parent, so that what is defined
there can be sent by its name. When the last line of a script has run, CPython deletes
``__main__.__file__`` (Python/pythonrun.c, _PyRun_SimpleFile), and only then waits for
threads and calls the hooks of atexit. A worker that starts that late would import
nothing, and find none of the functions of the script. So what was seen of a module once
counts for as long as it is the main module.
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

#: What Python calls the file of a program that it reads from standard input.
STDIN = "<stdin>"

#: What to do where workers run the program once more.
GUARD = 'put what starts the work below if __name__ == "__main__":'

#: The file of each main module that was seen.
_files: weakref.WeakKeyDictionary[ModuleType, str] = weakref.WeakKeyDictionary()


class MainModule(Value):
    """The main module as a worker would have to find it.

    Attributes:
        name: the name that ``python -m`` has imported it by; None where it has none.
        file: its file; None where it has none, as at a prompt and in a notebook.
    """

    name: str | None
    file: str | None

    @property
    def is_imported(self) -> bool:
        """Whether workers import the module, so that what it defines has a name there.

        They leave alone a prompt, a notebook, ``python -c``, standard input, and every
        ``__main__.py``: that of a package, a folder or a zip file, which seldom has a
        guard (multiprocessing.spawn, _fixup_main_from_name).
        """
        if self.name is not None:
            return self.name.rpartition(".")[2] != "__main__"
        return self.file is not None and self.file[:1] != "<"

    @property
    def importable_name(self) -> str:
        """The name that the module has for those who import it."""
        if self.name is not None:
            return self.name.removesuffix(".__main__")
        file = (self.file or "__main__").replace("\\", "/")
        return file.rpartition("/")[2].removesuffix(".py")


#: What was seen of the main module the last time, and what that came to.
_latest: tuple[tuple[object, ...], MainModule] | None = None


def known() -> MainModule:
    """What is known of the main module now, or was known of the same module before."""
    global _latest  # noqa: PLW0603 - there is one main module at a time
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    seen = module, spec, file
    if _latest is not None and all(map(operator.is_, _latest[0], seen)):
        return _latest[1]
    if isinstance(module, type(sys)):
        if file is not None:
            _files[module] = str(file)
        file = _files.get(module)
    name = getattr(spec, "name", None)
    made = MainModule(name=name, file=None if file is None else str(file))
    _latest = seen, made
    return made


def refuse_while_importing(what: str) -> None:
    """Let no worker that imports the main module do what is for the program alone.

    Raises:
        CoresizeError: this is one.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        msg = f"a worker that imports the main module may {what}: {GUARD}"
        raise CoresizeError(msg)


# Most programs import this before their last line has run.
known()
