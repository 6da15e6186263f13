"""Ways of `evils`, each tried on a pool's futures, its map, and a batch; a program.

For each way it writes a line of JSON, with what became of every item:
``["forks", {"submit": {"0": ["ok", "value of 0: 0"], ...}, ...}]``.
"""

from __future__ import annotations

import functools
import json
import sys
import traceback
import warnings
from pathlib import Path

from chaos import evils
from chaos.leaks import nothing_left

from coresize import (
    ProcessPoolExecutor,
    TaskCrashedError,
    TaskKilledError,
    TaskOutOfMemoryError,
    run_batch,
)


COUNT = 16

#: Seconds after which a future is said to be left for ever.
_PATIENCE = 45


def main(folder: Path, names: list[str]) -> None:
    """Try one way after the other."""
    for name in names:
        found = {}
        try:
            with nothing_left():
                _try(name, folder, found)
        except BaseException:  # noqa: BLE001 - it is told, and the next is tried
            found["error"] = traceback.format_exc()
        with (folder / "found").open("a") as file:
            file.write(json.dumps([name, found]) + "\n")


def _try(name, folder, found):
    way, call = evils.WAYS[name], functools.partial(evils.act, name)
    items = [way.item(n) if evils.is_evil(n) else n for n in range(COUNT)]
    with ProcessPoolExecutor(2) as pool:
        submitted = [pool.submit(call, item) for item in items]
        mapped = pool.map(evils.value_of, range(COUNT))
        found["submit"] = {
            str(n): _ended(way, n, future) for n, future in enumerate(submitted)
        }
        found["map"] = dict(_mapped(mapped))
    journal = folder / f"{name}.sqlite"
    for start in ("first start", "second start"):
        found[start] = _batch(way, call, items, journal)


def _mapped(mapped):
    """The values of a map, which ends at its first error: all the rest is of that."""
    for number in range(COUNT):
        try:
            yield str(number), ["ok", next(mapped)]
        except TaskKilledError as error:
            told = _told(error)
            yield from ((str(rest), told) for rest in range(number, COUNT))
            return


def _batch(way, call, items, journal):
    found = {}
    run = run_batch(
        call,
        items,
        key=int,
        journal=journal,
        serializer="pickle",
        max_workers=2,
        progress=False,
    )
    for outcome in run:
        assert outcome.key not in found, f"{outcome.key} has ended twice"
        text = (
            _value(way, outcome.index, outcome.value)
            if outcome.error is None
            else _text(outcome.error)
        )
        found[outcome.key] = [outcome.status, text]
    return found


def _ended(way, number, future):
    error = future.exception(_PATIENCE)
    if error is None:
        return ["ok", _value(way, number, future.result())]
    return _told(error)


def _told(error):
    for cls, status in (
        (TaskOutOfMemoryError, "oom"),
        (TaskCrashedError, "crashed"),
        (TaskKilledError, "killed"),
    ):
        if issubclass(type(error), cls):
            return [status, _text(error)]
    return ["failed", _text(error)]


def _value(way, number, value):
    return way.same(value) if evils.is_evil(number) else value


def _text(error):
    """The class and text of an error, whatever it does when it is asked."""
    try:
        return f"{type(error).__name__}: {error}"[:2000]
    except BaseException as other:  # noqa: BLE001 - it may do anything
        return f"{type(error).__name__}: no text, {type(other).__name__}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2:])
