"""``python -m coresize``."""

from coresize.cli import main


raise SystemExit(main())
