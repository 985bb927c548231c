"""Multi-agent learning: many agents that learn at once, and games that are played again and again."""
