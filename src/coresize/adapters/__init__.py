"""coresize for other libraries; each is imported inside the adapter that needs it."""
