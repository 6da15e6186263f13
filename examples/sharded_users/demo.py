"""Four shards of which one is killed; then resumed, and merged without a gap."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


COMMAND = [sys.executable, "-m", "coresize"]
SHARDS = [sys.executable, str(Path(__file__).with_name("analyse.py")), "--shard"]


def kill_one() -> None:
    """Wait until the second shard is in the middle of its work, and kill it."""
    status = Path("users-1-of-4.sqlite.status.json")
    while not (status.exists() and json.loads(status.read_text())["done"] >= 1):
        time.sleep(0.05)
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)


def main() -> None:
    """In the working folder, which should be empty."""
    with subprocess.Popen([*COMMAND, "shards", "4", "--", *SHARDS, "{shard}"]) as four:
        kill_one()
    print(f"shards ended with {four.returncode}\n")
    subprocess.run([*COMMAND, "status", *map(str, Path().glob("*.sqlite"))], check=True)

    journals = sorted(map(str, Path().glob("*.sqlite")))
    merge = [*COMMAND, "merge", *journals, "-o", "users.csv"]
    refused = subprocess.run(merge, check=False)
    print(f"merge ended with {refused.returncode}: one shard is not whole\n")

    subprocess.run([*SHARDS, "1/4"], check=True)  # as `coresize shards` has said
    subprocess.run(merge, check=True)
    with Path("users.csv").open() as table:
        keys = [row["key"] for row in csv.DictReader(table)]
    print(f"{len(keys)} users, {len(set(keys))} of them different")


if __name__ == "__main__":
    main()
