"""Advantages that follow how sure the policy was of what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.objectives.entropy_bands import entropy_of_turns
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class EntropyModulated(Advantage):
    """``A'_t = g_t A_t + bonus f_{t+1}``, less its mean over the batch's turns (EMPG, arXiv 2509.09265).

    With ``H_t`` the mean token entropy of a turn before the update (``x.entropy``), in nats, and ``h_t = (H_t - min H)
    / (max H - min H + eps)`` in [0, 1], over all turns of the batch:

    - ``g_t = exp(-scaling h_t) / (mean exp(-scaling h) + eps)``: turns of which the policy was sure count more, those
      of which it was not count less, and one of them 1 on average;
    - ``f_t = exp(-clarity h_t)``: what is added for a turn that leads to one of which the policy is sure. The last turn
      of a trajectory leads nowhere and gets no bonus.

    Every turn counts the same in the mean that is taken off, however long it is. Entropies are only compared, so their
    origin and unit say nothing, and those of densities, which may be negative, do as well. Tokens that may not train
    count nowhere and get 0; a turn without any other is passed over, so the bonus of the turn before it looks further.
    The rules and defaults are those of the authors' published pseudo-code; that a last turn has no bonus is described
    in the paper.

    of: the advantage to modulate. One that differs within a turn is modulated token by token.
    scaling: 0 leaves the sizes alone.  clarity: 0 makes the bonus the same for all turns but the last.
    bonus: 0 for none.  eps: in both denominators; turns of one entropy all have ``h = 0``.

    Raises ``ValueError`` when the batch has no entropies, or one of a token that may train is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    of: Advantage = GroupStandardized()
    scaling: Annotated[float, Ge(0)] = 1.0
    clarity: Annotated[float, Ge(0)] = 1.0
    bonus: Annotated[float, Ge(0)] = 0.1
    eps: Annotated[float, Gt(0)] = 1e-8

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = x.of_learnable(self.of(x))
        total, sizes = entropy_of_turns(x)
        turns = torch.nonzero(sizes).squeeze(1)
        if not len(turns):
            return credit
        entropy = total[turns] / sizes[turns]
        low, high = entropy.aminmax()
        place = (entropy - low) / (high - low + self.eps)
        scale = (-self.scaling * place).exp()
        scale = scale / (scale.mean() + self.eps)
        trajectory = x.trajectory_of_turn.labels[turns]
        leads_on = trajectory[1:] == trajectory[:-1]
        addend = torch.zeros_like(place)
        addend[:-1] = leads_on * self.bonus * (-self.clarity * place[1:]).exp()
        mean_credit = x.turn_of_token.sum(credit)[turns] / sizes[turns]
        addend = addend - (scale * mean_credit + addend).mean()
        factor, further = (_to_tokens(values.to(credit.dtype), turns, x) for values in (scale, addend))
        return x.of_learnable(torch.addcmul(further, factor, credit))


@dataclass(frozen=True)
class UncertaintyShaped(Advantage):
    """``A' = A (1 + strength S) + addend (S - mean_g S)``, ``S = clip(entropy w(H) + doubt w(1 - c), -limit, limit)``.

    Tokens at which the policy was unsure count more (ECHO, arXiv 2602.02150, eqs. 5 and 6, by the released code).
    ``H`` is ``x.entropy``, ``c`` is ``x.confidence``, ``w`` takes off the mean over all tokens of the batch that may
    train and divides by their standard deviation; it is 0 where all are the same. ``mean_g`` is over the tokens of the
    group. With the defaults the factor is in [0.8, 1.2], so that no advantage changes its sign, and what is 0 stays 0;
    an ``addend`` moves that, too.

    of: the advantage to shape.  strength, addend: 0 for none.  entropy, doubt: weights of the two.  limit: of ``S``.

    Raises ``ValueError`` without entropies or confidences, or one of a token that may train that is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy", "confidence"})

    of: Advantage = GroupStandardized()
    strength: Annotated[float, Ge(0)] = 0.1
    addend: Annotated[float, Ge(0)] = 0.0
    entropy: Annotated[float, Ge(0)] = 1.0
    doubt: Annotated[float, Ge(0)] = 1.0
    limit: Annotated[float, Gt(0)] = 2.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit, score = self.of(x), self.score(x)
        shaped = credit * (1 + self.strength * score)
        if self.addend:
            group = x.group_of_token
            mean = group.sum(score) / group.sum(x.learnable().long()).clamp(min=1)
            shaped = shaped + self.addend * (score - group.spread(mean))
        return x.of_learnable(shaped)

    def score(self, x: Experience) -> Float[Tensor, " tokens"]:
        """``S`` of every token, 0 where it may not train."""
        if x.entropy is None or x.confidence is None:
            raise ValueError(f"{self.part_name()} needs x.entropy and x.confidence")
        kept = x.learnable()
        unsure = self.entropy * _whitened(x.entropy[kept]) + self.doubt * _whitened(1 - x.confidence[kept])
        if not bool(unsure.isfinite().all()):
            raise ValueError(f"{self.part_name()}: an entropy or confidence of a token that may train is not finite")
        score = unsure.clamp(-self.limit, self.limit)
        return torch.zeros(x.tokens, dtype=score.dtype, device=x.device).masked_scatter(kept, score)


def _whitened(values: Tensor) -> Tensor:
    return Partition.whole(len(values), values.device).standardize(values, 0, 1e-8)


def _to_tokens(values: Tensor, turns: Tensor, x: Experience) -> Float[Tensor, " tokens"]:
    """Values of some turns at their tokens, 0 at the others."""
    return x.turn_of_token.spread(
        torch.zeros(x.turns, dtype=values.dtype, device=x.device).index_copy(0, turns, values)
    )
