"""Advantages from a trajectory's own rewards, with baselines that need no group and no critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class Constant(Advantage):
    """``A = value`` at every token; with the log-likelihood gate, supervised learning on the batch."""

    value: float = 1.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return torch.full((x.tokens,), self.value, device=x.device)


@dataclass(frozen=True)
class TotalReturn(Advantage):
    """``A_i = R_i``: the trajectory's return without a baseline (Williams 1992)."""

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return x.to_tokens(trajectory=x.returns)


@dataclass(frozen=True)
class MovingAverageBaseline(Advantage):
    """``A_i = R_i - b`` with ``b`` a moving average of past batches' mean return (Williams 1992).

    ``b`` of the first batch is 0; after each batch ``b <- decay b + (1 - decay) mean R``, divided by ``1 - decay^n``
    when used, so that early values are not drawn to 0. It does not depend on the actions it judges, so the gradient
    stays unbiased. ``b`` is remembered and checkpointed.
    """

    decay: Annotated[float, Ge(0), Lt(1)] = 0.9
    _memory: dict[str, Tensor] = field(
        default_factory=lambda: {"average": torch.zeros(()), "batches": torch.zeros(())},
        init=False,
        repr=False,
        compare=False,
    )

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        average, batches = self._memory["average"], self._memory["batches"]
        debias = 1 - self.decay ** float(batches)
        baseline = float(average) / debias if batches > 0 else 0.0
        advantage = x.to_tokens(trajectory=x.returns - baseline)
        if x.trajectories == 0:
            return advantage
        average.mul_(self.decay).add_((1 - self.decay) * float(x.returns.mean()))
        batches.add_(1)
        return advantage


@dataclass(frozen=True)
class RewardToGo(Advantage):
    """``A_t = sum_{s >= t} discount^(s - t) r_s`` over the tokens of a trajectory, each reward on its token.

    discount: per token, in [0, 1].
    """

    discount: Annotated[float, Ge(0), Le(1)] = 1.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return x.trajectory_of_token.discounted_scan(x.token_rewards(), x.token_discounts(self.discount))
