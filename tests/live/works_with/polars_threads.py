from __future__ import annotations

import polars as pl

from coresize import ProcessPoolExecutor


def work(frame):
    return frame.select(pl.col("a").sum()).item(), pl.thread_pool_size()


if __name__ == "__main__":
    frame = pl.DataFrame({"a": [1, 2]})
    with ProcessPoolExecutor(2) as pool:
        print("sum {}, {} thread on 2 cores".format(*pool.submit(work, frame).result()))
