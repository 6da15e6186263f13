"""Texts of others on their way into files and lines of ours. Pure.

A text of a task, a file name or a journal may hold what a database cannot (surrogates,
which stand for bytes that are no UTF-8) or what forges a line (a newline, a sequence
that steers a terminal). It is told with escapes, so that nothing of it is lost.
"""

from __future__ import annotations


#: Characters of a text that are kept; the rest of a longer one is cut.
LONGEST = 1_000_000

_CUT = " ... cut: {} characters in all ... "


def storable(text: str) -> str:
    r"""A text as every database and every file in UTF-8 can hold it.

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
    r"""A text as a part of one line, which steers no terminal.

    >>> one_line("bad\nok: all is well \x1b[31m")
    'bad\\nok: all is well \\x1b[31m'
    """
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
