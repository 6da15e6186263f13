"""Planning worker counts from limits and needs: settings, profiles, and the rules."""
