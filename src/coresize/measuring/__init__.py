"""Measuring what a task or a command needs, by running it.

This file imports nothing: the process of a measured task needs only one module of the
package; others would make the idle worker look larger than it is.
"""
