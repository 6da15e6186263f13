"""What tasks took in earlier runs, and what the next will need by that."""
