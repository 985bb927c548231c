"""Gates with a budget: tokens of a unit share it, or every level of a batch has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.part import Part
from stratagem.partition import Partition
from stratagem.parts import Gate

Level = Literal["turn", "trajectory", "group", "domain"]
ORDER: tuple[Level, ...] = ("turn", "trajectory", "group", "domain")
"""Levels from the shortest unit to the longest."""


@dataclass(frozen=True)
class SharedBudget(Gate):
    """``(1 + d_i) A_i``: ``d_i = clip(r_i - 1, -B_i, B_i)``, ``B_i = max(0, T budget - sum_{j != i} |r_j - 1|)``.

    A token may move by what the other tokens of its unit, ``T`` in all, leave of the budget. Within it,
    ``mean |r - 1| <= budget``, nothing changes; beyond it every token gives up the whole excess,
    ``|d_i| = max(0, |r_i - 1| - excess)``. So no ratios, feasible or not, reach more than the best of
    ``max sum r A`` subject to ``mean |r - 1| <= budget``: the gate is an unconstrained form of a trust region in total
    variation, the Aggregational Policy Censoring Objective of arXiv 2603.08239. Its formula was not available and is a
    reconstruction, from a public re-implementation; it was checked against that linear program. Nothing is detached:
    tokens of a unit over its budget push each other back.

    budget: mean ``|r - 1|`` of a unit; the default is ours.  unit: whose tokens share it; the paper says those of one
    state, and which unit of a batch that is, is a choice of ours. With ``group``, a micro-batch that holds part of one
    raises :class:`InputError`; a mini-batch counts as a batch of its own.
    """

    budget: Annotated[float, Gt(0)] = 0.1
    unit: Literal["turn", "trajectory", "group"] = "trajectory"

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        needs_whole_units(self, x, self.unit)
        deviation = ratio - 1
        given_up = torch.minimum(deviation.abs(), self._excess(deviation, x))
        return (ratio - deviation.sign() * given_up) * advantage

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return (self._excess(ratio - 1, x) > 0) & (ratio != 1)

    def _excess(self, deviation: Tensor, x: Experience) -> Float[Tensor, " tokens"]:
        """By how much the unit of every token is over its budget."""
        unit = x.level_of_token(self.unit)
        total = unit.sum(x.of_learnable(deviation.abs()))
        return unit.spread((total - self.budget * _learnable_size(unit, x)).clamp(min=0).to(deviation.dtype))


@dataclass(frozen=True)
class LevelBudgets(Gate):
    """``G_i A_i``: each level gates its own share of the log-ratio, by a budget for rises and one for falls.

    With ``x = log r`` and a trajectory of ``T`` tokens (arXiv 2603.08239; formulas as in arXiv 2604.03044, eq. 1-5):

    - ``S+ = mean_t max(x_t, 0)`` and ``S- = mean_t max(-x_t, 0)``, the drift of the whole by sign;
    - ``log w = g(S+, up, T) - g(S-, down, T)``, where ``g(s, C, T)`` is ``s`` up to ``C``, runs back to 0 with slope
      ``-T`` until ``(1 + 1/T) C``, and is 0 from there on;
    - ``log G_i = log w + clip(x_i - S+) + clip(S-)`` for a token that rose and
      ``log w + clip(x_i + S-) - clip(S+)`` for one that fell, every clip to ``[-token, token]``.

    A token is clipped for how far it is from the tokens that moved its way, not from 1, so a drift of the whole
    trajectory uses up no token's budget. Within all budgets ``G = r``; at ``r = 1`` its Jacobian is the identity.
    Where ``g`` runs back, a drift that the advantage asks for is undone; a drift *against* the advantage is driven on
    until the level's share is 0 (the advantage's sign is not looked at).

    Longer levels are gated the same way, each what its next longer level leaves of the channel mean:
    ``log w = sum_levels g(S+_level - S+_next) - g(S-_level - S-_next)``, with ``S_group`` the mean over the group's
    trajectories and so on, and ``T`` the number of units averaged. With open gates the sum telescopes to ``log r``. The
    paper describes such hierarchies (token, trajectory, prompt group, domain); its formulas were not available, so
    everything beyond the trajectory is a reconstruction.

    levels: from shorter to longer, of ``turn``, ``trajectory``, ``group``, ``domain``.  up, down: budgets of each
    level, in nats; the paper advises ``down < up``.  token: what a token may deviate, by the paper's advice far less.
    The values it used were not found, so the defaults are a reconstruction. ``inf`` opens a gate.

    Means over groups and domains need all their trajectories: a micro-batch that holds part of one raises
    :class:`InputError`; a mini-batch counts as a batch of its own, which makes the means approximate.
    """

    levels: tuple[Level, ...] = ("trajectory",)
    up: tuple[Annotated[float, Gt(0)], ...] = (0.12,)
    down: tuple[Annotated[float, Gt(0)], ...] = (0.08,)
    token: Annotated[float, Ge(0)] = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [ORDER.index(level) for level in self.levels]
        if not places or places != sorted(set(places)):
            raise InputError(f"level_budgets.levels = {self.levels}: must be some of {', '.join(ORDER)}, in this order")
        for name in ("up", "down"):
            if len(getattr(self, name)) != len(self.levels):
                raise InputError(
                    f"level_budgets.{name} = {getattr(self, name)}: must have one budget for each of "
                    f"{', '.join(self.levels)}"
                )

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.gated(ratio, x) * advantage

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        # Beyond what float32 may round when the shares are put together again.
        return (self.gated(ratio, x).log() - ratio.log()).abs() > 1e-5

    def gated(self, ratio: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, " tokens"]:
        """``G`` of every token."""
        needs_whole_units(self, x, self.levels[-1])
        unit = x.level_of_token(self.levels[0])
        sizes = _learnable_size(unit, x)
        moved = ratio.log()
        risen = moved.clamp(min=0)
        rise, fall = [unit.sum(x.of_learnable(part)) / sizes.clamp(min=1) for part in (risen, risen - moved)]
        weight = self._weight(rise, fall, sizes, x)
        clipped_rise, clipped_fall = [mean.clamp(-self.token, self.token) for mean in (rise, fall)]
        # A token that rose and one that fell differ in the mean they are measured by and in what is added again.
        rose = (moved >= 0).to(moved.dtype)
        own = moved + unit.spread(fall) - rose * unit.spread(rise + fall)
        others = unit.spread(weight - clipped_rise) + rose * unit.spread(clipped_rise + clipped_fall)
        return (own.clamp(-self.token, self.token) + others).exp()

    def _weight(self, rise: Tensor, fall: Tensor, sizes: Tensor, x: Experience) -> Float[Tensor, " units"]:
        """``log w`` of every unit of the first level, from its mean rise, mean fall and number of tokens."""
        means, counts, steps = [torch.stack([rise, fall], 1)], [sizes], []
        for level, longer in zip(self.levels, self.levels[1:], strict=False):
            steps.append(_between(x, level, longer))
            filled = (counts[-1] > 0).to(rise.dtype)
            counts.append(steps[-1].sum(filled))
            total = steps[-1].sum(means[-1] * filled.unsqueeze(1))
            means.append(total / counts[-1].clamp(min=1).unsqueeze(1))
        weight = torch.zeros(len(means[-1]), dtype=rise.dtype, device=rise.device)
        for index in reversed(range(len(self.levels))):
            left = means[index]
            if index < len(steps):
                left, weight = left - steps[index].spread(means[index + 1]), steps[index].spread(weight)
            up, down = self.up[index], self.down[index]
            weight = weight + _run_back(left[:, 0], up, counts[index]) - _run_back(left[:, 1], down, counts[index])
        return weight


def _run_back(value: Tensor, budget: float, count: Tensor) -> Tensor:
    """``value`` within its budget; beyond it, back to 0 with slope ``-count``, and 0 from there on."""
    size, count = value.abs(), count.clamp(min=1)
    back = value.sign() * ((count + 1) * budget - count * size)
    return torch.where(size <= budget, value, torch.where(size < (1 + 1 / count) * budget, back, 0.0))


def _learnable_size(unit: Partition, x: Experience) -> Float[Tensor, " units"]:
    """Tokens that may train, by unit."""
    return (unit.size() if x.mask is None else unit.sum(x.mask)).float()


def _between(x: Experience, level: Level, longer: Level) -> Partition:
    """Units of a level by those of a longer one."""
    steps = (x.trajectory_of_turn, x.group_of_trajectory, x.domain_of_group)
    start, end = ORDER.index(level), ORDER.index(longer)
    partition = steps[start]
    for step in steps[start + 1 : end]:
        partition = partition.then(step)
    return partition


def needs_whole_units(part: Part, x: Experience, level: str) -> None:
    """Refuse a micro-batch that holds part of a group or domain: the rest's log-ratios are not there to be averaged."""
    if x.parent is None or level in ("token", "turn", "trajectory"):
        return
    whole, rows = x.parent
    unit = whole.level_of_token(level)
    here = torch.bincount(unit.labels[rows], minlength=unit.count)
    if bool(((here > 0) & (here < unit.size())).any()):
        raise InputError(
            f"{part.part_name()}: a micro-batch holds part of a {level}, and the {part.kind} needs what the policy "
            f"says of all of it: set optimization.microbatch_tokens to null, or {part.kind} by trajectory"
        )
