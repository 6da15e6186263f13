from __future__ import annotations

import json
from pathlib import Path

from nested import run


#: The journal is no output: Snakemake deletes the output of a job that failed.
RULES = """\
from coresize import plan_workers

rule double:
    output: "doubled.jsonl"
    threads: plan_workers()
    shell:
        "coresize batch nested:double --items items.jsonl --workers {threads}"
        " --journal doubled.sqlite && coresize merge doubled.sqlite -o {output}"
"""


if __name__ == "__main__":
    Path("items.jsonl").write_text("1\n2\n")
    Path("Snakefile").write_text(RULES)
    run("snakemake", "--cores", "2", "--quiet")
    rows = map(json.loads, Path("doubled.jsonl").read_text().splitlines())
    print("in the output", [row["value"] for row in rows])
