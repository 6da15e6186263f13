from __future__ import annotations

import joblib
from nested import double

from coresize.adapters.joblib import register


if __name__ == "__main__":
    register()
    with joblib.parallel_config("coresize", n_jobs=-1):
        results = joblib.Parallel()(joblib.delayed(double)(n) for n in (1, 2))
        print(f"{results}, {joblib.effective_n_jobs(-1)} jobs on 2 cores")
