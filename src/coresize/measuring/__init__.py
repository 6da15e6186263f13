"""What a task or a command needs, by running it.

Nothing is imported here: the process of a task, which needs one module of these, would
pay for all, and be taken for a larger idle worker than it is.
"""
