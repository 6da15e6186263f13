"""What a diagnosis looks at, one module for each check."""
