"""The checks of a diagnosis, one module per subject."""
