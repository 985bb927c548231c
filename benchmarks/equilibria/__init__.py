"""How fast solvers come near an equilibrium, as the documentation shows it."""
