"""Which answer of a group a composite reward calls best, and at which weights it would call another one best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition


@dataclass(frozen=True, eq=False)
class WeightFlips:
    """Weights of one component at which the best answer of a group changes, group by group and in ascending order.

    group: of each flip.  weight: at which it happens, the other weights being as they are.  before, after: the best
    trajectory below and above it.
    """

    group: Int[Tensor, " flips"]
    weight: Float64[Tensor, " flips"]
    before: Int[Tensor, " flips"]
    after: Int[Tensor, " flips"]


@dataclass(frozen=True, eq=False)
class AnswerCliffs:
    """How firmly a batch's reward tells the best answer of each group. Groups without answers are left out.

    names, weights: of the reward's columns.  best: the best trajectory, the first of several.  ties: how many tie.
    gap: best return minus second best; 0 at a tie, infinite in a group of one.  margin: best return minus the best of
    those that do not tie with it.
    low, high: weights of each column nearest to its own at which another answer becomes the best, the other weights
    being as they are; infinite where there is none. Both are the weight itself where answers tie that this column
    tells apart.
    flips: all such weights, for each column.  tie: relative difference below which returns tie.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    best: Int[Tensor, " groups"]
    ties: Int[Tensor, " groups"]
    gap: Float64[Tensor, " groups"]
    margin: Float64[Tensor, " groups"]
    low: Float64[Tensor, "groups names"]
    high: Float64[Tensor, "groups names"]
    flips: tuple[WeightFlips, ...]
    tie: float

    @property
    def radius(self) -> Float64[Tensor, " groups"]:
        """No change of the answers' returns by less than this changes which one is best."""
        return self.gap / 2

    @property
    def hinges(self) -> Bool[Tensor, "groups names"]:
        """Whether the best answer is another one, or no longer told from another, when the column is left out."""
        counted = torch.tensor([weight != 0 for weight in self.weights], device=self.low.device)
        return counted & ((self.low >= 0) | (self.high <= 0))

    def summary(self) -> dict[str, float]:
        """Shares of groups: with ties, and whose best answer hinges on each column; and the median gap."""
        if not len(self.best):
            return {}
        shares = {f"cliff/hinges/{n}": share for n, share in zip(self.names, self._share(self.hinges), strict=True)}
        return {
            "cliff/tied": self._share((self.ties > 1).unsqueeze(1))[0],
            "cliff/median_gap": float(self.gap.median()),
            **shares,
        }

    def _share(self, flags: Tensor) -> list[float]:
        shares: list[float] = flags.double().mean(0).tolist()
        return shares


def answer_cliffs(x: Experience, tie: float = 1e-9) -> AnswerCliffs:
    """The report on the groups of a batch, recorded or just collected.

    For column ``k`` the return of answer ``i`` is the line ``b_i + w c_ik``, with ``b_i`` what the other columns make
    at their weights; the best answer changes where the maximum of a group's lines passes from one to another. Without
    ``reward``, the return is the only column.

    tie: relative difference below which returns tie; at least what rounding in the reward's precision may leave.

    Raises :class:`InputError` naming a trajectory whose reward is not finite.
    """
    given = x.returns.unsqueeze(1) if x.reward is None else x.reward
    names = ("reward",) if x.reward is None else x.reward_names
    numbers = (1.0,) if x.reward is None else x.reward_weights
    if not bool(given.isfinite().all()):
        bad = int(torch.nonzero(~given.isfinite())[0, 0])
        raise InputError(f"trajectory {bad} has reward {given[bad].tolist()}: must be finite")
    tie = max(tie, 4 * torch.finfo(given.dtype).eps)
    groups, _ = x.group_of_trajectory.compact()
    weights = torch.tensor(numbers, dtype=torch.float64, device=given.device)
    terms = given.double() * weights
    returns = terms.sum(1)
    rounding = tie * groups.max(terms.abs().sum(1))
    top = groups.max(returns)
    tied = returns >= groups.spread(top - rounding)
    margin = top - groups.max(torch.where(tied, -torch.inf, returns))
    ties = groups.sum(tied.long())
    flips, lows, highs = [], [], []
    for column, weight in enumerate(numbers):
        others = terms[:, [other for other in range(len(numbers)) if other != column]].sum(1)
        found = _flips(groups, others, given[:, column].double(), tie)
        low, high = _nearest(found, groups.count, weight, tie)
        flips.append(found)
        lows.append(low)
        highs.append(high)
    return AnswerCliffs(
        names=names,
        weights=numbers,
        best=_first(groups, tied),
        ties=ties,
        gap=torch.where(ties > 1, 0.0, margin),
        margin=margin,
        low=torch.stack(lows, 1),
        high=torch.stack(highs, 1),
        flips=tuple(flips),
        tie=tie,
    )


def _flips(groups: Partition, base: Tensor, slope: Tensor, tie: float) -> WeightFlips:
    """Where the maximum of a group's lines ``base + weight * slope`` turns, from weight -inf upwards."""
    # With the least weight, the line of the least slope is on top, and of those the highest.
    lowest = slope <= groups.spread(groups.min(slope))
    now = _first(groups, lowest & (base >= groups.spread(groups.max(torch.where(lowest, base, -torch.inf)))))
    flat = groups.spread(tie * groups.max(slope.abs()))
    numbers = torch.arange(groups.count, device=base.device)
    found = []
    while True:
        rise = slope - groups.spread(slope[now])
        steeper = rise > flat
        meets = torch.where(steeper, (groups.spread(base[now]) - base) / rise.where(steeper, 1.0), torch.inf)
        weight = groups.min(meets)
        turning = weight < torch.inf
        if not bool(turning.any()):
            break
        # Of all lines through that point, the steepest goes on.
        here = steeper & (meets <= groups.spread(weight + tie * weight.abs()))
        steepest = slope >= groups.spread(groups.max(torch.where(here, slope, -torch.inf)))
        after = torch.where(turning, _first(groups, here & steepest, now), now)
        found.append((numbers[turning], weight[turning], now[turning], after[turning]))
        now = after
    if not found:
        none = numbers[:0]
        return WeightFlips(none, base[:0], none, none)
    group, at, before, after = (torch.cat(parts) for parts in zip(*found, strict=True))
    by_group = torch.argsort(group, stable=True)
    return WeightFlips(group[by_group], at[by_group], before[by_group], after[by_group])


def _nearest(flips: WeightFlips, groups: int, weight: float, tie: float) -> tuple[Tensor, Tensor]:
    """The last flip up to the weight and the first one from it on, of every group; a flip at the weight is both."""
    by_group = Partition(flips.group, groups)
    at = torch.where((flips.weight - weight).abs() <= tie * max(1.0, abs(weight)), weight, flips.weight)
    low = by_group.max(torch.where(at <= weight, at, -torch.inf))
    high = by_group.min(torch.where(at >= weight, at, torch.inf))
    return low, high


def _first(
    groups: Partition, chosen: Bool[Tensor, " rows"], otherwise: Int[Tensor, " groups"] | None = None
) -> Int[Tensor, " groups"]:
    """The first chosen row of every group, which has one unless there is an ``otherwise``."""
    rows = torch.arange(len(chosen), device=chosen.device)
    first = groups.min(torch.where(chosen, rows, len(chosen)))
    return first if otherwise is None else torch.where(first < len(chosen), first, otherwise)
