from __future__ import annotations

from joblib import Parallel, delayed
from nested import pool_inside

from coresize import plan_workers


if __name__ == "__main__":
    results = Parallel(n_jobs=plan_workers())(
        delayed(pool_inside)([number]) for number in (1, 2)
    )
    print("in the tasks", *results)
