"""How far populations by learned responses come beside those by exact ones, as the documentation shows it."""
