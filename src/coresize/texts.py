"""Texts: foreign ones, decoded and made safe for our files and output; times. Pure.

A text from a task, a file name or a journal may contain characters that a database
cannot store (surrogates, which stand for bytes that are not UTF-8) or that forge a line
(a newline, a terminal control sequence). Such characters are escaped, so that nothing
is lost.
"""

from __future__ import annotations


def width(text: str) -> int:
    r"""The number of columns that a line of text takes in a terminal.

    >>> width("abc"), width("\u65e5\u672c"), width("e\u0301"), width("\U0001f600")
    (3, 4, 1, 2)
    """
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    import unicodedata  # few texts need it

    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0  # it joins the character before
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def rows_of(line: str, most: int) -> int:
    r"""The number of rows that a line takes in a terminal of so many columns.

    A wide character that would be cut by the edge begins the next row.

    >>> rows_of("abcdef", 3), rows_of("\u65e5\u672c\u8a9e", 3), rows_of("", 3)
    (2, 3, 1)
    """
    rows, used = 1, 0
    for taken in map(_columns, line):
        used += taken
        if used > most:
            rows, used = rows + 1, taken
    return rows


def cut(text: str, most: int) -> str:
    """A line of text that takes at most so many columns; the end is cut.

    >>> cut("a long line", 8), cut("short", 8)
    ('a lon...', 'short')
    """
    if width(text) <= most:
        return text
    dots = "..."[: max(0, most)]
    kept, left = "", most - len(dots)
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept += character
    return kept + dots


def cut_start(text: str, most: int) -> str:
    """The same, but the beginning is cut, as of a path.

    >>> cut_start("folder/of/file.log", 11)
    '...file.log'
    """
    if width(text) <= most:
        return text
    return cut(text[::-1], most)[::-1]


#: The most characters of a text that are kept; the middle of a longer text is cut.
LONGEST = 1_000_000

_CUT = " ... cut: {} characters in all ... "


#: The marks that begin texts in other encodings. Programs on Windows write them; that
#: of UTF-32 begins as that of UTF-16 does.
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_MARK = b"\xef\xbb\xbf"

#: The encodings of two or four bytes for a letter, and which part of the bytes of a
#: text in a Latin script is NUL, at least.
_WIDE = (("UTF-32LE", 0.6), ("UTF-32BE", 0.6), ("UTF-16LE", 0.3), ("UTF-16BE", 0.3))


def decode(data: bytes) -> str:
    r"""The text of a file that a user has written, without the mark that may begin it.

    Raises:
        UnicodeError: the text is not UTF-8, or has NUL characters; the message says
            how to convert it.

    >>> decode(b"\xef\xbb\xbfone\n"), decode("caf\xe9".encode())
    ('one\n', 'caf\xe9')
    >>> decode("one".encode("utf-16"))
    Traceback (most recent call last):
    ...
    UnicodeError: text in UTF-8: this is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it
    """
    encoding = _other_encoding(data)
    if encoding:
        command = f"`iconv -f {encoding} -t UTF-8`"
        msg = f"text in UTF-8: this is {encoding}; {command} converts it"
        raise UnicodeError(msg)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        msg = f"text without NUL characters: line {line} has one"
        raise UnicodeError(msg)
    try:
        return data.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        msg = (
            f"text in UTF-8: byte 0x{error.object[error.start]:02x} of line {line} is "
            "not; `iconv -f LATIN1 -t UTF-8` converts Latin-1, and CP1252 that of "
            "Windows"
        )
        raise UnicodeError(msg) from None


def undo_escapes(text: str) -> str:
    """A text that was read with surrogates for odd bytes, as `decode` takes it.

    Raises:
        UnicodeError: see `decode`.
    """
    if text.isascii() and "\0" not in text:
        return text
    return decode(text.encode("utf-8", "surrogateescape"))


def _other_encoding(data: bytes) -> str | None:
    """The encoding of a text that is not UTF-8, by its mark or its NUL bytes."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    part = data.count(b"\0") / max(len(data), 1)
    for encoding, least in _WIDE:
        if part >= least and _is_readable(data, encoding):
            return encoding
    return None


def _is_readable(data: bytes, encoding: str) -> bool:
    try:
        return "\0" not in data.decode(encoding)
    except UnicodeDecodeError:
        return False


def storable(text: str) -> str:
    r"""A text in a form that every database and every UTF-8 file can hold.

    >>> storable("caf\udce9 \0"), storable("two\nlines")
    ('caf\\udce9 \\x00', 'two\nlines')
    """
    if text.isascii() and len(text) <= LONGEST and "\0" not in text:
        return text
    if len(text) > LONGEST:
        half = LONGEST // 2 - len(_CUT)
        text = f"{text[:half]}{_CUT.format(len(text))}{text[-half:]}"
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: object) -> str:
    r"""A text in a form that fits into one line and cannot control a terminal.

    >>> one_line("bad\nok: all is well \x1b[31m")
    'bad\\nok: all is well \\x1b[31m'
    """
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


# --- Times in words ----------------------------------------------------------


def format_left(seconds: float) -> str:
    """A time that is left or has passed, in the unit that fits.

    >>> format_left(0), format_left(0.2), format_left(59), format_left(90)
    ('0 s', '1 s', '59 s', '1.5 min')
    >>> format_left(2 * 3600), format_left(1e6)
    ('2.0 h', '11.6 d')
    """
    for unit, length in _TIMES:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{-(-seconds // 1):.0f} s"


#: The units of long times, in seconds.
_TIMES = (("d", 86_400), ("h", 3600), ("min", 60))


def format_short(seconds: float) -> str:
    """A time that may be far below a second, with two digits.

    >>> format_short(0.25e-6), format_short(130e-6), format_short(0.0042)
    ('0.25 microseconds', '130 microseconds', '4.2 milliseconds')
    """
    unit, length = "seconds", 1.0
    if seconds < _ONE_SECOND:
        unit, length = "milliseconds", 1e-3
        if seconds < length * _ONE_SECOND:
            unit, length = "microseconds", 1e-6
    number = float(f"{seconds / length:.2g}")
    return f"{number:g} {unit.removesuffix('s') if number == 1 else unit}"


#: A little less than a second, which two digits show as a second.
_ONE_SECOND = 0.995
