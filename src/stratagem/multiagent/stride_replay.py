"""A ring buffer of agents that act at once, in which the steps of one agent lie a fixed stride apart."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class StrideReplay:
    """The last sweeps over all agents, in worlds side by side.

    Entry ``i`` belongs to agent ``i % agents``, and entry ``i + agents`` (from the last to the first) is that agent's
    next step, unless the pen lies between them; the time stamps tell.

    observations, actions, rewards, following: [worlds, sweeps * agents]; the last is the observation after the action.
    stamps: the step in which each entry was written, -1 for none; the same in all worlds.
    """

    def __init__(self, worlds: int, agents: int, sweeps: int) -> None:
        self.agents, self.sweeps, self.written = agents, sweeps, 0
        shape = (worlds, sweeps * agents)
        self.observations = torch.zeros(shape, dtype=torch.int64)
        self.actions = torch.zeros(shape, dtype=torch.int64)
        self.following = torch.zeros(shape, dtype=torch.int64)
        self.rewards = torch.zeros(shape)
        self.stamps = torch.full((sweeps * agents,), -1)

    @property
    def filled(self) -> int:
        """Sweeps it holds; they are the first entries."""
        return min(self.written, self.sweeps)

    def add(
        self,
        observations: Int64[Tensor, "worlds agents"],
        actions: Int64[Tensor, "worlds agents"],
        rewards: Float[Tensor, "worlds agents"],
        following: Int64[Tensor, "worlds agents"],
    ) -> None:
        """Write one step of all agents over the oldest one."""
        first = self.written % self.sweeps * self.agents
        here = slice(first, first + self.agents)
        self.observations[:, here], self.actions[:, here] = observations, actions
        self.rewards[:, here], self.following[:, here] = rewards, following
        self.stamps[here] = self.written
        self.written += 1

    def sequences(
        self, first: Int64[Tensor, "*batch"], length: int
    ) -> tuple[Int64[Tensor, "*batch length"], Bool[Tensor, "*batch"]]:
        """Entries of the steps that follow ``first`` of the same agent, and whether that is what they hold.

        They do where the last of them is written, ``stamp + length <= written``; beyond the pen lie older steps.
        """
        places = (first[..., None] + torch.arange(length) * self.agents) % len(self.stamps)
        stamps = self.stamps[first]
        return places, (stamps >= 0) & (stamps + length <= self.written)

    def targets(
        self, first: Int64[Tensor, "worlds batch"], length: int, discount: float
    ) -> tuple[Float[Tensor, "worlds batch"], Int64[Tensor, "worlds batch"], Float[Tensor, "worlds batch"]]:
        """Returns of ``length`` steps, the observation after them, and by how much its value is discounted.

        ``sum_k discount^k r_k`` and ``discount^length``; of sequences that are not whole, of their first step alone.
        """
        places, whole = self.sequences(first, length)
        powers = discount ** torch.arange(length + 1)
        counted = whole[..., None] | (torch.arange(length) == 0)
        rewards = self.rewards.gather(1, places.flatten(1)).view(places.shape)
        last = torch.where(whole, places[..., -1], places[..., 0])
        returns = (rewards * counted * powers[:-1]).sum(-1)
        return returns, self.following.gather(1, last), torch.where(whole, powers[length], powers[1])
