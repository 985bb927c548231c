"""The lattice prisoner's dilemma: agents on a torus, each of which plays its four neighbours at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.validation import validate_fields

COOPERATE, DEFECT = 0, 1

OBSERVATIONS = 32
"""What an agent can see: four actions of its neighbours and its own, all of the round before."""

BITS = (torch.arange(OBSERVATIONS)[:, None] >> torch.arange(5)) & 1
"""Observations as five binary numbers (1: defected): the neighbours up, right, down and left, and the agent itself."""

COOPERATING = 4 - BITS[:, :4].sum(-1)
"""How many neighbours cooperated, by observation."""


@dataclass(frozen=True)
class Lattice:
    """``side x side`` agents on a torus. Actions are 0, cooperate, and 1, defect; all act at once.

    With a neighbour both earn 1 when they cooperate and 0 when they defect; who defects alone earns ``1 + temptation``
    and the other ``-temptation``. An agent's reward is the mean over its four neighbours (arXiv 2601.05509).

    Cells are numbered by rows. Raises :class:`InputError` for a side below 3, where neighbours would coincide.
    """

    side: Annotated[int, Ge(3)] = 30

    def __post_init__(self) -> None:
        validate_fields(self, "lattice")

    @property
    def agents(self) -> int:
        """How many there are."""
        return self.side**2

    @cached_property
    def neighbours(self) -> Int64[Tensor, "agents 4"]:
        """Cells up, right, down and left of each."""
        row, column = torch.arange(self.agents) // self.side, torch.arange(self.agents) % self.side
        up, down, right, left = ((x + by) % self.side for x, by in ((row, -1), (row, 1), (column, 1), (column, -1)))
        return torch.stack([up * self.side + column, row * self.side + right, down * self.side + column,
                            row * self.side + left], -1)  # fmt: skip

    def observations(self, actions: Int64[Tensor, "*worlds agents"]) -> Int64[Tensor, "*worlds agents"]:
        """What each agent sees after these actions, numbered by :data:`BITS`, the first of which counts 1."""
        around: Tensor = actions[..., self.neighbours.flatten()].view(*actions.shape, 4)
        return (around * _WEIGHTS).sum(-1) + 16 * actions

    def rewards(
        self, actions: Int64[Tensor, "worlds agents"], temptation: float | Sequence[float]
    ) -> Float[Tensor, "worlds agents"]:
        """What these actions earn. temptation: of all worlds, or of each. Raises :class:`InputError` as below."""
        return payoffs(temptation, len(actions)).gather(1, self.observations(actions))

    def clusters(self, actions: Int64[np.ndarray, " agents"]) -> Int64[np.ndarray, " clusters"]:
        """Sizes of the connected groups of cooperators, largest first."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        cooperates = np.asarray(actions) == COOPERATE
        here, there = np.repeat(np.arange(self.agents), 2), self.neighbours[:, 1:3].numpy().ravel()
        joined = cooperates[here] & cooperates[there]
        edges = (np.ones(joined.sum()), (here[joined], there[joined]))
        _, group = connected_components(coo_array(edges, shape=(self.agents, self.agents)), directed=False)
        sizes = np.bincount(group[cooperates])
        return np.sort(sizes[sizes > 0])[::-1]


_WEIGHTS = 2 ** torch.arange(4)


def payoffs(temptation: float | Sequence[float], worlds: int) -> Float[Tensor, "worlds observations"]:
    """What an agent earned in a round after which it sees an observation, in worlds of these temptations.

    ``share (1 + temptation)`` for a defector and ``share - temptation (1 - share)`` for a cooperator, with ``share``
    that of neighbours who cooperated. Raises :class:`InputError` for a temptation that is negative or not finite, and
    for as many as there are not worlds.
    """
    given = np.asarray(temptation, dtype=np.float64)
    given = np.full(worlds, given) if given.ndim == 0 else given
    if given.shape != (worlds,):
        raise InputError(f"temptation: {given.size} values for {worlds} worlds; give one, or one for each")
    if not np.all(np.isfinite(given) & (given >= 0)):
        raise InputError(f"temptation = {temptation}: must be finite and at least 0")
    share, defects = COOPERATING / 4, BITS[:, 4]
    moved = torch.from_numpy(given.astype(np.float32))[:, None]
    return share + moved * (share - 1 + defects)
