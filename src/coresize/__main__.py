"""The command ``coresize``, also as ``python -m coresize``."""

from __future__ import annotations

from coresize.interrupts import Interrupts


def main() -> int:
    """Run the command line; returns the exit status, also where it is interrupted."""
    interrupts = Interrupts("SIGINT")
    interrupts.guard()
    try:
        from coresize.cli import main as command
        from coresize.cli import streams

        try:
            status = command()
        except SystemExit as end:  # of argparse, which has said why
            status = end.code if isinstance(end.code, int) else 0
        status = streams.settle(status)
        interrupts.end()
    except KeyboardInterrupt:  # while it was imported, or after it was caught
        interrupts.end()
        return interrupts.status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
