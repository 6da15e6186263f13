from __future__ import annotations

import pandas as pd

from coresize import ProcessPoolExecutor


def double_column(part):
    return part.assign(b=2 * part["a"])


if __name__ == "__main__":
    frame = pd.DataFrame({"a": [1, 2, 3]})
    with ProcessPoolExecutor(2) as pool:
        parts = [frame[:2], frame[2:]]
        print("the column", pd.concat(pool.map(double_column, parts))["b"].tolist())
