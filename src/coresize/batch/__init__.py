"""Runs many tasks to the end on any executor: outcomes, journal, shards, merge."""
