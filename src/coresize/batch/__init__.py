"""Many tasks, run to the end over any executor: outcomes, journal, shards, merge."""
