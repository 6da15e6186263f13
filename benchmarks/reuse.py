"""joblib's calls with the backend "coresize", and with loky: ratios of their times.

python benchmarks/reuse.py

Each row is repeated in turns by both backends, and the least time of each counts. The
first call, which starts workers, is apart. The rows with scikit-learn need it.
"""

from __future__ import annotations

import sys
import time

import joblib

from coresize.adapters.joblib import register
from coresize.adapters.joblib_calls import NAME


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = (NAME, "loky")

#: Repetitions of each row.
ROUNDS = 5


def calls() -> None:
    """Make 20 calls of `joblib.Parallel` with 4 tasks each."""
    for _ in range(20):
        joblib.Parallel(2)(joblib.delayed(abs)(-n) for n in range(4))


def tasks() -> None:
    """Make one call with 20,000 tasks."""
    joblib.Parallel(2)(joblib.delayed(abs)(-n) for n in range(20_000))


def arrays() -> None:
    """Make one call with 20 arrays of 1.6 MB, which loky maps."""
    import numpy as np

    array = np.zeros(200_000)
    joblib.Parallel(2)(joblib.delayed(np.sum)(array) for _ in range(20))


def cross_validation() -> None:
    """Call cross_val_score 8 times, as scikit-learn's users do."""
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    x, y = make_classification(200, 8, random_state=0)
    for _ in range(8):
        cross_val_score(LogisticRegression(), x, y, n_jobs=2)


def feature_selection() -> None:
    """Fit a SequentialFeatureSelector: a call for each feature that is selected."""
    from sklearn.datasets import make_classification
    from sklearn.feature_selection import SequentialFeatureSelector
    from sklearn.linear_model import LogisticRegression

    x, y = make_classification(200, 8, random_state=0)
    SequentialFeatureSelector(
        LogisticRegression(), n_features_to_select=4, n_jobs=2, cv=3
    ).fit(x, y)


def measure(row: Callable[[], None]) -> list[list[float]]:
    """The seconds of the first run, and of the best later one, by backend."""
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(1 + ROUNDS):
        for backend in BACKENDS:
            start = time.perf_counter()
            with joblib.parallel_config(backend):
                row()
            times[backend].append(time.perf_counter() - start)
    return [[first, min(later)] for first, *later in times.values()]


def main() -> None:
    """Print one line a row."""
    register()
    print(f"{'':20}  first, s: ours  loky   later, s: ours   loky  ratio")
    for row in (calls, tasks, arrays, cross_validation, feature_selection):
        try:
            ours, loky = measure(row)
        except ImportError as error:
            print(f"{row.__name__:20}  {error}", file=sys.stderr)
            continue
        print(
            f"{row.__name__:20}  {ours[0]:14.2f} {loky[0]:5.2f} "
            f"{ours[1]:16.3f} {loky[1]:6.3f} {ours[1] / loky[1]:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
