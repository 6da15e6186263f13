"""Options: what each is called, what it may be, and what is said of it, once for all.

Settings files, variables, the command line and functions read the same table. A new
option is a row of it, and the annotation of the attribute that holds its value.
"""

from __future__ import annotations

from coresize.detection.limits import ROUNDINGS
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    #: whole: a whole number. number: above 0. part: above 0, and up to 1. flag: true or
    #: false. choice: a text of several. text: any. size: bytes, or "auto". list: of
    #: texts. table: of anything, by name.
    OptionKind: TypeAlias = Literal[
        "whole", "number", "part", "flag", "choice", "text", "size", "list", "table"
    ]


class Option(Value):
    """One option.

    Attributes:
        name: in files and functions.
        kind: what its values are.
        allowed: what messages say is allowed.
        default: its value where nobody sets one.
        least: the least whole number.
        choices: the texts that are allowed.
        flag: its name on the command line; empty where it has none there.
        metavar: what stands for its value in the help.
        help: what the help says.
    """

    name: str
    kind: OptionKind
    allowed: str
    default: Any
    least: int
    choices: tuple[str, ...]
    flag: str
    metavar: str | None
    help: str


def option(
    name: str,
    kind: OptionKind,
    allowed: str,
    *,
    default: object = None,
    least: int = 0,
    choices: tuple[str, ...] = (),
    flag: str = "",
    metavar: str | None = None,
    help: str = "",  # noqa: A002 - as of argparse
) -> Option:
    """A row of a table of options; see `Option`."""
    return Option(
        name=name,
        kind=kind,
        allowed=allowed,
        default=default,
        least=least,
        choices=choices,
        flag=flag,
        metavar=metavar,
        help=help,
    )


_FLAG = "on or off: true or false"
_TABLES = "a table of tables, by name"

#: Every setting of coresize. Those that hold a single value have an environment
#: variable as well.
SETTINGS = (
    option(
        *("workers", "whole", "a whole number of workers above 0"),
        least=1,
        flag="--workers",
        metavar="N",
        help="run N workers, whatever would be planned",
    ),
    option(
        *("parallel", "flag", _FLAG),
        default=True,
        flag="--parallel",
        help="--no-parallel plans one worker",
    ),
    option(
        *("reserve_cores", "whole", "a whole number of cores, 0 or above"),
        default=0,
        flag="--reserve",
        metavar="N",
        help="whole cores to keep free",
    ),
    option(
        *("memory_fraction", "part", "a part above 0 and up to 1, such as 0.8"),
        default=0.8,
        flag="--memory-fraction",
        metavar="PART",
        help="of the available memory (default: 0.8)",
    ),
    option(
        *("rounding", "choice", '"nearest", "floor" or "ceil"'),
        default="nearest",
        choices=ROUNDINGS,
        flag="--rounding",
        help="how a fraction of a core is rounded",
    ),
    option("history", "flag", _FLAG, default=False),
    option("python", "flag", _FLAG, default=True),
    option("profiles", "table", _TABLES, default={}),
    option("kinds", "table", _TABLES, default={}),
)
