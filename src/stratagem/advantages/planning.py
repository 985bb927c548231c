"""Advantages that are raised where the policy plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.ordering import all_finite, order_statistic
from stratagem.parts import Advantage


@dataclass(frozen=True)
class PlanningRaised(Advantage):
    """``A'_t = A_t + alpha |A_t| m_t``: good plans count more, bad ones less; what carries them out, as before (HICRA).

    ``m_t`` is 1 on tokens that plan: ``A (1 + alpha)`` there above 0, ``A (1 - alpha)`` below. Nothing is taken off
    again, so the batch has a mean above 0: what is planned drifts up, by ``alpha |A|`` whether it was good or bad.

    Which tokens plan is said by

    - ``phrases``: the batch (``x.planning``), where ``Rollouts.phrases`` names a file of phrases, or a game says so;
    - ``entropy``: how unsure the policy was when it sampled them: the ``top`` share of the batch's tokens by
      ``x.entropy``, and those that are as unsure as the last of them.

    The rule and ``alpha`` are reported alike by several who read or reimplemented arXiv 2509.03646; its own text was
    not available. ``top`` is reported of its authors' code for runs without phrases.

    of: the advantage to raise. To combine with another shaping, wrap that one: ``|A_t|`` is then of what it shaped.
    alpha: 0 leaves it as it is; above 1 bad plans would be reinforced.
    top: in (0, 1], of the tokens that may train; for ``entropy``.

    Raises ``ValueError`` when the batch does not say what is read, or for an entropy that is no number.
    """

    of: Advantage = GroupStandardized()
    alpha: Annotated[float, Ge(0), Le(1)] = 0.2
    by: Literal["phrases", "entropy"] = "entropy"
    top: Annotated[float, Gt(0), Le(1)] = 0.3

    def needs(self) -> frozenset[str]:
        """``planning`` or ``entropy``, by which tokens are told apart."""
        return super().needs() | {"planning" if self.by == "phrases" else "entropy"}

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = x.of_learnable(self.of(x))
        return torch.addcmul(credit, credit.abs(), self.planning(x).to(credit.dtype), value=self.alpha)

    def planning(self, x: Experience) -> Bool[Tensor, " tokens"]:
        """Tokens that plan."""
        if self.by == "phrases":
            if x.planning is None:
                raise ValueError(f"{self.part_name()} by phrases needs x.planning")
            return x.planning
        if x.entropy is None:
            raise ValueError(f"{self.part_name()} by entropy needs x.entropy")
        entropy = x.entropy if x.mask is None else x.entropy[x.mask]
        if not len(entropy):
            return x.learnable()
        if not all_finite(entropy):
            raise ValueError(f"{self.part_name()}: x.entropy of a token that may train is not finite")
        edge = order_statistic(entropy, len(entropy) - max(1, round(self.top * len(entropy))))
        return (x.of_learnable(x.entropy) >= edge) & x.learnable()
