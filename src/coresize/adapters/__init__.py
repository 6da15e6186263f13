"""Adapters of coresize for other libraries; only the adapter imports its library."""
