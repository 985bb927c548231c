"""Likelihood of wrong answers under a negative policy that the trained one implies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.masking import only
from stratagem.parts import Gate

RATIO_LIMIT = math.exp(10)
"""Ratios are clamped to this, and to its inverse, as in the code released with the paper."""

PASS_RATE_LIMIT = 0.02
"""Pass rates are kept this far from 0 and 1 where something is divided by them."""


@dataclass(frozen=True)
class ImplicitNegative(Gate):
    """``log R`` on right answers, ``log max((1 - r R) / (1 - r), floor)`` on wrong ones: NFT (arXiv 2505.18116).

    ``r`` is the group's pass rate and ``R`` the ratio. If the policy is the right part of the old one, as Bayes' rule
    splits it, ``pi_old = r pi + (1 - r) pi_wrong``, then ``(1 - r R) / (1 - r)`` is the ratio of the wrong part. The
    maximum is straight-through: below the floor the value is cut, and the derivative of ``log`` at the floor goes on to
    ``R``. Right and wrong are by ``x.success``; of the advantage nothing is read. Groups all right or all wrong hold no
    contrast and weigh nothing.

    weight: of a group, ``centered`` (``1 - r``, on policy the gradient of Dr. GRPO), ``standardized``
    (``sqrt((1 - r) / r)``, that of GRPO with the population's deviation) or ``equal`` (1).
    negative: weight of the wrong answers; 0 is fine-tuning on right answers alone, and the released code suggests 0.5
    for a model of 32 billion parameters.
    floor: above 0; at 1, the released code's default, a wrong answer's value is 0 while ``R >= 1``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"pass_rate", "success"})

    weight: Literal["centered", "standardized", "equal"] = "centered"
    negative: Annotated[float, Ge(0)] = 1.0
    floor: Annotated[float, Gt(0)] = 1.0

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if x.success is None or x.pass_rate is None:
            raise ValueError(
                "the implicit negative policy needs success and pass_rate; recipe.prepare(x) notes the latter"
            )
        ratio = ratio.clamp(1 / RATIO_LIMIT, RATIO_LIMIT)
        share = x.to_tokens(group=x.pass_rate)
        mixed = (share > 0) & (share < 1)
        share = share.clamp(PASS_RATE_LIMIT, 1 - PASS_RATE_LIMIT)
        implied = (1 - share * ratio) / (1 - share)
        floored = implied + (implied.clamp(min=self.floor) - implied).detach()
        right = x.to_tokens(trajectory=x.success)
        surrogate = torch.where(right, ratio.log(), self.negative * floored.log())
        return only(mixed, self._weight(share) * surrogate)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        """Wrong tokens whose implied ratio is cut at the floor."""
        if x.success is None or x.pass_rate is None:
            return torch.zeros_like(ratio, dtype=torch.bool)
        share = x.to_tokens(group=x.pass_rate).clamp(PASS_RATE_LIMIT, 1 - PASS_RATE_LIMIT)
        return ~x.to_tokens(trajectory=x.success) & ((1 - share * ratio) / (1 - share) < self.floor)

    def _weight(self, share: Tensor) -> Tensor | float:
        if self.weight == "centered":
            return 1 - share
        return ((1 - share) / share).sqrt() if self.weight == "standardized" else 1.0
