"""A pool of processes: workers, and the thread that gives them jobs."""
