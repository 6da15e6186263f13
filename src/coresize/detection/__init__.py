"""What limits this process: every source that the system has, asked and parsed."""
