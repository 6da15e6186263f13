"""Deciding which job may start, and which running job has to end."""
