"""Calls, results and errors on their way between processes.

Rule 1: what cannot be pickled or unpickled is found out where its text can still be
told, and costs one task alone. Rule 2: plain pickle first; cloudpickle, where it is
installed, for what plain pickle cannot do (lambdas, functions of a notebook).
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import traceback

from coresize.errors import CoresizeError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


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
    reason: object = "the program it is defined in is no file"
    try:
        by_name = _dump(message, most)
    except _TooLargeError:
        return None
    except Exception as error:  # noqa: BLE001 - pickle calls the user's code
        reason = error
    else:
        if not (is_main_homeless() and b"__main__" in by_name):
            return by_name
    try:
        import cloudpickle
    except ImportError:
        msg = (
            f"{function!r} cannot be sent to another process ({reason}): define it at "
            "the top level of a module, or install the extra coresize[cloudpickle]"
        )
        raise TransferError(msg) from None
    try:
        content: bytes = cloudpickle.dumps(message)
    except Exception as error:  # noqa: BLE001 - as above
        msg = f"{function!r} and its arguments cannot be sent to another process"
        msg = f"{msg}: {error}"
        raise TransferError(msg) from None
    return content if len(content) <= most else None


def _dump(message: object, most: int) -> bytes:
    if most == sys.maxsize:  # by the quickest way
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pieces = _Pieces(most)
    pickle.Pickler(pieces, pickle.HIGHEST_PROTOCOL).dump(message)
    return pieces.content()


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
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        msg = (
            f"the result cannot be sent back to the caller ({error}): return what can "
            "be pickled, such as plain data"
        )
        raise TransferError(msg) from error


#: What Python calls the file of a program that it reads from standard input.
STDIN = "<stdin>"


def is_main_homeless() -> bool:
    """Whether this is a notebook, a prompt or ``python -c``, which no process imports.

    Pickle would send the names of what is defined there all the same.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", STDIN)
    return file == STDIN and getattr(main, "__spec__", None) is None


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, as Python prints it."""
    return "".join(traceback.format_exception(error))


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless its class refuses attributes."""
    with contextlib.suppress(Exception):
        error.add_note(text)


def dump_error(error: BaseException) -> tuple[bytes, str]:
    """An error as pickled, or what tells of it, and its traceback as text."""
    text = traceback_of(error)
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 - written one line above
    except BaseException:  # noqa: BLE001 - pickle calls the user's code
        content = pickle.dumps(_untold("".join(traceback.format_exception_only(error))))
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
