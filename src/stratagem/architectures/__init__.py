"""What fresh policies are made of, where a recipe has a say in it."""

from stratagem.architectures.agents import Agents, DependentActors, MixedValues, RelationalActors

__all__ = ["Agents", "DependentActors", "MixedValues", "RelationalActors"]
