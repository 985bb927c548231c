"""Less to learn from than was sampled: the trajectories whose credit varies most, the tokens that decide most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.advantages import GroupStandardized
from stratagem.experience import Experience
from stratagem.ordering import order_statistic
from stratagem.partition import Partition
from stratagem.parts import Advantage, Selection

LEAST = 2
"""Fewer trajectories have no variance."""


@dataclass(frozen=True)
class MostVariedCredit(Selection):
    """The ``N`` trajectories whose advantages have the largest variance; the tokens of the others are masked.

    Such a set is made of the ``j`` largest advantages and the ``N - j`` smallest. All ``j`` are tried, with sums of the
    sorted advantages and their squares, so the choice is exact and takes as long as sorting. Over the whole batch it
    passes by groups that were all right or all wrong, while there are enough others (D3S, arXiv 2509.22115). With the
    total return for an advantage, group by group, it is the rule that paper compares with (PODS).

    What is masked stays in its group with its reward, so the advantage of what is kept is the one it had: nothing is
    normalised again. A trajectory's advantage is the mean over its tokens that may train; one without any is no
    candidate. Equal advantages are told apart by their order, and of sets that vary the same the one with more of the
    largest is kept.

    of: the advantage that is compared; the recipe's own, as a rule.
    share: of the candidates, in (0, 1]; ``N`` is rounded, and at least 2. 1 keeps them all.
    level: whose variance: that of the whole ``batch``, or of each ``group`` with as large a share.
    """

    of: Advantage = GroupStandardized()
    share: Annotated[float, Gt(0), Le(1)] = 0.25
    level: Literal["batch", "group"] = "batch"

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories that are kept."""
        tokens = x.trajectory_of_token.sum(x.learnable().double())
        kept = tokens > 0
        rows = torch.nonzero(kept).squeeze(1)
        if self.share == 1 or not len(rows):
            return kept
        credit = x.trajectory_of_token.sum(x.of_learnable(self.of(x)).double())[rows] / tokens[rows]
        labels = x.group_of_trajectory.labels[rows]
        sets = Partition.by(labels) if self.level == "group" else Partition.whole(len(rows), x.device)
        kept[rows] = most_varied(credit, sets, self.share)
        return kept

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=x.learnable() & x.to_tokens(trajectory=self(x)))


@dataclass(frozen=True)
class DecisiveTokens(Selection):
    """The tokens with the largest ``|A_t| H_t``, a share of all that may train; the others are masked.

    ``H`` is the entropy in nats before the update (``x.entropy``), so these are the tokens at which the policy was
    undecided and which matter for what is learned (D3S, arXiv 2509.22115). All tokens of the batch compete, and one
    selection after another: after :class:`MostVariedCredit`, only those of what that kept. A trajectory may lose
    all of its tokens. Of equal ones the first are kept. ``ceil(share n)`` of ``n`` tokens stay, at least one.

    Entropies of densities may be negative; such tokens come last.

    of: the advantage; the recipe's own, as a rule.  share: in (0, 1]; 1 keeps all.

    Raises ``ValueError`` when the batch has no entropies, or advantage or entropy of a token that may train is no
    number.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    of: Advantage = GroupStandardized()
    share: Annotated[float, Gt(0), Le(1)] = 0.2

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        """True for the trajectories of which a token is kept."""
        return x.trajectory_of_token.sum(self._kept(x).float()) > 0

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=self._kept(x))

    def _kept(self, x: Experience) -> Bool[Tensor, " tokens"]:
        if x.entropy is None:
            raise ValueError("a selection of decisive tokens needs x.entropy")
        learnable = x.learnable()
        key = self.of(x).abs() * x.entropy
        key = key if x.mask is None else key[x.mask]
        if bool(key.isnan().any()):
            bad = int(torch.nonzero(learnable).squeeze(1)[key.isnan()][0])
            raise ValueError(f"a selection of decisive tokens: advantage or x.entropy of token {bad} is NaN")
        # The share of a number of tokens may be a whole number and miss it by a rounding.
        count = max(1, math.ceil(self.share * len(key) * (1 - 1e-12)))
        if count >= len(key):
            return learnable
        return torch.zeros_like(learnable).masked_scatter(learnable, _largest(key, count))


def most_varied(values: Float[Tensor, " rows"], sets: Partition, share: float = 0.25) -> Bool[Tensor, " rows"]:
    """Of every set ``max(2, round(share n))`` of its ``n`` values, or all of fewer, that have the largest variance."""
    size = sets.size()
    wanted = (share * size.double()).round().long().clamp(min=LEAST).minimum(size)
    # Around the mean, or the sums of squares would cancel.
    centered = sets.center(values.double())
    rank = sets.rank(centered, descending=True)
    start = size.cumsum(0) - size
    ordered = torch.empty_like(centered)
    ordered[start[sets.labels] + rank] = centered
    # A candidate for every number of the largest, from none to all that are wanted.
    candidates = Partition.from_sizes(wanted + 1)
    top, of = candidates.position(), candidates.labels
    begin, bottom = start[of], wanted[of] - top

    def chosen(terms: Tensor) -> Tensor:
        sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
        end = begin + size[of]
        return (sums[begin + top] - sums[begin] + sums[end] - sums[end - bottom]) / wanted[of].clamp(min=1)

    variance = chosen(ordered.square()) - chosen(ordered).square()
    best = candidates.spread(candidates.max(variance))
    among_best = variance >= best - 1e-12 * candidates.spread(sets.max(centered.square()).clamp(min=0))
    largest = candidates.max(torch.where(among_best, top, -1))
    smallest = wanted - largest
    return (rank < largest[sets.labels]) | (rank >= (size - smallest)[sets.labels])


def _largest(values: Float[Tensor, " rows"], count: int) -> Bool[Tensor, " rows"]:
    """The ``count`` largest values, of equal ones the first; without sorting, of which there may be millions."""
    least = order_statistic(values, len(values) - count)
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(0) <= count - torch.count_nonzero(above)))
