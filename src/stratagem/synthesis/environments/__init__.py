"""Environments written by hand, which a pool begins with. They are read as text and run in the sandbox only."""
