"""Advantages that are raised by how unsure the policy was while it thought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.masking import only
from stratagem.parts import Advantage
from stratagem.spans import Span


@dataclass(frozen=True)
class EntropyRaised(Advantage):
    """``A'_t = A_t + sigma(H_i)``: more for a trajectory whose thoughts were unsure (FunRL, later EGPO, 2508.05118).

    ``H_i`` is the mean entropy of the trajectory's thoughts when they were sampled (``x.entropy``), in nats, at least
    0; 0 without a thought. It is a number of the batch, so there is no gradient through it. ``sigma`` is

    - ``capped``: ``min(strength H_i, |A_t| / cap)``. Signs stay, and a group of equal rewards gets nothing;
    - ``clipped``: ``clip(strength (H_i - mean_g H), -bound, bound)``, with the mean over the group's trajectories;
    - ``logistic``: ``strength (2 / (1 + exp(-H_i)) - 1)``.

    With the last two, groups of equal rewards train as well: by their entropy alone.

    The sum is that of the paper's overview; it says that ``sigma`` is bounded, and its text with the form was not
    available. All three forms, their numbers, and the mean over tokens are reconstructions, the first after what others
    do with an entropy in the advantage.

    of: the advantage to raise.  strength: 0 leaves it as it is.
    cap: at least 1; at 1 a negative advantage may become 0. For ``capped``.  bound: in units of ``A``. For ``clipped``.
    within: which tokens have thoughts in them: those of ``Span.THINK`` (``x.span``), or all of a ``response``.
    on: which tokens are raised: ``all`` of the trajectory, or its ``thoughts``.

    Raises ``ValueError`` when the batch has no entropies or spans, or an entropy of a thought is not finite.
    """

    of: Advantage = GroupStandardized()
    form: Literal["capped", "clipped", "logistic"] = "capped"
    strength: Annotated[float, Ge(0)] = 0.4
    cap: Annotated[float, Ge(1)] = 2.0
    bound: Annotated[float, Gt(0)] = 0.5
    within: Literal["thoughts", "response"] = "thoughts"
    on: Literal["all", "thoughts"] = "all"

    def needs(self) -> frozenset[str]:
        """``entropy``, and ``span`` where thoughts are told apart."""
        return super().needs() | {"entropy"} | (frozenset({"span"}) if self._apart else frozenset())

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = x.of_learnable(self.of(x))
        entropy = self.entropy(x).to(credit.dtype)
        if self.form == "clipped":
            entropy = (self.strength * x.group_of_trajectory.center(entropy)).clamp(-self.bound, self.bound)
        elif self.form == "logistic":
            entropy = self.strength * (2 * entropy.sigmoid() - 1)
        else:
            entropy = self.strength * entropy
        bonus = x.to_tokens(trajectory=entropy)
        if self.form == "capped":
            bonus = torch.minimum(bonus, credit.abs() / self.cap)
        if self.on == "thoughts":
            bonus = only(self._thoughts(x), bonus)
        return x.of_learnable(credit + bonus)

    def entropy(self, x: Experience) -> Float[Tensor, " trajectories"]:
        """``H_i``."""
        if x.entropy is None:
            raise ValueError(f"{self.part_name()} needs x.entropy")
        thought = x.learnable() if self.within == "response" else self._thoughts(x) & x.learnable()
        values = only(thought, x.entropy)
        total = x.trajectory_of_token.sum(values)
        if not bool(total.isfinite().all()):
            bad = int(torch.nonzero(~values.isfinite())[0])
            raise ValueError(f"{self.part_name()}: x.entropy of token {bad} is {float(values[bad])}")
        return (total / x.trajectory_of_token.sum(thought.to(total.dtype)).clamp(min=1)).clamp(min=0)

    @property
    def _apart(self) -> bool:
        return self.within == "thoughts" or self.on == "thoughts"

    def _thoughts(self, x: Experience) -> Tensor:
        if x.span is None:
            raise ValueError(f"{self.part_name()} needs x.span to tell thoughts apart")
        return x.span == Span.THINK
