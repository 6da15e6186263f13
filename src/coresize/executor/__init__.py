"""Executors that fit what this process may use, and that survive a kill.

Nothing is imported here: a worker, which needs one module of these, would pay for all.
"""
