"""369 records that wait for a service, on threads, with a flag to go back to serial."""

from __future__ import annotations

import argparse
import time

from coresize import run_batch


def enrich(record: int) -> dict[str, int]:
    """Ask a service about a record; it answers after a while."""
    time.sleep(0.005)
    return {"record": record, "checksum": record * 2654435761 % 2**32}


def process(*, parallel: bool) -> tuple[list[object], float]:
    """All records, and the seconds that they took."""
    run = run_batch(
        enrich,
        range(369),
        executor="thread" if parallel else "serial",
        cpus=0.05,  # the part of its time that a record computes
        progress=True,
    )
    results = run.results()
    return results, run.report.elapsed


def main() -> None:
    """With the flag, in parallel; without one, both, to compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", action=argparse.BooleanOptionalAction)
    given = parser.parse_args()
    if given.parallel is not None:
        process(parallel=given.parallel)
        return
    serial, slow = process(parallel=False)
    threads, quick = process(parallel=True)
    same = "the same" if serial == threads else "other"
    print(f"{same} results, {slow / quick:.1f} times as fast on threads")


if __name__ == "__main__":
    main()
