"""A pool of processes: the workers, and the thread that gives them jobs."""
