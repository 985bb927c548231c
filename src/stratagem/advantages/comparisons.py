"""Credit from comparisons: how often an answer is preferred to an opponent's, and how far it is from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage, Mixture, Preference
from stratagem.preferences.oracles import BradleyTerry


@dataclass(frozen=True)
class WinRate(Advantage):
    """``A_i = sum_j w_j P(y_i > y_j) / sum_j w_j - 1/2``, in [-1/2, 1/2]: how often an answer is preferred.

    This is where a preference oracle enters a recipe, and an estimate of ``P(y_i > pi') - 1/2`` for an opponent
    ``pi'``. The group was sampled by the policy, so that with equal weights the opponent is the policy itself; for
    another one, ``w_j = pi'(y_j) / pi(y_j)`` over whole answers. Such weights, made to add up to 1, are right in the
    limit of large groups, and a few answers carry them all where the two policies are far apart.

    preference: the oracle, asked once about every pair of the group in either order; it must agree with itself.
    opponent: who is played; None: the policy that sampled.
    against: ``group`` counts an answer against itself (1/2), too, as losses of log-ratios want it; ``others`` does not,
    which is unbiased.

    Answers without a token that may train play no one. A comparison that was lost (NaN, from an oracle that reads text
    and did not answer) counts as the mean of those of its first answer that were not, and as a tie where all were.
    Raises :class:`InputError` when the oracle says what is no probability, or contradicts itself.
    """

    minimum_group: ClassVar[int] = 2

    preference: Preference = BradleyTerry()
    opponent: Mixture | None = None
    against: Literal["group", "others"] = "group"

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"behavior_logp"} if self.opponent is not None else frozenset())

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return x.to_tokens(trajectory=self.of_answers(x))

    def of_answers(self, x: Experience) -> Float[Tensor, " trajectories"]:
        """The same by trajectory; 0 for one that played no one."""
        first, second = x.group_of_trajectory.pairs()
        plays = x.trajectory_of_token.sum(x.learnable()) > 0
        shown = plays[first] & plays[second]
        if self.against == "others":
            shown = shown & (first != second)
        first, second = first[shown], second[shown]
        better = self._asked(x, first, second)
        if self.opponent is None:
            weight = torch.ones_like(better)
        else:
            weight = self._weights(self.opponent, x)[second].to(better.dtype)
        by_answer = Partition(first, x.trajectories)
        total = by_answer.sum(weight)
        rate = by_answer.sum(weight * better) / torch.where(total > 0, total, 1.0)
        return torch.where(total > 0, rate - 0.5, 0.0)

    def _asked(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        better = self.preference(x, first, second)
        # Only who reads text may be down; what others say is computed.
        lost = better.isnan() & ("reading" in self.preference.needs())
        if not bool(((better >= 0) & (better <= 1) | lost).all()):
            raise InputError(f"preference {self.preference.part_name()}: must say probabilities in [0, 1]")
        # Pairs of a group come in both orders, so that sums over answers won and lost must agree.
        known = torch.where(lost, 0.5, better)
        by_first, by_second = Partition(first, x.trajectories), Partition(second, x.trajectories)
        against = by_second.sum(known) + by_first.sum(known)
        agree = torch.isclose(against, by_first.size().to(against.dtype), atol=1e-4)
        if not bool(agree.all() and (by_first.sum(lost) == by_second.sum(lost)).all()):
            raise InputError(
                f"preference {self.preference.part_name()}: contradicts itself: P(i > j) + P(j > i) must be 1"
            )
        if not bool(lost.any()):
            return better
        answered = ~lost & (first != second)
        won, count = by_first.sum(torch.where(answered, better, 0.0)), by_first.sum(answered)
        usual = torch.where(count > 0, won / count.clamp(min=1), 0.5)
        return torch.where(lost, usual[first], better)

    def _weights(self, opponent: Mixture, x: Experience) -> Float[Tensor, " trajectories"]:
        """``pi'(y) / pi(y)`` of every answer, by the largest of its group."""
        if x.behavior_logp is None:
            raise ValueError("a win rate against another policy needs behavior_logp")
        old = x.behavior_logp if x.old_logp is None else x.old_logp
        log_weight = x.trajectory_of_token.sum(x.of_learnable(opponent.logp(old, x) - x.behavior_logp))
        by_group = x.group_of_trajectory
        return (log_weight - by_group.spread(by_group.max(log_weight))).exp()


@dataclass(frozen=True)
class ReferenceLogRatio(Advantage):
    """``A = log pi(y) - log pi_ref(y)``: times ``-tau`` the gradient of ``-tau KL(pi || pi_ref)`` by samples of ``pi``.

    ``pi`` is the policy that sampled (``behavior_logp``), so the first step from a fresh batch has that gradient.

    unit: ``trajectory`` credits every token with the sum over its answer, as the gradient has it; ``token`` with its
    own log-ratio alone, which leaves out what a token does to the KL of later ones and varies less (the code of
    released trainers).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ref_logp", "behavior_logp"})

    unit: Literal["trajectory", "token"] = "trajectory"

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.behavior_logp is None or x.ref_logp is None:
            raise ValueError("the log-ratio to the reference needs ref_logp and behavior_logp")
        apart = x.of_learnable(x.behavior_logp - x.ref_logp)
        return apart if self.unit == "token" else x.to_tokens(trajectory=x.trajectory_of_token.sum(apart))
