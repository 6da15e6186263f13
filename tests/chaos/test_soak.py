"""Ways of all tables by chance, for as many minutes as are asked for.

``nox -s chaos -- 30``, or ``CORESIZE_CHAOS_MINUTES=30 pytest tests/chaos/test_soak.py``
"""

from __future__ import annotations

import os
import sys
import time

import pytest
from chaos import evils, pools, test_batches, test_endings, test_evils, test_pools
from chaos.harness import dice


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Taken away, as coresize tells of variables that look like its own and are none.
MINUTES = float(os.environ.pop("CORESIZE_CHAOS_MINUTES", "0"))

WAYS = [
    *((test_evils.test_an_evil_task_costs_itself_alone, [name]) for name in evils.WAYS),
    *((test_pools.test_a_pool_in_a_hard_place_loses_nothing, n) for n in pools.NAMES),
    *(
        (test_batches.test_an_attacked_batch_goes_on_to_the_same_end, attack)
        for attack in test_batches.ATTACKS
    ),
    *(
        (test_endings.test_a_program_ends_with_work_at_hand, name)
        for name in test_endings.ENDINGS
    ),
]


@pytest.mark.skipif(not MINUTES, reason="CORESIZE_CHAOS_MINUTES says for how long")
def test_ways_by_chance(tmp_path):
    chance = dice("soak")
    end, wrong, number = time.monotonic() + 60 * MINUTES, [], 0
    while time.monotonic() < end:
        number += 1
        test, way = chance.choice(WAYS)
        folder = tmp_path / f"{number}"
        folder.mkdir()
        try:
            test(folder, way)
        except AssertionError as error:
            wrong.append(f"{number}: {test.__name__}, {way}: {error}"[:3000])
    assert number
    assert wrong == []
