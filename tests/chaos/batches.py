"""Batches to be attacked from outside; a program.

``python -m chaos.batches JOURNAL EXECUTOR ITEMS RETRY`` writes a line for each outcome
as soon as it is reported: key, status and value.
"""

from __future__ import annotations

import sys
import time

from coresize import run_batch


def value_of(number):
    return f"value of {number}: {number**2}"


def task(number):
    """A task that takes a moment, so that an attack finds it at work."""
    time.sleep(0.005)
    return value_of(number)


def run(journal, executor, count, **options):
    """The outcomes of the batch, wherever it is started."""
    return run_batch(
        task,
        range(count),
        executor=executor,
        max_workers=2,
        journal=journal,
        progress=False,
        **options,
    )


def main(journal, executor, count, *retry):
    for outcome in run(journal, executor, int(count), retry=retry):
        sys.stdout.write(f"{outcome.key}\t{outcome.status}\t{outcome.value}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
