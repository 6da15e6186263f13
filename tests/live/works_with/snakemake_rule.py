from __future__ import annotations

import json
from pathlib import Path

from nested import run


#: The journal is no output: Snakemake deletes the output of a job that failed. It also
#: sets OMP_NUM_THREADS and the like to `threads`, which would count in each worker.
RULES = """\
from coresize import plan_workers

rule double:
    output: "doubled.jsonl"
    threads: plan_workers()
    shell:
        "unset OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS; "
        "coresize batch nested:double_and_threads --items items.jsonl"
        " --max-workers {threads} --journal doubled.sqlite"
        " && coresize merge doubled.sqlite -o {output}"
"""


if __name__ == "__main__":
    Path("items.jsonl").write_text("1\n2\n")
    Path("Snakefile").write_text(RULES)
    run("snakemake", "--cores", "2", "--quiet")
    rows = map(json.loads, Path("doubled.jsonl").read_text().splitlines())
    doubled, threads = zip(*(row["value"] for row in rows), strict=True)
    print(f"in the output {list(doubled)}, threads of each worker {set(threads)}")
