from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from nested import pool_inside


if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        print("in the task", *pool.map(pool_inside, [[1, 2]]))
