"""The shards of a batch, started and waited for."""
