from __future__ import annotations

import numba

from coresize import ProcessPoolExecutor


@numba.njit(parallel=True)
def triangle(number):
    total = 0
    for value in numba.prange(number):
        total += value
    return total


def work(number):
    return triangle(number), numba.get_num_threads()


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print("sum {}, {} thread on 2 cores".format(*pool.submit(work, 10).result()))
