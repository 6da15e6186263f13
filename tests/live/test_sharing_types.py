"""Tables of pandas, polars, pyarrow and SciPy go by shared memory: see test_sharing."""

from __future__ import annotations

from test_sharing import pool, test_tables_travel_there_and_back


__all__ = ["pool", "test_tables_travel_there_and_back"]
