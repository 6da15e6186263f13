from __future__ import annotations

from nested import run


CELL = """\
from coresize import ProcessPoolExecutor

def double(number):
    return 2 * number

with ProcessPoolExecutor(1) as pool:
    print("in the cell", list(pool.map(double, [1, 2])))
"""


if __name__ == "__main__":
    print(run("jupyter", "run", input=CELL).strip())
