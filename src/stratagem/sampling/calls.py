"""Trajectories by what became of their tool calls: where to try a failed one again, and which are fit to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Forking, Selection
from stratagem.seeding import uniform


@dataclass(frozen=True)
class BeforeFailedCall(Forking):
    """Before a tool call that failed, and ``back`` tokens earlier; at most as many forks as there are groups.

    Of every trajectory with a failed call the place is before the turn that made the last one, ``back`` tokens of the
    policy earlier, and never before the first token. Where there are more such trajectories than groups, so many are
    drawn; where there is none, one that made a call is, at random, and the place is before its last call. What is drawn
    follows from the ``seed`` of the trajectories.

    A turn is what was thought and the call it ends with, and both are tried again. arXiv 2509.13761, which writes
    calls into one text, cuts at the beginning of the code, and its released code then takes 200 tokens off, or as many
    as it is told.

    back: tokens, at least 0.  call: which call of a trajectory with a failed one, the ``last_failed``, or the ``last``
    whatever became of it, as in the released code.

    A batch that says nothing of calls (``turn_call``) has no forks.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})

    back: Annotated[int, Ge(0)] = 100
    call: Literal["last_failed", "last"] = "last_failed"

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        places = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        if x.turn_call is None:
            return places
        if x.seed is None:
            raise ValueError("forks before failed calls need x.seed")
        called, failed = x.turn_call >= 0, x.turn_call == 0
        again = x.trajectory_of_turn.sum(failed.long()) > 0
        most, wanted = x.groups, failed if self.call == "last_failed" else called
        if not bool(again.any()):
            again, most, wanted = x.trajectory_of_turn.sum(called.long()) > 0, 1, called
        chance = uniform(x.seed, torch.full_like(x.seed, _DRAW)).where(again, 2.0)
        drawn = again & (chance.argsort(stable=True).argsort() < most)
        turn = _last(x, wanted)[drawn]
        length = x.turn_of_token.size()
        begin = length.cumsum(0) - length
        first = begin[_first_turn(x)[drawn]]
        places[torch.maximum(begin[turn] - self.back, first)] = True
        return places


@dataclass(frozen=True)
class CallsCarriedOut(Selection):
    """Rollouts in which no tool call failed, that are long enough and end with an answer; branches that made a call.

    Of a branch (``Experience.branch`` above 0) only its own last turn counts, which may have failed: that is what it is
    for. Groups in which less than ``share`` of the trajectories are left are gone, of either kind. These are the
    filters of the released code of arXiv 2509.13761, where ``longer_than`` is 150, for solutions of thousands of
    tokens, and an answer stands in a box at the end.

    longer_than: tokens of the policy.  share: in [0, 1].

    A batch that says nothing of calls (``turn_call``) has none that failed, and keeps its branches; one that says
    nothing of answers, or of what was cut, has nothing without an answer, or cut.
    """

    longer_than: Annotated[int, Ge(0)] = 0
    share: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        fit = x.trajectory_of_token.size() > self.longer_than
        if x.answer is not None:
            fit = fit & (x.answer >= 0)
        if x.truncated is not None:
            fit = fit & ~x.truncated
        if x.turn_call is not None:
            fit = fit & (x.trajectory_of_turn.sum((x.turn_call == 0).long()) == 0)
        if x.branch is not None:
            made = own_last_call(x)
            called = torch.ones_like(fit) if made is None else made >= 0
            fit = torch.where(on_branch(x), called, fit)
        group = x.group_of_trajectory
        enough = group.sum(fit.float()) >= self.share * group.size() - _ROUNDING
        return fit & group.spread(enough)


def on_branch(x: Experience) -> Bool[Tensor, " trajectories"]:
    """Trajectories that went on from the middle of another."""
    if x.branch is None:
        return torch.zeros(x.trajectories, dtype=torch.bool, device=x.device)
    return x.group_of_trajectory.spread(x.branch > 0)


def own_last_call(x: Experience) -> Int[Tensor, " trajectories"] | None:
    """``turn_call`` of the last turn in which a token may train, -1 where there is none; None without ``turn_call``."""
    if x.turn_call is None:
        return None
    own = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask.long())
    place = _last(x, own > 0)
    return torch.where(place < 0, -1, x.turn_call[place.clamp(min=0)]) if x.turns else place


def _last(x: Experience, turns: Bool[Tensor, " turns"]) -> Int[Tensor, " trajectories"]:
    """Number of the last of these turns in each trajectory, -1 where there is none."""
    number = torch.arange(x.turns, device=x.device)
    return x.trajectory_of_turn.max(number.where(turns, -1)).clamp(min=-1)


def _first_turn(x: Experience) -> Int[Tensor, " trajectories"]:
    """Number of the first turn of each trajectory."""
    size = x.trajectory_of_turn.size()
    return size.cumsum(0) - size


_DRAW = -(2**61)
"""No draw of another part has this number."""

_ROUNDING = 1e-6
