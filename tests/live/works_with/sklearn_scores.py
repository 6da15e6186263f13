from __future__ import annotations

import joblib
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import cross_val_score

from coresize.adapters.joblib import register


if __name__ == "__main__":
    data, classes = [[number] for number in range(6)], [0, 0, 0, 1, 1, 1]
    register()
    with joblib.parallel_config("coresize"):
        scores = cross_val_score(DummyClassifier(), data, classes, cv=3, n_jobs=-1)
    print("scores", scores.tolist())
