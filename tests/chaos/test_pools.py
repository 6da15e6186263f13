"""Pools in hard places: each row is a function of `chaos.pools`, in a program."""

from __future__ import annotations

import sys

import pytest
from chaos import pools
from chaos.harness import Program, dice


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize("name", pools.NAMES)
def test_a_pool_in_a_hard_place_loses_nothing(tmp_path, name):
    with Program(tmp_path, "pools", name, dice(name).random()) as program:
        assert program.end() == 0, program.told()
        program.check_nothing_left()
