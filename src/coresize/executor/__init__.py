"""Executors sized by what this process may use, and whose pools survive a kill.

Nothing is imported here: a worker needs few of these modules, and would import all.
"""
