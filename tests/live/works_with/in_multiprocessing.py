from __future__ import annotations

import multiprocessing

from nested import pool_inside


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print("in the task", *pool.map(pool_inside, [[1, 2]]))
