from __future__ import annotations

from nested import double
from tqdm import tqdm
from tqdm.contrib.concurrent import process_map, thread_map

from coresize import ProcessPoolExecutor, plan_workers


if __name__ == "__main__":
    processes = process_map(double, [1], max_workers=plan_workers())
    threads = thread_map(double, [2], max_workers=plan_workers(kind="io"))
    with ProcessPoolExecutor(1) as pool:
        ours = list(tqdm(pool.map(double, [3]), total=1))
    print(f"process_map {processes}, thread_map {threads}, pool.map {ours}")
