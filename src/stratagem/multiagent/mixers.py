"""How a team's action value is made of its agents' utilities: added up, or monotone in each of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.seeding import generator


class Mixer(nn.Module):
    """``Q_tot(s, Q_1, ..., Q_n)``; what raises a utility never lowers it, so each agent may choose by its own."""

    def forward(
        self, utilities: Float[Tensor, "turns agents"], state: Float[Tensor, "turns features"]
    ) -> Float[Tensor, " turns"]:
        """The team's value of the actions these are the utilities of."""
        raise NotImplementedError


class Sum(Mixer):
    """``Q_tot = sum_i Q_i`` (VDN, arXiv 1706.05296)."""

    def forward(
        self, utilities: Float[Tensor, "turns agents"], state: Float[Tensor, "turns features"]
    ) -> Float[Tensor, " turns"]:
        return utilities.sum(1)


class Monotone(Mixer):
    """``Q_tot = elu(q |W_1(s)| + b_1(s)) |w_2(s)| + b_2(s)`` (QMIX, arXiv 1803.11485).

    ``W_1``, ``b_1`` and ``w_2`` are linear in the state, ``b_2`` has a hidden layer with ReLU. No utility has a
    negative weight, so ``dQ_tot / dQ_i >= 0``: the agents' own best actions together are the team's best, in any state.

    ``b_1`` and ``b_2`` begin at 0 in every state, so that a team whose utilities are 0 begins with the value 0. Drawn
    as torch draws them, as in the released code, values begin between 0 and 3: a team that can earn 1 at most then
    thinks better of going on than of what ends the game, and unlearns that by a hundredth with each target.

    agents: how many.  state_features: numbers in the state.  width: of the hidden layer.  seed: of the weights.
    """

    def __init__(self, agents: int, state_features: int, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.agents, self.width = agents, width
        source = generator(seed, "mixer")
        self.first_weight = _linear(state_features, agents * width, source)
        self.first_bias = _nought(_linear(state_features, width, source))
        self.last_weight = _linear(state_features, width, source)
        last = _nought(_linear(width, 1, source))
        self.last_bias = nn.Sequential(_linear(state_features, width, source), nn.ReLU(), last)

    def forward(
        self, utilities: Float[Tensor, "turns agents"], state: Float[Tensor, "turns features"]
    ) -> Float[Tensor, " turns"]:
        weight = self.first_weight(state).abs().view(-1, self.agents, self.width)
        hidden = nn.functional.elu(torch.einsum("ta,taw->tw", utilities, weight) + self.first_bias(state))
        mixed: Tensor = (hidden * self.last_weight(state).abs()).sum(1) + self.last_bias(state).squeeze(1)
        return mixed


def _linear(inputs: int, outputs: int, source: torch.Generator) -> nn.Linear:
    """A linear map initialised as torch does, from this generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=source)
        layer.bias.uniform_(-bound, bound, generator=source)
    return layer


def _nought(layer: nn.Linear) -> nn.Linear:
    """The layer, saying 0 to begin with."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def make_mixer(name: str | None, agents: int, state_features: int, width: int, seed: int) -> Mixer | None:
    """The mixer of this name: ``sum``, ``monotone``, or None, for agents that each learn alone."""
    if name is None:
        return None
    return Sum() if name == "sum" else Monotone(agents, state_features, width, seed)
