"""Finding the best number of workers here: measured, fitted, recommended."""
