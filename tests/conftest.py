"""What every test needs: an environment that changes no answer."""

from __future__ import annotations

import os

from coresize import settings
from coresize.batch import arrays, shards, status
from coresize.detection import environ


# Before any test, and for the programs they start: a variable that detection reads may
# well be set where these tests run, in a batch job for instance.
_BATCH = arrays.NAMES | {shards.SHARD, status.STATUS}
for _name in environ.NAMES | settings.NAMES | _BATCH:
    os.environ.pop(_name, None)
