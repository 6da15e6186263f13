"""Why is it slow here? Checks of a machine; each finding has evidence and advice."""
