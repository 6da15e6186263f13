from __future__ import annotations

import asyncio

from nested import double

from coresize import ProcessPoolExecutor, ThreadPoolExecutor, run_batch


async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    with ProcessPoolExecutor(1) as pool:
        one, two, batch = await asyncio.gather(
            loop.run_in_executor(pool, double, 1),
            asyncio.to_thread(double, 2),
            asyncio.to_thread(run_in_a_thread, [3, 4]),
        )
    return f"in the pool {one}, in a thread {two}, by the batch {batch}"


def run_in_a_thread(items):
    return run_batch(double, items, max_workers=1, progress=False).results()


if __name__ == "__main__":
    print(asyncio.run(main()))
