"""Starts the shards of a batch, and waits for them."""
