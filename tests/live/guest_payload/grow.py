"""Two tasks that grow beyond what was declared for them, if anything was."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import time


sys.path[:0] = ["/payload/src", "/payload/libraries"]
MIB = 1024**2


def grow(mebibytes: int) -> int:
    """Take so much, a little at a time."""
    kept = []
    for _ in range(mebibytes // 5):
        kept.append(bytearray(b"x") * (5 * MIB))
        time.sleep(0.05)
    return len(kept) * 5


def main() -> None:
    """Print what the tasks returned, what was warned about, and what is kept free."""
    from coresize import ProcessPoolExecutor
    from coresize.executor.admission.memory import Headroom
    from coresize.processes.oom import OomCounter

    warnings = logging.handlers.BufferingHandler(100)
    warnings.setLevel(logging.WARNING)
    logging.getLogger("coresize").addHandler(warnings)
    need, size = os.environ.get("NEED"), int(os.environ["SIZE"])
    with ProcessPoolExecutor(2, memory=need) as pool:
        futures = [pool.submit(grow, size) for _ in range(2)]
        done = [repr(future.exception() or future.result()) for future in futures]
    pressure = Headroom()
    answer = {
        "done": done,
        "warnings": [record.getMessage() for record in warnings.buffer],
        "kept_free": [pressure.hard, pressure.soft],
        "kills": OomCounter(os.getpid()).count(),
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
