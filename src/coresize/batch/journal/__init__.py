"""The journal of a batch: the file, its lock, its status file, merge and export."""
