"""An analysis of 60 users, of which one start does a part: --shard 0/4 to 3/4."""

from __future__ import annotations

import argparse
import time

from coresize import run_batch


USERS = [f"user-{number:02}" for number in range(60)]


def analyse(user: str) -> dict[str, object]:
    """What is found out about a user; the true one takes hours."""
    time.sleep(0.15)
    return {"user": user, "score": sum(map(ord, user)) % 100}


def main() -> None:
    """One shard, from where its journal says that it stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard", default=None)
    given = parser.parse_args()
    part = (given.shard or "0/1").replace("/", "-of-")
    run = run_batch(
        analyse,
        USERS,
        shard=given.shard,
        journal=f"users-{part}.sqlite",
        max_workers=1,
        progress=True,
    )
    run.wait()


if __name__ == "__main__":
    main()
