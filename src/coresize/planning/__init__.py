"""From limits and needs to numbers: settings, profiles, and the rules of a plan."""
