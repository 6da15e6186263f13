"""Which number of workers is best here: measured, fitted, recommended."""
