"""Gates that compare the answers of a group two by two, so that what a prompt is worth cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.ratios import ProductRatio, bounded_exp
from stratagem.partition import Partition
from stratagem.parts import Gate, Ratio


@dataclass(frozen=True)
class PairwiseClip(Gate):
    """``mean_j sg(w_j) min(rho_i (A_i - A_j), clip(rho_i, 1 - low, 1 + high) (A_i - A_j))``: each ratio clipped apart.

    The mean is over the answers ``j`` of the group (``i`` itself adds 0 to it), and ``w_j`` is the ratio of the other
    answer, as in the importance-weighted gradient of P3O (arXiv 2310.00212). An advantage that a group's mean has been
    taken from (``LeaveOneOut``, so that this is the mean over all pairs of differences of returns) is at ratio 1 what
    it would be without a gate. The formula is a reconstruction of P3O's version 1: its own was not available.

    ``rho_i`` may be a ratio of trajectories or of tokens. Pairs are of one group; an answer without a token that may
    train has no partner and is none. Time and memory grow with the squares of group sizes. Raises ``ValueError`` when
    a micro-batch holds a group in part, and for an advantage or weight that changes within a trajectory.

    low, high: distance of the bounds from 1.  partner: what ``w`` is.  cap: most it may be; infinity keeps the gradient
    of an unclipped pair unbiased.
    """

    whole_groups: ClassVar[bool] = True

    low: Annotated[float, Ge(0)] = 0.2
    high: Annotated[float, Ge(0)] = 0.2
    partner: Ratio = ProductRatio()
    cap: Annotated[float, Gt(0)] = math.inf

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        above, below = self._credit(advantage, out, x)
        return ratio.clamp(max=1 + self.high) * above + ratio.clamp(min=1 - self.low) * below

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        above, below = self._credit(advantage, out, x)
        return (above > 0) & (ratio > 1 + self.high) | (below < 0) & (ratio < 1 - self.low)

    def _credit(self, advantage: Tensor, out: PolicyOutput, x: Experience) -> tuple[Tensor, Tensor]:
        """``mean_j w_j max(A_i - A_j, 0)`` and the same with ``min``, for every token: a clip treats them apart."""
        pairs = _Pairs.of(x)
        credit = pairs.by_answer(advantage, "advantage", x)
        weight = pairs.by_answer(self.partner(out, x).detach(), "partner's ratio", x).clamp(max=self.cap)
        weighted = weight[pairs.second] * (credit[pairs.first] - credit[pairs.second])
        return pairs.to_tokens(weighted.clamp(min=0), x), pairs.to_tokens(weighted.clamp(max=0), x)


@dataclass(frozen=True)
class PairwiseJointClip(Gate):
    """``mean_j sg(rho_i rho_j) min(d l, d clip(l, -clip, clip))``: the ratio of the two answers' ratios is clipped.

    ``d = (A_i - A_j) / 2`` and ``l = log rho_i - log rho_j``, so that either all of a pair passes or nothing. The mean,
    the advantage it is made for, which pairs there are and what is raised are those of :class:`PairwiseClip`. A
    reconstruction of P3O's version 2 (arXiv 2310.00212): its own formula was not available.

    ``rho`` must be a ratio of trajectories: a ``ValueError`` is raised when it changes within one.

    clip: largest ``|l|``.  cap: most that ``rho_i rho_j`` may be; infinity keeps the gradient of an unclipped pair
    unbiased.
    """

    whole_groups: ClassVar[bool] = True

    clip: Annotated[float, Ge(0)] = 0.2
    cap: Annotated[float, Gt(0)] = math.inf

    def objection(self, ratio: Ratio) -> str | None:
        return "compares whole answers" if getattr(ratio, "unit", "token") != "trajectory" else None

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        pairs = _Pairs.of(x)
        log_ratio, difference = self._compared(ratio, advantage, x, pairs)
        apart = log_ratio[pairs.first] - log_ratio[pairs.second]
        weight = bounded_exp((log_ratio[pairs.first] + log_ratio[pairs.second]).detach()).clamp(max=self.cap)
        surrogate = torch.minimum(difference * apart, difference * apart.clamp(-self.clip, self.clip))
        return pairs.to_tokens(weight * surrogate, x)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        pairs = _Pairs.of(x)
        log_ratio, difference = self._compared(ratio, advantage, x, pairs)
        apart = log_ratio[pairs.first] - log_ratio[pairs.second]
        return pairs.to_tokens(((apart.abs() > self.clip) & (apart * difference > 0)).float(), x) > 0

    def _compared(
        self, ratio: Tensor, advantage: Tensor, x: Experience, pairs: _Pairs
    ) -> tuple[Float[Tensor, " answers"], Float[Tensor, " pairs"]]:
        """``log rho`` of every answer, ``d`` of every pair."""
        credit = pairs.by_answer(advantage, "advantage", x)
        return pairs.by_answer(ratio, "ratio", x).log(), (credit[pairs.first] - credit[pairs.second]) / 2


class _Pairs(NamedTuple):
    """All pairs of answers with a token that may train, an answer with itself included, group by group.

    token: the first token of every answer that may train.  first, second: the answers of every pair.
    """

    token: Int[Tensor, " answers"]
    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]

    @classmethod
    def of(cls, x: Experience) -> _Pairs:
        """The pairs of a batch. Raises ``ValueError`` when a group was cut."""
        check_whole_groups(x, "a pairwise gate")
        token = x.trajectory_of_token.first()
        if x.mask is not None:
            kept = torch.nonzero(x.mask).squeeze(1)
            token = kept[x.trajectory_of_token.select(kept).first()]
        return cls(token, *x.group_of_trajectory.select(x.trajectory_of_token.labels[token]).pairs())

    def by_answer(self, values: Float[Tensor, " tokens"], name: str, x: Experience) -> Float[Tensor, " answers"]:
        """A figure that is the same for all tokens of an answer. Raises ``ValueError`` when it is not."""
        answers = values[self.token]
        differs = values.detach() != self._spread(answers.detach(), x)
        if bool((differs if x.mask is None else differs & x.mask).any()):
            raise ValueError(f"a pairwise gate compares whole answers: the {name} must not change within a trajectory")
        return answers

    def to_tokens(self, values: Float[Tensor, " pairs"], x: Experience) -> Float[Tensor, " tokens"]:
        """The mean over its pairs for every token of an answer."""
        return self._spread(Partition(self.first, len(self.token)).mean(values), x)

    def _spread(self, answers: Tensor, x: Experience) -> Tensor:
        """Every answer's value for its tokens, 0 for those of other trajectories."""
        of_trajectory = answers.new_zeros(x.trajectories)
        return x.to_tokens(trajectory=of_trajectory.index_copy(0, x.trajectory_of_token.labels[self.token], answers))


def check_whole_groups(x: Experience, who: str) -> None:
    """Raise ``ValueError`` when a micro-batch has only some of the trajectories of a group, which ``who`` compares."""
    if x.parent is None or x.tokens == 0:
        return
    whole, rows = x.parent
    group = whole.group_of_token.labels[rows[x.group_of_token.first()]]
    there = whole.group_of_trajectory.sum(whole.trajectory_of_token.size() > 0)[group]
    here = x.group_of_trajectory.sum(x.trajectory_of_token.size() > 0)
    cut = here[here > 0] < there
    if bool(cut.any()):
        number = int(group[cut][0])
        raise ValueError(
            f"{who} compares the answers of a group, and this micro-batch has only some of group {number}; "
            "cut batches between groups (optimization.shuffle = groups does)"
        )
