"""Foreign texts, made safe for our files and for lines of output. Pure.

A text from a task, a file name or a journal may contain characters that a database
cannot store (surrogates, which stand for bytes that are not UTF-8) or that forge a line
(a newline, a terminal control sequence). Such characters are escaped, so that nothing
is lost.
"""

from __future__ import annotations


#: The most characters of a text that are kept; the middle of a longer text is cut.
LONGEST = 1_000_000

_CUT = " ... cut: {} characters in all ... "


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
