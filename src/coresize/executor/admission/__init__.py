"""Which job may start, and which running one has to end."""
