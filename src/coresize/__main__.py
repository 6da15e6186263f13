"""The command ``coresize``, also as ``python -m coresize``."""

from __future__ import annotations

import sys

from coresize.interrupts import Interrupts


#: The sub-commands that start programs, which may leave processes behind.
_STARTING = ("run", "batch", "shards", "sweep", "profile")


def main() -> int:
    """Run the command line and return the exit status, also when interrupted."""
    if sys.argv[1:2] and sys.argv[1] in _STARTING:
        from coresize.processes.init import leave_process_1

        leave_process_1()
    interrupts = Interrupts("SIGINT")
    interrupts.guard()
    try:
        from coresize.cli import main as command
        from coresize.cli import streams

        try:
            status = command()
        except SystemExit as exit_:  # from argparse, which has printed the reason
            status = exit_.code if isinstance(exit_.code, int) else 0
        status = streams.settle(status)
        interrupts.end()
    except KeyboardInterrupt:  # during the import, or after the command caught one
        interrupts.end()
        return interrupts.status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
