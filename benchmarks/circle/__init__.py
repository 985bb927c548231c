"""How techniques near the policy that nobody beats, as the documentation shows it."""
