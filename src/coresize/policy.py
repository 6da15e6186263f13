"""From what may be used to a count of workers. Pure, and the only place that rounds."""

from __future__ import annotations

from coresize.errors import ConfigError


ROUNDINGS = ("nearest", "floor", "ceil")


def whole_cores(
    limit: float | None, *, rounding: str = "nearest", reserve: int = 0
) -> int:
    """The whole cores in a limit, at least 1.

    Args:
        limit: cores, maybe a fraction; None when nothing is known, which counts as 1.
        rounding: "nearest" (a half goes up), "floor" or "ceil".
        reserve: whole cores to keep free, taken off after rounding.

    Raises:
        ConfigError: rounding or reserve is none of these.

    >>> whole_cores(8.342), whole_cores(1.5), whole_cores(0.2)
    (8, 2, 1)
    >>> whole_cores(1.5, rounding="floor"), whole_cores(8.342, reserve=2)
    (1, 6)
    """
    if rounding not in ROUNDINGS:
        raise ConfigError("rounding", rounding, '"nearest", "floor" or "ceil"')
    if type(reserve) is not int or reserve < 0:
        raise ConfigError("reserve", reserve, "a whole number of cores, 0 or above")
    cores = limit or 0.0
    if rounding == "nearest":
        whole = (cores + 0.5) // 1
    elif rounding == "floor":
        whole = cores // 1
    else:
        whole = -(-cores // 1)
    return max(1, int(whole) - reserve)
