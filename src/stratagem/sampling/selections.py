"""Which trajectories, or which conversations, turns or roles of theirs, reach the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Selection
from stratagem.seeding import uniform


@dataclass(frozen=True)
class AboveReturn(Selection):
    """Trajectories whose return is at least ``threshold``: rejection sampling."""

    threshold: float = 1.0

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        return x.returns >= self.threshold


@dataclass(frozen=True)
class BelowReward(Selection):
    """Trajectories whose reward named ``column`` is below ``threshold``; all of them where there is no such reward.

    With a column that the task notes at weight 0 it leaves out what was none of the policy's doing, such as questions
    that were solved before it said anything; evaluation still counts them.
    """

    column: str
    threshold: float = 1.0

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        noted = x.named_reward(self.column)
        return (
            torch.ones(x.trajectories, dtype=torch.bool, device=x.device) if noted is None else noted < self.threshold
        )


@dataclass(frozen=True)
class FirstRollouts(Selection):
    """The first ``count`` trajectories of each group: the others have only voted, or set a baseline.

    What a reward says of a group is said before, with all of it.
    """

    count: Annotated[int, Ge(1)] = 16

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        return x.group_of_trajectory.position() < self.count


@dataclass(frozen=True)
class Untruncated(Selection):
    """Trajectories that ended by themselves and were not cut by a limit.

    ``Masked(Untruncated())`` is overlong filtering (arXiv 2503.14476, section 3.4): what was cut trains nothing, and
    its reward still counts.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        if x.truncated is None:
            raise ValueError("a selection of what was not truncated needs x.truncated")
        return ~x.truncated


@dataclass(frozen=True)
class Disagreeing(Selection):
    """Trajectories of groups whose trajectories did not all earn the same, by the rewards as they were shaped.

    Nothing is sampled in place of the others, unlike with :class:`~stratagem.sampling.DynamicSampling`.
    """

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        group = x.group_of_trajectory
        return group.spread(group.max(x.returns) > group.min(x.returns))


@dataclass(frozen=True)
class Masked(Selection):
    """The choice of another selection, but what that leaves out is masked instead of dropped.

    It stays in its group with its reward, so baselines and deviations over trajectories see it. None of its tokens
    trains or counts in an aggregation, or in a statistic over tokens.

    of: the selection.
    """

    of: Selection

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        return self.of(x)

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=x.learnable() & x.to_tokens(trajectory=self(x)))


@dataclass(frozen=True)
class DrawnContexts(Selection):
    """Of the conversations of every group so many, drawn at random; the tokens of the others are masked.

    A trajectory acts in one conversation or in several (``turn_context``): one that rewrites what it remembers goes on
    in another. As arXiv 2510.12635 draws its training samples, different trajectories come first, one conversation of
    each; then every trajectory gives another, in the same order, as long as it has one. Whatever is drawn, each
    trajectory stays in its group with its reward, so baselines and deviations are over trajectories.

    A group with fewer conversations than ``count`` trains them all, once each. The paper fills up with repetitions, to
    have batches of one size; here a token has one row, which trains once or not at all. A conversation without a token
    that may train is none. What is drawn follows from the ``seed`` of the trajectories and the numbers of the
    conversations. Without ``turn_context`` every trajectory is one.

    count: conversations of a group, at least 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})

    count: Annotated[int, Ge(1)] = 12

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories of which a conversation is drawn."""
        return x.trajectory_of_token.sum(self._drawn(x)) > 0

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=self._drawn(x))

    def _drawn(self, x: Experience) -> Bool[Tensor, " tokens"]:
        """Tokens of what is drawn that may train."""
        if x.seed is None:
            raise ValueError("selection of contexts at random needs x.seed")
        learnable = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        turn = torch.nonzero(learnable).squeeze(1)
        trajectory = x.trajectory_of_turn.labels[turn]
        number = x.context_of_turn[turn]
        context = Partition.by(trajectory, number)
        first = context.first()
        trajectory, number = trajectory[first], number[first]
        seed = x.seed[trajectory]
        chance = uniform(seed, number)
        # The order of trajectories is drawn by a number of their own, apart from those of conversations.
        place = uniform(seed, torch.full_like(seed, _ORDER))
        rounds = Partition.by(trajectory).rank(chance)
        drawn = Partition.by(x.group_of_trajectory.labels[trajectory]).rank(rounds + place) < self.count
        kept = torch.zeros(x.turns, dtype=torch.bool, device=x.device)
        kept[turn] = context.spread(drawn)
        tokens = x.to_tokens(turn=kept)
        return tokens if x.mask is None else x.mask & tokens


@dataclass(frozen=True)
class DivisibleTurns(Selection):
    """As many turns of the batch as ``divisor`` divides; the tokens of a few others, drawn at random, are masked.

    ``floor(n / divisor) divisor`` of ``n`` turns train, so that as many workers get as many samples each and fewer than
    ``divisor`` are lost (arXiv 2511.07327). Every turn is as likely to be left out. A batch with fewer turns than
    ``divisor`` trains them all: nothing is shared out here, and to drop the batch would teach nothing. What is masked
    stays in its group with its reward.

    A turn without a token that may train is none. What is drawn follows from the ``seed`` of the trajectories and the
    places of the turns in them.

    divisor: at least 1, for which all turns train.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})

    divisor: Annotated[int, Ge(1)] = 8

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories of which a turn is left."""
        return x.trajectory_of_token.sum(self._left(x)) > 0

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=self._left(x))

    def _left(self, x: Experience) -> Bool[Tensor, " tokens"]:
        """Tokens of the turns that are left that may train."""
        if x.seed is None:
            raise ValueError("selection of turns at random needs x.seed")
        turn = torch.nonzero(x.turn_of_token.sum(x.learnable())).squeeze(1)
        if len(turn) < self.divisor:
            return x.learnable()
        # Numbers of its own, apart from those by which conversations are drawn.
        number = x.trajectory_of_turn.position()[turn] + _TURNS
        chance = uniform(x.seed[x.trajectory_of_turn.labels[turn]], number)
        lost = turn[chance.argsort()[: len(turn) % self.divisor]]
        left = torch.ones(x.turns, dtype=torch.bool, device=x.device)
        left[lost] = False
        return x.learnable() & x.to_tokens(turn=left)


@dataclass(frozen=True)
class ComparedRole(Selection):
    """Of every trajectory the turns of the role that acts first in it; tokens of other roles are masked.

    Where a trajectory begins counts from its first token that may train: what a branch took over is behind it. There
    the trajectories of a group part, so this role is whom they compare, and what others did afterwards is how it turned
    out. From the start of an episode that trains whoever opens it, such as a planner; in branches at an executor's
    turn, the executor. Rewards, and with them baselines, stay as they are.

    once: train the first turn alone, not the later ones of the same role.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"turn_role"})

    once: bool = False

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories that have a token which may train."""
        return x.trajectory_of_token.sum(x.learnable().long()) > 0

    def apply(self, x: Experience) -> Experience:
        if x.turn_role is None:
            raise ValueError("selection of a role needs x.turn_role")
        turns, place = x.trajectory_of_turn, x.trajectory_of_turn.position()
        learns = (x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)) > 0
        first = turns.min(place.where(learns, torch.iinfo(torch.int64).max))
        chosen = place == turns.spread(first)
        if not self.once:
            chosen = x.turn_role == turns.spread(turns.sum(x.turn_role.where(chosen, 0)))
        tokens = x.to_tokens(turn=chosen)
        return x.replace(mask=tokens if x.mask is None else x.mask & tokens)


@dataclass(frozen=True)
class ByPassRate(Selection):
    """Demonstrations of the groups that succeed too rarely, rollouts of the others (HPT, arXiv 2509.04419).

    A group whose ``pass_rate`` is at most ``gate`` keeps its demonstrations alone; one above it, or without a
    demonstration, its rollouts alone.

    gate: in [-1, 1]. The paper counts right answers of 8: ``0 / 8`` for one model, ``2 / 8`` for another. Below 0 no
    group is shown anything, at 1 every group is.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"pass_rate"})

    gate: Annotated[float, Ge(-1), Le(1)] = 0.0

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        if x.pass_rate is None:
            raise ValueError("selection by pass rate needs x.pass_rate; recipe.credit(x) sets it")
        return _shown(x, x.pass_rate <= self.gate + _ROUNDING)


@dataclass(frozen=True)
class ShownAtRandom(Selection):
    """Demonstrations of a group with this probability, else its rollouts: the control for any rule of choosing.

    The choice follows from the ``seed`` of the group's first trajectory. A group without a demonstration keeps its
    rollouts.

    probability: in [0, 1].
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})

    probability: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        if x.seed is None:
            raise ValueError("selection at random needs x.seed")
        seed = x.seed[x.group_of_trajectory.first()]
        return _shown(x, uniform(seed, torch.zeros_like(seed)) < self.probability)


@dataclass(frozen=True)
class ShortestSuccess(Selection):
    """Of every group the one success with the fewest turns, and among those the fewest tokens; the first of equals.

    A group without a success is gone. After a sampler that drops groups whose trajectories all earned the same
    (:class:`~stratagem.sampling.DynamicSampling`), what is left is one solution of every prompt that was neither too
    hard nor too easy: the data of expert iteration as arXiv 2603.21065 chooses it. A demonstration that succeeded is a
    success like any other.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"success"})

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        if x.success is None:
            raise ValueError("selection of the shortest success needs x.success")
        group, kept = x.group_of_trajectory, x.success
        for length in (x.trajectory_of_turn.size(), x.trajectory_of_token.size()):
            least = group.min(length.where(kept, torch.iinfo(torch.int64).max))
            kept = kept & (length == group.spread(least))
        return kept & (group.rank((~kept).long()) == 0)


_ORDER = -(2**62)
"""No conversation has this number."""

_TURNS = 2**61
"""Nor has a turn's place, to which this is added."""

_ROUNDING = 1e-6
"""Shares of a few trajectories are further apart."""


def _shown(x: Experience, shown: Bool[Tensor, " groups"]) -> Bool[Tensor, " trajectories"]:
    """Demonstrations of these groups, as far as they have one, and rollouts of the others."""
    if x.demonstrated is None:
        return torch.ones(x.trajectories, dtype=torch.bool, device=x.device)
    group = x.group_of_trajectory
    can_be = group.sum(x.demonstrated.float()) > 0
    return group.spread(shown & can_be) == x.demonstrated
