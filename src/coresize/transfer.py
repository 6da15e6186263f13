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
    reason: object = "the program it is defined in is no file"
    try:
        by_name = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
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
    return content


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
    except Exception:  # noqa: BLE001 - pickle calls the user's code
        content = pickle.dumps(_untold("".join(traceback.format_exception_only(error))))
    return content, text


def load_error(content: bytes, text: str) -> BaseException:
    """An error from another process, or what tells of it; its traceback as cause."""
    error: object = None
    with contextlib.suppress(Exception):  # pickle calls the user's code
        error = pickle.loads(content)  # noqa: S301 - of our own child
    if not isinstance(error, BaseException):
        error = _untold(text.strip().rpartition("\n")[2])
    # What the standard library's pool sets as the cause, which prints as it stands.
    from concurrent.futures.process import _RemoteTraceback

    error.__cause__ = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]
    return error


def _untold(said: str) -> TransferError:
    """In place of an error that cannot be pickled, or not be made again."""
    msg = (
        f"the task has raised {said.strip()}; that error cannot be sent to the caller "
        "as it is: let its class hand all its arguments to Exception.__init__, or "
        "define __reduce__"
    )
    return TransferError(msg)
