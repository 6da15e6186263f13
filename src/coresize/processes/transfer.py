"""Calls, results and errors on their way between processes.

Rule 1: what cannot be pickled or unpickled is found out where its text can still be
told, and costs one task alone. Rule 2: plain pickle first; cloudpickle, where it is
installed, for what plain pickle cannot do (lambdas, functions of a notebook).
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import traceback
from collections import ChainMap
from multiprocessing.reduction import ForkingPickler

from coresize.errors import CoresizeError
from coresize.processes import main_module


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


#: How the module of multiprocessing's connections stands in what pickle makes, and how
#: far from either end of it one is looked for: arrays stand in between.
_CONNECTION, _NEAR = b"multiprocessing.connection", 64 * 1024

#: What multiprocessing says of a lock, a queue or a value that is an argument.
_SHARED = "should only be shared"

#: What to do with those.
INITARGS = (
    "give it to the workers by initializer= and initargs=, made by the context of the "
    'pool: multiprocessing.get_context("forkserver") where mp_context= is not given'
)


class TransferError(CoresizeError, pickle.PicklingError):
    """A call, a result or an error cannot be sent to another process; with its text."""


def dump_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes:
    """A call to be made in another process.

    Raises:
        TransferError: it cannot be pickled.
    """
    return dump((function, args, kwargs), function)


def dump(message: object, function: object) -> bytes:
    """A message that holds a function, for another process.

    Raises:
        TransferError: it cannot be pickled.
    """
    content = dump_within(message, function, sys.maxsize)
    assert content is not None
    return content


def dump_within(message: object, function: object, most: int) -> bytes | None:
    """As `dump`; None where it takes more bytes, which is found without writing them.

    Raises:
        TransferError: it cannot be pickled.
    """
    reason: object = "workers do not import the program that it is defined in"
    try:
        by_name = dump_plain(message, most)
    except _TooLargeError:
        return None
    except Exception as error:  # noqa: BLE001 - pickle calls the user's code
        reason = error
    else:
        if _is_named(by_name):
            return by_name
    if _SHARED in str(reason):
        msg = f"{function!r} cannot be sent to another process: {reason}; {INITARGS}"
        raise TransferError(msg)
    try:
        return _dump_by_value(message, most)
    except _TooLargeError:
        return None
    except ImportError:
        msg = (
            f"{function!r} cannot be sent to another process ({reason}): define it at "
            "the top level of a module, or install the extra coresize[cloudpickle]"
        )
        raise TransferError(msg) from None
    except Exception as error:  # noqa: BLE001 - as above
        msg = f"{function!r} and its arguments cannot be sent to another process"
        msg = f"{msg}: {error}"
        raise TransferError(msg) from None


def _is_named(content: bytes) -> bool:
    """Whether what has a name in a message has that name in a worker, too.

    Pickle sends the names of what is defined in any main module. To look for them takes
    longest in a long message, and to ask for the main module in a short one.
    """
    if len(content) > _NEAR and main_module.known().is_imported:
        return True
    return b"__main__" not in content or main_module.known().is_imported


def dump_plain(message: object, most: int = sys.maxsize) -> bytes:
    """What pickle makes of a message, with sockets and connections as pools send them.

    Pickle refuses a socket. Of a connection it would send the number of its file, which
    is another file in another process, or none; multiprocessing sends the file.

    Raises:
        Exception: it cannot be pickled.
    """
    try:
        content = _dump(message, most)
    except TypeError:  # as of a socket
        return bytes(ForkingPickler.dumps(message, pickle.HIGHEST_PROTOCOL))
    if content.find(_CONNECTION, 0, _NEAR) < 0 > content.rfind(_CONNECTION, -_NEAR):
        return content
    return bytes(ForkingPickler.dumps(message, pickle.HIGHEST_PROTOCOL))


def _dump(message: object, most: int) -> bytes:
    if most == sys.maxsize:  # by the quickest way
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pieces = _Pieces(most)
    pickle.Pickler(pieces, pickle.HIGHEST_PROTOCOL).dump(message)
    return pieces.content()


def _dump_by_value(message: object, most: int) -> bytes:
    """What cloudpickle makes of a message, with sockets and connections as above.

    Raises:
        ImportError: it is not installed.
        Exception: it cannot be pickled.
    """
    pieces = _Pieces(most)
    _by_value()(pieces).dump(message)
    return pieces.content()


@functools.cache
def _by_value() -> Callable[[object], Any]:
    import cloudpickle

    every = cloudpickle.CloudPickler.dispatch_table
    sockets = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # noqa: SLF001
    table = {"dispatch_table": ChainMap(sockets, every)}
    return type("Pickler", (cloudpickle.CloudPickler,), table)


class Carried:
    """What is pickled as calls are, and is itself again where it is unpickled.

    Args:
        value: it.

    Raises:
        TransferError: it cannot be pickled.
    """

    def __init__(self, value: object) -> None:
        self._content = dump(value, value)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[bytes]]:
        return pickle.loads, (self._content,)


class _TooLargeError(Exception):
    """What is pickled takes more bytes than it may."""


class _Pieces:
    """What a pickler has written, up to a number of bytes.

    Pickle hands over large buffers as they are: what is too large is not copied.
    """

    __slots__ = ("_left", "_pieces")

    def __init__(self, most: int) -> None:
        self._left = most
        self._pieces: list[bytes] = []

    def write(self, piece: bytes | pickle.PickleBuffer) -> None:
        self._left -= len(piece) if type(piece) is bytes else memoryview(piece).nbytes
        if self._left < 0:
            raise _TooLargeError
        self._pieces.append(piece if type(piece) is bytes else bytes(piece))

    def content(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def dump_value(value: object) -> bytes:
    """What a call has returned, on its way back.

    Raises:
        TransferError: it cannot be pickled.
    """
    try:
        return dump_plain(value)
    except Exception as error:
        msg = (
            f"the result cannot be sent back to the caller ({error}): return what can "
            "be pickled, such as plain data"
        )
        raise TransferError(msg) from error


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, as Python prints it; or its class where that fails."""
    return _formatted(traceback.format_exception, error)


def _formatted(
    formatter: Callable[[BaseException], list[str]], error: BaseException
) -> str:
    try:
        return "".join(formatter(error))
    except BaseException:  # noqa: BLE001 - it asks the user's class
        return f"{type(error).__qualname__}\n"


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless its class refuses attributes."""
    with contextlib.suppress(Exception):
        error.add_note(text)


class Failure(tuple):  # type: ignore[type-arg]
    """What a task returns that has failed and does not raise: with the error within.

    A pool gives it on as any value, but is told: where memory ran out for what the task
    had started, that is its error.
    """

    __slots__ = ()

    @property
    def error(self) -> BaseException:
        """The error: its second item, as `dump_error` has dumped it."""
        return load_error(*self[1])


def dump_error(error: BaseException) -> tuple[bytes, str]:
    """An error as pickled, or what tells of it, and its traceback as text."""
    text = traceback_of(error)
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 - written one line above
    except BaseException:  # noqa: BLE001 - pickle calls the user's code
        told = _formatted(traceback.format_exception_only, error)
        content = pickle.dumps(_untold(told))
    return content, text


def load_error(content: bytes, text: str) -> BaseException:
    """An error from another process, or what tells of it; its traceback as cause."""
    error: object = None
    with contextlib.suppress(BaseException):  # pickle calls the user's code
        error = pickle.loads(content)  # noqa: S301 - of our own child
    if not isinstance(error, BaseException):
        error = _untold(text.strip().rpartition("\n")[2])
    # What the standard library's pool sets as the cause, which prints as it stands.
    from concurrent.futures.process import _RemoteTraceback

    # Past the class of the error, which may refuse attributes, as a frozen dataclass.
    _CAUSE.__set__(error, _RemoteTraceback(f'\n"""\n{text}"""'))  # type: ignore[arg-type]
    return error


_CAUSE = BaseException.__dict__["__cause__"]


def _untold(said: str) -> TransferError:
    """In place of an error that cannot be pickled, or not be made again."""
    msg = (
        f"the task has raised {said.strip()}; that error cannot be sent to the caller "
        "as it is: let its class hand all its arguments to Exception.__init__, or "
        "define __reduce__"
    )
    return TransferError(msg)
