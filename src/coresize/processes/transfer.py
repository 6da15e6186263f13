"""Sending calls, results and errors between processes.

Rule 1: an object that cannot be pickled or unpickled is detected where the error can
still be reported, and fails only one task. Rule 2: plain pickle comes first;
cloudpickle, if installed, handles what plain pickle cannot (lambdas, functions of a
notebook).
"""

from __future__ import annotations

import contextlib
import copyreg
import errno
import functools
import pickle
import sys
import traceback
from collections import ChainMap
from multiprocessing.reduction import ForkingPickler
from types import BuiltinFunctionType, FunctionType

from coresize.errors import CoresizeError
from coresize.processes import main_module, tensors
from coresize.processes.buffers import LEAST, Apart


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any


#: The name of multiprocessing's connection module as it stands in a pickle, and the
#: length at both ends of a pickle to search for it: arrays are in between.
_CONNECTION, _NEAR = b"multiprocessing.connection", 64 * 1024

#: A part of multiprocessing's error for a lock, a queue or a value among the arguments.
_SHARED = "should only be shared"

#: The advice for that error.
INITARGS = (
    "give it to the workers by initializer= and initargs=, made by the context of the "
    'pool: multiprocessing.get_context("forkserver") where mp_context= is not given'
)


class TransferError(CoresizeError, pickle.PicklingError):
    """A call, a result or an error cannot be sent to another process."""


def check(function: object) -> None:
    """Check that a function can be pickled, without a copy of its large buffers.

    Raises:
        MemoryError: there is no memory for the pickle.
        TransferError: the function cannot be pickled.
    """
    dump_within(function, function, sys.maxsize, apart=Apart())


def lost(what: str, error: OSError) -> MemoryError | TransferError:
    """The error for large buffers that have arrived, but cannot be mapped or read.

    Args:
        what: what they belong to.
        error: why they cannot.
    """
    if error.errno == errno.ENOMEM:
        return MemoryError(f"{what} cannot be mapped ({error})")
    return TransferError(f"{what} cannot be received: {error}")


def dump_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    apart: Apart | None = None,
) -> bytes:
    """Pickle a call to be made in another process.

    Args:
        function: the function.
        args: its arguments.
        kwargs: its keyword arguments.
        apart: takes the large buffers, which are then no part of the pickle.

    Raises:
        TransferError: the call cannot be pickled.
    """
    content = dump_within((function, args, kwargs), function, sys.maxsize, apart=apart)
    assert content is not None
    return content


def dump(message: object, function: object, *, by_value: bool = False) -> bytes:
    """Pickle a message that holds a function, for another process.

    Args:
        message: the message.
        function: the function, for the text of an error.
        by_value: send the objects of the main module by value in any case, since the
            process imports no main module.

    Raises:
        TransferError: the message cannot be pickled.
    """
    content = dump_within(message, function, sys.maxsize, by_value=by_value)
    assert content is not None
    return content


def dump_within(
    message: object,
    function: object,
    most: int,
    *,
    by_value: bool = False,
    apart: Apart | None = None,
) -> bytes | None:
    """Pickle a message as `dump` does; None if it takes more than ``most`` bytes.

    Pickling stops as soon as the limit is exceeded.

    Args:
        message: the message.
        function: the function, for the text of an error.
        most: the limit in bytes.
        by_value: see `dump`.
        apart: takes the large buffers, which are then no part of the pickle.

    Raises:
        MemoryError: there is no memory for the pickle.
        TransferError: the message cannot be pickled.
    """
    try:
        return _dump(message, function, most, apart, by_value=by_value)
    except _TooLargeError:
        return None
    except MemoryError as error:
        failure = _no_memory("data", error)
    raise failure  # the context of an error would hold the pickler and the message


def _dump(
    message: object,
    function: object,
    most: int,
    apart: Apart | None,
    *,
    by_value: bool,
) -> bytes:
    reason = "workers do not import the program that it is defined in"
    try:
        by_name = dump_plain(message, most, apart)
    except (_TooLargeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - pickle calls the user's code
        reason = str(error)  # the error itself would hold the message in a cycle
    else:
        if _is_named(by_name, function, by_value=by_value):
            return by_name
    if _SHARED in reason:
        msg = f"{function!r} cannot be sent to another process: {reason}; {INITARGS}"
        raise TransferError(msg)
    try:
        return _dump_by_value(message, most, apart)
    except (_TooLargeError, MemoryError):
        raise
    except ImportError:
        msg = (
            f"{function!r} cannot be sent to another process ({reason}): define it at "
            "the top level of a module, or install the extra coresize[cloudpickle]"
        )
    except Exception as error:  # noqa: BLE001 - as above
        msg = f"{function!r} and its arguments cannot be sent to another process"
        msg = f"{msg}: {error}"
    raise TransferError(msg)  # as above, without a context


def _no_memory(what: str, error: MemoryError) -> MemoryError:
    """The error where memory runs out, in which case no object is at fault."""
    reason = f" ({error})" if str(error) else ""
    return MemoryError(
        f"there is no memory to pickle the {what}{reason}: pass less data at a time, "
        "or the path of a file, or allow more memory"
    )


def _is_named(content: bytes, function: object, *, by_value: bool) -> bool:
    """Whether a worker will find the objects that a message refers to by name.

    Pickle sends objects defined in a main module by name, even if workers do not import
    that module, or if it was changed at a prompt since.

    Args:
        content: the pickled message.
        function: the function in the message.
        by_value: the workers import no main module.
    """
    if by_value:
        return b"__main__" not in content
    # The search is slow in a long message, and importable() is slow beside a short one.
    if len(content) <= _NEAR and b"__main__" not in content:
        return True
    is_imported = main_module.importable().is_imported
    if is_imported:
        return main_module.defines(function)
    return b"__main__" not in content


def dump_plain(
    message: object, most: int = sys.maxsize, apart: Apart | None = None
) -> bytes:
    """Pickle a message with plain pickle; sockets and connections as pools do.

    Pickle refuses a socket and a memoryview. For a connection it would send the number
    of the file, which is another file, or none, in another process; multiprocessing
    sends the file itself.

    Raises:
        Exception: the message cannot be pickled.
    """
    try:
        if most == sys.maxsize and apart is None:
            content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)  # the fastest way
        else:
            content = _written(_plain, message, most, apart)
    except TypeError:  # raised for a socket
        return _written(_with_files(), message, most, apart)
    if content.find(_CONNECTION, 0, _NEAR) < 0 > content.rfind(_CONNECTION, -_NEAR):
        return content
    return _written(_with_files(), message, most, apart)


def is_small(value: object) -> bool:
    """Whether a value is small by its type, and so pickled fastest in one piece."""
    kind = type(value)
    return kind in _ATOMS or (kind in {str, bytes} and len(value) < _FEW)  # type: ignore[arg-type]


#: Values of these types are small, and those of bytes and text with fewer bytes.
_ATOMS, _FEW = frozenset({bool, complex, float, int, type(None)}), 4096

#: The most arguments of a small call.
_MOST_ARGUMENTS = 8


def is_small_call(message: object) -> bool:
    """Whether a message is a call of a function with few, small arguments."""
    if type(message) is not tuple or len(message) != _CALL:
        return False
    function, args, kwargs = message
    if type(function) not in _FUNCTIONS or kwargs or len(args) > _MOST_ARGUMENTS:
        return False
    for argument in args:
        if type(argument) not in _ATOMS and not is_small(argument):
            return False
    return True


#: The length of a call: function, arguments, keyword arguments; and the types of
#: functions that are pickled by name.
_CALL, _FUNCTIONS = 3, frozenset({FunctionType, BuiltinFunctionType})


def _written(
    pickler: Callable[..., Any], message: object, most: int, apart: Apart | None
) -> bytes:
    pieces = _Pieces(most, apart)
    if apart is None:
        pickler(pieces, pickle.HIGHEST_PROTOCOL).dump(message)
    else:
        keep = apart.keep_in_band
        with apart:
            pickler(pieces, pickle.HIGHEST_PROTOCOL, buffer_callback=keep).dump(message)
    return pieces.content()


def _dump_by_value(message: object, most: int, apart: Apart | None = None) -> bytes:
    """Pickle a message with cloudpickle; sockets and connections as above.

    Raises:
        ImportError: cloudpickle is not installed.
        Exception: the message cannot be pickled.
    """
    return _written(_by_value(), message, most, apart)


def _plain(file: _Pieces, protocol: int, **options: Any) -> pickle.Pickler:
    """Plain pickle's own pickler, which knows tensors if torch is imported."""
    pickler = pickle.Pickler(file, protocol, **options)
    if tensors.reducers():
        pickler.dispatch_table = {**copyreg.dispatch_table, **tensors.reducers()}
    return pickler


@functools.cache
def _with_files() -> Callable[..., Any]:
    """The pickler that pickles sockets, connections and memoryviews, too."""
    return _extended(pickle.Pickler, copyreg.dispatch_table)


@functools.cache
def _by_value() -> Callable[..., Any]:
    cloudpickle = _cloudpickle()
    return _extended(cloudpickle.CloudPickler, cloudpickle.CloudPickler.dispatch_table)


def _extended(pickler: type, reducers: MutableMapping[Any, Any]) -> Callable[..., Any]:
    sockets = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # noqa: SLF001
    own = {memoryview: _reduce_view}
    table = ChainMap(own, tensors.reducers(), sockets, reducers)  # of all, as they grow
    return type("Pickler", (pickler,), {"dispatch_table": table})


def _reduce_view(view: memoryview) -> tuple[Callable[..., memoryview], tuple[Any, ...]]:
    """How a view is pickled: its bytes, in the order of its items.

    Raises:
        TypeError: its format is not one of the machine's own, so that no view of it can
            be made.
    """
    try:
        memoryview(bytes(view.itemsize)).cast(view.format)  # type: ignore[call-overload]
    except ValueError:
        msg = (
            f"a memoryview of the format {view.format!r} cannot be rebuilt: pass the "
            "object that it shows"
        )
        raise TypeError(msg) from None
    if view.c_contiguous:
        whole: Any = view
    else:
        whole = view.tobytes() if view.readonly else bytearray(view.tobytes())
    return _view, (pickle.PickleBuffer(whole), view.format, view.shape)


def _view(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(buffer).cast("B").cast(form, shape)  # type: ignore[call-overload, no-any-return]


def _cloudpickle() -> Any:
    """The module cloudpickle, or the copy of it that joblib brings.

    Raises:
        ImportError: cloudpickle is not installed, and joblib is not in use.
    """
    try:
        import cloudpickle
    except ImportError:
        if "joblib" not in sys.modules:
            raise
        from joblib.externals import cloudpickle
    return cloudpickle


class Carried:
    """A wrapper that pickles a value as calls are; unpickling gives the value itself.

    Args:
        value: the value.
        by_value: see `dump`.

    Raises:
        TransferError: the value cannot be pickled.
    """

    def __init__(self, value: object, *, by_value: bool = False) -> None:
        self._content = dump(value, value, by_value=by_value)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[bytes]]:
        return pickle.loads, (self._content,)


class _TooLargeError(Exception):
    """A pickle takes more bytes than allowed."""


class _Pieces:
    """The output of a pickler, up to a number of bytes.

    Pickle passes large buffers on without copying, so neither are they copied here if
    they are too large, or are taken apart.
    """

    __slots__ = ("_apart", "_left", "_most", "_pieces")

    def __init__(self, most: int, apart: Apart | None) -> None:
        self._left = self._most = most
        self._apart = apart
        self._pieces: list[bytes] = []

    def write(self, piece: bytes | pickle.PickleBuffer) -> None:
        size = len(piece) if type(piece) is bytes else memoryview(piece).nbytes
        if size >= LEAST and self._apart is not None:
            place = self._most - self._left
            if self._apart.take(piece, place):
                return
        self._left -= size
        if self._left < 0:
            raise _TooLargeError
        self._pieces.append(piece if type(piece) is bytes else bytes(piece))

    def content(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def dump_value(value: object, apart: Apart | None = None) -> bytes:
    """Pickle the return value of a call, to send it back.

    Args:
        value: the value.
        apart: takes the large buffers, which are then no part of the pickle.

    Raises:
        MemoryError: there is no memory for the pickle.
        TransferError: the value cannot be pickled.
    """
    try:
        return dump_plain(value, apart=apart)
    except MemoryError as error:
        raise _no_memory("result", error) from None
    except Exception as error:
        with contextlib.suppress(Exception):
            if _lacks_name(error):
                return _dump_by_value(value, sys.maxsize, apart)
        msg = (
            f"the result cannot be sent back to the caller ({error}): return what can "
            "be pickled, such as plain data"
        )
        raise TransferError(msg) from error


#: The modules of programs and of `code.interact`, which a worker may not have.
_NAMELESS = ("__main__", "__console__")


def _lacks_name(error: Exception) -> bool:
    """Whether pickle misses a class or function of the main module in this process.

    It was sent here by value. It goes back by value, too: then the caller gets an
    object of its own class, which cloudpickle has noted.

    Args:
        error: the error that pickle has raised.
    """
    missed = isinstance(error, (pickle.PicklingError, AttributeError))
    return missed and any(name in str(error) for name in _NAMELESS)


def traceback_of(error: BaseException) -> str:
    """The traceback of an error as Python prints it; if that fails, its class name."""
    return _formatted(traceback.format_exception, error)


def _formatted(
    formatter: Callable[[BaseException], list[str]], error: BaseException
) -> str:
    try:
        return "".join(formatter(error))
    except BaseException:  # noqa: BLE001 - formatting calls the user's code
        return f"{type(error).__qualname__}\n"


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless its class refuses attributes."""
    with contextlib.suppress(Exception):
        error.add_note(text)


class Failure(tuple):  # type: ignore[type-arg]
    """The return value of a task that has failed without raising; it holds the error.

    A pool passes it on like any value, but recognizes it: if memory ran out for a
    process that the task had started, the pool reports that as the task's error.
    """

    __slots__ = ()

    @property
    def error(self) -> BaseException:
        """The error, loaded from the second item, which `dump_error` has made."""
        return load_error(*self[1])


def dump_error(error: BaseException) -> tuple[bytes, str]:
    """The pickled error, or a pickled substitute, and its traceback as text."""
    text = traceback_of(error)
    try:
        content = _dump_checked(error)
    except RecursionError:
        content = _dump_bare(error)
    except BaseException:  # noqa: BLE001 - pickle calls the user's code
        content = _dump_substitute(error)
    return content, text


def _dump_checked(error: object) -> bytes:
    """The pickled error, which was unpickled once to see that it can be."""
    try:
        content = pickle.dumps(error)
    except Exception as refused:
        if not _lacks_name(refused):
            raise
        content = _dump_by_value(error, sys.maxsize) or b""
    pickle.loads(content)  # noqa: S301 - written one line above
    return content


class _Bare:
    """Pickles as an error alone, whatever `copyreg` says of errors."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return BaseException.__reduce__(self.error)


def _dump_bare(error: BaseException) -> bytes:
    """The pickled error without its traceback and causes, or a pickled substitute.

    Libraries such as tblib let `pickle` go through tracebacks and causes, which may be
    deeper than `pickle` can follow: those of a RecursionError are.
    """
    try:
        return _dump_checked(_Bare(error))
    except BaseException:  # noqa: BLE001 - pickle calls the user's code
        return _dump_substitute(error)


def _dump_substitute(error: BaseException) -> bytes:
    return pickle.dumps(_substitute(_formatted(traceback.format_exception_only, error)))


def load_error(content: bytes, text: str) -> BaseException:
    """The error from another process, or a substitute; its cause is the traceback."""
    error: object = None
    with contextlib.suppress(BaseException):  # pickle calls the user's code
        error = pickle.loads(content)  # noqa: S301 - from our own child
    if not isinstance(error, BaseException):
        error = _substitute(text.strip().rpartition("\n")[2])
    # The cause that the standard library's pool sets; it prints the text unchanged.
    from concurrent.futures.process import _RemoteTraceback

    # Bypass the class of the error, which may refuse attributes (a frozen dataclass).
    _CAUSE.__set__(error, _RemoteTraceback(f'\n"""\n{text}"""'))  # type: ignore[arg-type]
    return error


_CAUSE = BaseException.__dict__["__cause__"]


def _substitute(line: str) -> TransferError:
    """A substitute for an error that cannot be pickled or unpickled."""
    msg = (
        f"the task has raised {line.strip()}; that error cannot be sent to the caller "
        "as it is: let its class hand all its arguments to Exception.__init__, or "
        "define __reduce__"
    )
    return TransferError(msg)
