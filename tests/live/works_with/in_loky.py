from __future__ import annotations

import loky
from nested import pool_inside


if __name__ == "__main__":
    with loky.ProcessPoolExecutor(1) as pool:
        print("in the task", *pool.map(pool_inside, [[1, 2]]))
