"""Charges for how a structured turn is filled in: sub-goals that are kept, kept in name only, and parts left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Reward
from stratagem.spans import Span, span_starts


@dataclass(frozen=True)
class PlanPenalty(Reward):
    """Charges turns for their plan, added to what they earn and to the first reward column (arXiv 2602.16165).

    A turn keeps when no segment begins with it. It keeps in name only when its sub-goal's tokens are not those of the
    turn before, where both have one (which turns the authors compare is not known to us). A turn is invalid when it
    lacks the action, the switch or, where a segment begins, the sub-goal.

    keep: of each turn that keeps; with ``normalize`` divided by the turns of the trajectory, so that a trajectory pays
    ``keep`` times the share of its turns that keep.  inconsistent: of each turn that keeps in name only.
    invalid: of each invalid turn.  All are at least 0, and subtracted.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"span", "segment_start"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process", "reward.shaping.added"})

    keep: Annotated[float, Ge(0)] = 0.3
    inconsistent: Annotated[float, Ge(0)] = 0.3
    invalid: Annotated[float, Ge(0)] = 0.1
    normalize: bool = True

    def __call__(self, x: Experience) -> Experience:
        keeps = x.segment_of_turn.position() > 0
        by = x.trajectory_of_turn
        share = by.spread(1.0 / by.size().clamp(min=1)) if self.normalize else 1.0
        charge = -self.keep * keeps * share
        if self.inconsistent:
            charge = charge - self.inconsistent * (keeps & _changed(x)).float()
        lacks = {span: start < 0 for span, start in span_starts(x).items()}
        missing = lacks[Span.ACTION] | lacks[Span.SWITCH] | (lacks[Span.SUBGOAL] & ~keeps)
        return _charged_turns(x, charge - self.invalid * missing.float())


def _changed(x: Experience) -> Bool[Tensor, " turns"]:
    """Turns whose sub-goal differs from that of the turn before, where both have one."""
    if x.action is None or x.span is None:
        raise ValueError("plan penalties compare sub-goals by x.action and x.span")
    rows = torch.nonzero(x.span == Span.SUBGOAL).squeeze(1)
    said, own = x.action[rows], x.turn_of_token.select(rows)
    size = own.size()
    before = size.roll(1)
    earlier = (size.cumsum(0) - size).roll(1)
    place = own.position()
    compared = place < own.spread(before)
    where = torch.where(compared, own.spread(earlier) + place, 0)
    differs = (compared & (said != said[where])) if len(rows) else compared
    other = (own.sum(differs) > 0) | (size != before)
    return other & (size > 0) & (before > 0) & (x.trajectory_of_turn.position() > 0)


def _charged_turns(x: Experience, charge: Float[Tensor, " turns"]) -> Experience:
    """The experience with ``charge`` added to what its turns earn, and to its first reward column where it has one."""
    turn_reward = torch.zeros(x.turns, device=x.device) if x.turn_reward is None else x.turn_reward
    if x.reward is None:
        return x.replace(turn_reward=turn_reward + charge)
    reward = x.reward.clone()
    reward[:, 0] += x.trajectory_of_turn.sum(charge).to(reward.dtype)
    # What the column counts for in the return, so that the turns still add up to it.
    return x.replace(reward=reward, turn_reward=turn_reward + x.reward_weights[0] * charge)
