"""Trajectories gone on with from the middle: where, how often, and how deep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.masking import only
from stratagem.parts import Forking
from stratagem.sampling.samplers import Rollouts
from stratagem.seeding import uniform


@dataclass(frozen=True)
class AtTurns(Forking):
    """Before the first token of turns.

    role: of the turns (``turn_role``); None: of any.  first: only the first such turn of every trajectory.
    from_start: whether the first turn of an episode is one, too. To fork there is to play the episode once more.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"turn_role"})

    role: int | None = None
    first: bool = False
    from_start: bool = False

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        turns = torch.ones(x.turns, dtype=torch.bool, device=x.device)
        if self.role is not None:
            if x.turn_role is None:
                raise ValueError("forks at turns of a role need x.turn_role")
            turns = x.turn_role == self.role
        if not self.from_start:
            turns = turns & (x.trajectory_of_turn.position() > 0)
        if self.first:
            place = x.trajectory_of_turn.position()
            earliest = x.trajectory_of_turn.min(place.where(turns, torch.iinfo(torch.int64).max))
            turns = turns & (place == x.trajectory_of_turn.spread(earliest))
        return x.to_tokens(turn=turns) & (x.turn_of_token.position() == 0)


@dataclass(frozen=True)
class OfBest(Forking):
    """Forks of another rule, in the trajectory of each group that returned most; the first of equals.

    of: the rule.  any_of: probability, drawn for each group, that it is a trajectory at random instead. What is drawn
    follows from the ``seed`` of the trajectories.
    """

    of: Forking = AtTurns()
    any_of: Annotated[float, Ge(0), Le(1)] = 0.0

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"seed"} if self.any_of else frozenset())

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        group = x.group_of_trajectory
        chosen = group.rank(-x.returns) == 0
        if self.any_of:
            if x.seed is None:
                raise ValueError("forks in a trajectory at random need x.seed")
            lead = x.seed[group.first()]
            strays = group.spread(uniform(lead, torch.full_like(lead, _STRAYS)) < self.any_of)
            drawn = group.rank(uniform(x.seed, torch.full_like(x.seed, _DRAWN))) == 0
            chosen = torch.where(strays, drawn, chosen)
        return self.of(x) & x.to_tokens(trajectory=chosen)


@dataclass(frozen=True)
class Branching(Rollouts):
    """Rollouts, some of which are gone on with from the middle, again and again: tree rollouts.

    Every place that ``at`` chooses in a trajectory becomes a group of its own, or grows its own group (``together``):
    ``branches`` trajectories that share all tokens before that place and are sampled from there on, in an environment
    that was led to it by the same actions. What is shared has ``mask`` False: it was sampled once, and trains where it
    was. ``taken_over`` says how many tokens that is, ``branch`` in which round of forking a group came about (0: from a
    start). Only sampled tokens count in a budget.

    An environment has to answer the same actions as before, which the contract of a task asks for; one that does not
    loses the branch, which is counted. Demonstrations are not possible beside branches.

    at: where.  branches: trajectories of each fork; 0: no forks.  depth: rounds of forking, each in what the one before
    brought.  branch_turns: after so many turns of its own a branch is cut, as by a limit; None: it is played to its
    end. What the lab cuts off stays in the batch, masked and unpaid; it can only cut games with a single reward.
    train_roots: whether episodes from a start are learned from, or only show where to fork.
    together: whether branches join the group of the trajectory they left, so that a group is one tree. ``at`` is then
    shown all that has grown, and not only what the round before brought, and may choose a place again; ``branch`` stays
    0, and ``taken_over`` says who branched off where.

    Raises :class:`InputError` for demonstrations, and for a tree without its roots.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"search.structure.tree", "search.action.step", "search.phase.training"})

    at: Forking = AtTurns()
    branches: Annotated[int, Ge(0)] = 8
    depth: Annotated[int, Ge(1)] = 1
    branch_turns: Annotated[int, Ge(1)] | None = None
    train_roots: bool = True
    together: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.together and not self.train_roots:
            raise InputError(f"{self.part_name()}.train_roots = False: must be True where together = True")
        if self.demonstrations:
            raise InputError(
                f"{self.part_name()}.demonstrations = {self.demonstrations}: must be 0, branches have no demonstrations"
            )

    @property
    def smallest_group(self) -> tuple[str, int]:
        if self.branches and not self.together and not (self.train_roots and self.group_size < self.branches):
            return "branches", self.branches
        return super().smallest_group

    @property
    def asks(self) -> dict[str, str]:
        return super().asks | {"middles": "{who} cannot go on with an episode from the middle"}


_STRAYS, _DRAWN = -(2**61), -(2**61) + 1
"""Numbers of choices that nobody else draws by the seed of a trajectory."""


def as_roots(x: Experience) -> Experience:
    """A batch of episodes from their start, in the terms in which branches are told."""
    return x.replace(
        branch=torch.zeros(x.groups, dtype=torch.int64, device=x.device),
        taken_over=torch.zeros(x.trajectories, dtype=torch.int64, device=x.device),
        mask=torch.ones(x.tokens, dtype=torch.bool, device=x.device) if x.mask is None else x.mask,
    )


def as_branches(x: Experience, taken_over: Tensor, generation: int) -> Experience:
    """A batch of branches: what they took over trains nothing.

    taken_over: Int [trajectories], tokens at the beginning of each that another trajectory wrote.
    """
    own = x.trajectory_of_token.position() >= x.to_tokens(trajectory=taken_over)
    return x.replace(
        branch=torch.full((x.groups,), generation, dtype=torch.int64, device=x.device),
        taken_over=taken_over,
        mask=own if x.mask is None else x.mask & own,
    )


def cut(x: Experience, turns: int) -> Experience:
    """Branches as if an episode ended ``turns`` turns after those that were taken over in whole.

    What lies behind is masked and earns nothing; a trajectory that had more is truncated and no success. Needs
    ``turn_reward``, a single reward, and the terms of :func:`as_branches`.
    """
    assert x.taken_over is not None and x.mask is not None and x.turn_reward is not None
    length = x.trajectory_of_token.size()
    written = x.turn_of_token.size().cumsum(0) - x.trajectory_of_turn.spread(length.cumsum(0) - length)
    whole = x.trajectory_of_turn.sum((written <= x.trajectory_of_turn.spread(x.taken_over)).long())
    inside = x.trajectory_of_turn.position() < x.trajectory_of_turn.spread(whole + turns)
    ends = x.trajectory_of_turn.sum((~inside).long()) == 0
    earned = only(inside, x.turn_reward)
    return x.replace(
        mask=x.mask & x.to_tokens(turn=inside),
        turn_reward=earned,
        reward=x.trajectory_of_turn.sum(earned).unsqueeze(1),
        success=None if x.success is None else x.success & ends,
        finished=None if x.finished is None else x.finished & ends,
        truncated=None if x.truncated is None else x.truncated | ~ends,
    )
