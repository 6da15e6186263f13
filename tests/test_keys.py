"""Keys of items: the same at every start, and others for other items."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import os
import pathlib
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ConfigError
from coresize.batch.keys import bucket, named, stable_key
from coresize.storage import SeenKeys


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
)
VALUES = st.recursive(
    SCALARS | st.datetimes() | st.decimals(allow_nan=False) | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.frozensets(st.text() | st.integers(), max_size=4)
    ),
    max_leaves=12,
)


def _again(value):
    """The same content, made anew, with everything unordered in another order."""
    if isinstance(value, dict):
        return {key: _again(value[key]) for key in reversed(list(value))}
    if isinstance(value, frozenset):
        return frozenset(reversed(list(value)))
    if isinstance(value, (list, tuple)):
        return type(value)(_again(one) for one in value)
    return value


@given(value=VALUES)
def test_equal_content_has_an_equal_key(value):
    assert stable_key(value) == stable_key(_again(value))


@given(one=VALUES, two=VALUES)
def test_other_content_has_another_key(one, two):
    # 17 and "17" are both known as 17; of 1 and True, 1.0 and 1 the types differ.
    if repr(one) != repr(two) and str(one) != str(two) and one != two:
        assert stable_key(one) != stable_key(two)


@given(value=VALUES)
def test_a_key_can_be_shown_and_is_not_long(value):
    key = stable_key(value)
    assert 0 < len(key) <= 200 or isinstance(value, int)
    assert key.isprintable()


@given(key=st.text(), count=st.integers(1, 1000))
def test_a_key_is_in_one_bucket(key, count):
    assert 0 <= bucket(key, count) < count
    assert bucket(key, 1) == 0


class Color(enum.Enum):
    RED = 1


class Text(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    y: object


class Model(pydantic.BaseModel):
    name: str
    parts: dict[str, int]


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - the old kind is meant

#: What people give as items; each has a key of its own.
ITEMS = [
    None,
    True,
    1,
    1.0,
    "",
    "1\n",
    "x" * 300,
    b"1",
    bytearray(b"1"),
    1j,
    decimal.Decimal("1.0"),
    (1,),
    [1],
    {1},
    frozenset({1}),
    {"a": 1, "b": {"c", "d", "e"}},
    {1: "a", "1": "a"},
    OrderedDict(a=1),
    defaultdict(int, a=1),
    dt.date(2020, 1, 1),
    dt.datetime(2020, 1, 1),  # noqa: DTZ001 - naive ones are items, too
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.time(1),
    dt.timedelta(1),
    uuid.UUID(int=1),
    pathlib.PurePosixPath("/a"),
    Color.RED,
    Text("text"),
    Point(1, [2, {3, 4}]),
    Model(name="a", parts={"b": 1}),
    Pair(1, 2),
    np.arange(3),
    np.arange(3.0),
    np.arange(4).reshape(2, 2),
    np.float64(1.5),
    np.int64(1),
    np.bool_(1),
]


def test_items_of_many_kinds_have_keys_of_their_own():
    keys = [stable_key(item) for item in ITEMS]
    assert len(set(keys)) == len(ITEMS)


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_a_key_is_the_same_in_every_process(seed):
    """Whatever it hashes texts with, and in whichever order sets therefore are."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_keys\n"
        "print(*map(test_keys.stable_key, test_keys.ITEMS), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(pathlib.Path(__file__).parent)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
    )
    assert done.stdout.split("\n")[:-1] == [stable_key(item) for item in ITEMS]


@pytest.mark.parametrize(
    ("item", "name", "key"),
    [
        ({"x": 5}, "x", 5),
        (Point(5, None), "x", 5),
        (Model(name="a", parts={}), "name", "a"),
        (Pair("a", "b"), "b", "b"),
    ],
)
def test_a_key_may_be_a_field_or_an_attribute(item, name, key):
    assert named(name)(item) == key


@pytest.mark.parametrize("item", [{"x": 5}, Point(5, None), Pair(1, 2), 3])
def test_a_field_that_is_not_there_is_no_key(item):
    with pytest.raises(ConfigError, match="use a field of every item, which this one"):
        named("items")(item)


class Odd:
    """Has no content that could be told."""


@pytest.mark.parametrize(
    "item", [Odd(), [Odd()], {"a": Odd()}, Odd, len, np.array([Odd()]), iter([])]
)
def test_what_has_no_stable_content_has_no_key(item):
    with pytest.raises(ConfigError, match="key=, a function that gives each item"):
        stable_key(item)


def test_keys_are_known_in_memory_and_in_a_file():
    with contextlib.closing(SeenKeys()) as seen:
        for number in range(60_000):  # more than are kept in memory
            assert seen.add(f"k{number}", number) is None
        for number in (0, 49_999, 50_000, 59_999):
            assert seen.add(f"k{number}", -1) == number
        assert seen.add("another", 7) is None
        assert seen.add("another", 8) == 7
