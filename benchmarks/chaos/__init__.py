"""Runs on a local Ray cluster that things happen to: what dies, and what the run comes to nevertheless."""
