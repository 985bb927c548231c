"""A reward for how often a policy turned to thinking that left it unsure, by how hard the question was."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, MinLen
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.objectives.bucketed import difficulty
from stratagem.ordering import all_finite
from stratagem.partition import Partition
from stratagem.parts import Reward

_MEDIUM, _HARD = 1, 2

_MARGIN, _KNEE, _TEMPERATURE = (0.15, 0.25, 0.35), (2.0, 3.0, 4.0), (2.0, 2.5, 3.0)
_CAP, _FLOOR = (1.0, 1.0, 1.2), (0.6, 0.8, 1.0)


@dataclass(frozen=True)
class WindowEntropyReward(Reward):
    """``R = R_task + e(n - T)``: many unsure thoughts cost where questions are easy, and pay where they are hard.

    A thought begins at token ``i`` when it is one of ``triggers`` and the mean entropy of the ``width`` tokens after it
    is at least ``theta``; there have to be that many in its trajectory. ``n`` is the number of thoughts of a
    trajectory; ``T`` of a bucket of difficulty is the rounded mean, over its groups, of their mean ``n``.
    How hard a group is, the success of its trajectories in this batch says
    (:func:`~stratagem.objectives.bucketed.difficulty`). With ``d = n - T``, ``m = max(1, f max(T, 1))``, ``cap = alpha
    (1, 1, 1.2)``, ``h(x) = x^2 / 2k`` up to ``k`` and ``x - k / 2`` beyond, and
    ``s(x) = 1 / (1 + exp(-x / t))`` (``f`` .15, .25, .35; ``k`` 2, 3, 4; ``t`` 2, 2.5, 3):

    - right and easy: ``-min(cap, h((d - m)+) cap / (m + k))``; right and medium: the same with ``|d|`` for ``d``;
    - right and hard: ``s(d + m) cap`` for ``d >= -m``, else ``-min(cap, h(-d - m) cap / 2(m + k))``;
    - wrong: ``s((d - m)+) cap`` times 0.6, 0.8, 1.

    A wrong answer therefore earns at least half of its cap, whatever it says: watch success beside the reward.

    ``theta`` is remembered: it begins as the mean, over the trajectories of the first batch, of the 95th percentile of
    their window means (the authors take it from validation answers), and follows the median of these percentiles over a
    batch, ``theta <- smoothing theta + (1 - smoothing) median``. So is ``alpha`` of each bucket: ``alpha <- clip(alpha
    + alpha_rate delta, 0, 2)``, with ``delta`` the mean count less ``T`` (for hard ones the other way). Since ``T`` is
    that mean, rounded, ``|delta|`` is at most a half. Both are moved after a batch has been judged by them. Formulas
    and defaults are those of the released code of arXiv 2510.08457. Entropies are of the whole vocabulary, where that
    code has the likeliest tokens and takes the rest together. A trajectory too short for a window has the percentile of
    its tokens' own entropies.

    triggers: ids of the tokens a thought may begin with; None: any token may, as the paper describes windows. The
    authors' list holds words such as "wait" and "however", for their tokenizer.
    width: in tokens.  alpha: to begin with; 0, with a rate of 0, is no such reward.  alpha_rate: step of ``alpha``.
    smoothing: of ``theta``, in [0, 1].  quantile: that of the windows of a trajectory.

    Raises ``ValueError`` without entropy, success or (for triggers) token ids, or for an entropy that is not finite.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process", "reward.shaping.added"})

    triggers: Annotated[tuple[int, ...], MinLen(1)] | None = None
    width: Annotated[int, Ge(1)] = 4
    alpha: Annotated[float, Ge(0), Le(2)] = 0.5
    alpha_rate: Annotated[float, Ge(0)] = 0.05
    smoothing: Annotated[float, Ge(0), Le(1)] = 0.99
    quantile: Annotated[float, Gt(0), Le(1)] = 0.95
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    requires: ClassVar[frozenset[str]] = frozenset({"entropy", "success"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._memory["theta"] = torch.full((), math.nan, dtype=torch.float64)
        self._memory["alpha"] = torch.full((3,), self.alpha, dtype=torch.float64)

    def needs(self) -> frozenset[str]:
        return self.requires | (frozenset() if self.triggers is None else {"action"})

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def __call__(self, x: Experience) -> Experience:
        if x.success is None:
            raise ValueError("the reward of windows needs x.success")
        rows, window = window_means(x, self.width)
        trajectory = _learnable_by_trajectory(x)
        percentile = self._percentiles(x, rows, window, trajectory)
        theta = self._memory["theta"]
        if len(percentile) and bool(theta.isnan()):
            theta.copy_(percentile.mean())
        count = self._thoughts(x, rows, window, trajectory, float(theta))
        level = difficulty(x.group_of_trajectory.mean(x.success.double()))
        groups = x.group_of_trajectory.size() > 0
        usual = x.group_of_trajectory.mean(count)
        mean = torch.stack([usual[groups & (level == bucket)].mean() for bucket in range(3)])
        bucket = x.group_of_trajectory.spread(level)
        alpha = self._memory["alpha"].to(x.device)
        earned = graded_entropy(count, mean.round()[bucket], alpha[bucket], bucket, x.success)
        self._follow(percentile, mean)
        reward = x.returns.unsqueeze(1).clone() if x.reward is None else x.reward.clone()
        reward[:, 0] += earned.to(reward.dtype)
        return x.replace(reward=reward)

    def _follow(self, percentile: Tensor, mean: Float[Tensor, "3"]) -> None:
        """Move threshold and weights on by a batch; a bucket without groups (a mean of NaN) keeps its own."""
        if len(percentile):
            self._memory["theta"].lerp_(percentile.quantile(0.5).cpu(), 1 - self.smoothing)
        delta = (mean - mean.round()).nan_to_num().cpu()
        delta[_HARD] *= -1
        self._memory["alpha"].add_(self.alpha_rate * delta).clamp_(0, 2)

    def _thoughts(
        self, x: Experience, rows: Tensor, window: Tensor, trajectory: Partition, theta: float
    ) -> Float[Tensor, " trajectories"]:
        """How many each trajectory has. A window that does not exist is NaN and reaches no threshold."""
        begins = window >= theta - 1e-9  # Windows that are all alike are at their own mean, however it is rounded.
        if self.triggers is not None:
            if x.action is None:
                raise ValueError("triggers of thoughts need x.action")
            begins &= torch.isin(x.action[rows], torch.tensor(self.triggers, device=x.device))
        return trajectory.sum(begins).double()

    def _percentiles(
        self, x: Experience, rows: Tensor, window: Tensor, trajectory: Partition
    ) -> Float[Tensor, " read"]:
        """Of the window means of every trajectory with a token that may train; without a window, of its entropies."""
        assert x.entropy is not None
        size = trajectory.size()
        windows = (size - self.width).clamp(min=0)
        short, _ = trajectory.pick(torch.nonzero(windows == 0).squeeze(1))
        values = window.index_copy(0, short, x.entropy[rows[short]].double())
        count = torch.where(windows > 0, windows, size)
        return Partition.from_sizes(count[count > 0]).quantile(values[~values.isnan()], self.quantile)


def window_means(x: Experience, width: int) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Tokens that may train, and of each the mean entropy of the ``width`` such tokens after it in its trajectory.

    A token's own entropy is not in it; NaN where there are fewer tokens after it. Raises ``ValueError`` when entropies
    are missing or not finite.
    """
    if x.entropy is None:
        raise ValueError("window means need x.entropy")
    rows = torch.arange(x.tokens, device=x.device) if x.mask is None else torch.nonzero(x.mask).squeeze(1)
    entropy = (x.entropy if x.mask is None else x.entropy.index_select(0, rows)).double()
    if not all_finite(entropy):
        raise ValueError("window means: x.entropy of a token that may train is not finite")
    mean = torch.full_like(entropy, math.nan)
    if len(rows) > width:
        total = mean[:-width].zero_()
        for after in range(1, width + 1):
            total += entropy[after : len(rows) - width + after]
        total /= width
    # The last tokens of each trajectory have too few after them.
    size = _learnable_by_trajectory(x).size()
    ends = size.cumsum(0).unsqueeze(1)
    last = ends - 1 - torch.arange(width, device=x.device)
    mean[last[last >= ends - size.unsqueeze(1)]] = math.nan
    return rows, mean


def _learnable_by_trajectory(x: Experience) -> Partition:
    """Tokens that may train, by their trajectories."""
    return x.trajectory_of_token if x.mask is None else Partition.from_sizes(x.trajectory_of_token.sum(x.mask))


def graded_entropy(
    count: Float[Tensor, " trajectories"],
    target: Float[Tensor, " trajectories"],
    alpha: Float[Tensor, " trajectories"],
    bucket: Int[Tensor, " trajectories"],
    success: Bool[Tensor, " trajectories"],
) -> Float[Tensor, " trajectories"]:
    """``e`` of :class:`WindowEntropyReward`, at most ``cap`` in size.

    count: ``n``.  target: ``T`` of the trajectory's bucket.  bucket: 0 easy, 1 medium, 2 hard.
    """

    def of_bucket(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=count.device)[bucket]

    knee, temperature, cap = of_bucket(_KNEE), of_bucket(_TEMPERATURE), alpha * of_bucket(_CAP)
    margin = (of_bucket(_MARGIN) * target.clamp(min=1)).clamp(min=1)
    away = count - target

    def cost(excess: Tensor, factor: float = 1.0) -> Tensor:
        excess = excess.clamp(min=0)
        huber = torch.where(excess <= knee, excess.square() / (2 * knee), excess - knee / 2)
        return -torch.minimum(factor * huber / (margin + knee), torch.ones_like(huber)) * cap

    def bonus(excess: Tensor) -> Tensor:
        return (excess / temperature).sigmoid() * cap

    many = cost(torch.where(bucket == _MEDIUM, away.abs(), away) - margin)
    enough = torch.where(away >= -margin, bonus(away + margin), cost(-away - margin, 0.5))
    right = torch.where(bucket == _HARD, enough, many)
    return torch.where(success, right, of_bucket(_FLOOR) * bonus((away - margin).clamp(min=0)))
