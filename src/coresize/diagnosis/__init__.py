"""Why is it slow here: checks of a machine, each with what was seen and what to do."""
