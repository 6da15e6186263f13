"""What tasks have taken before, and what that says of the next."""
