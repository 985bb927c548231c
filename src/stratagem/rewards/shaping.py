"""Changes of the reward that depend on the experience alone: penalties (length, distance, format, cost), weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives.regularizers import KLEstimator, kl_estimate
from stratagem.parts import Reward


@dataclass(frozen=True)
class OverlongPenalty(Reward):
    """Soft punishment of long trajectories (DAPO, arXiv 2503.14476, eq. 13), added to the first reward column.

    With length ``L`` in tokens: 0 up to ``limit - buffer``, then falling linearly, ``(limit - buffer - L) / buffer``,
    to -1 at ``limit`` and beyond.

    limit: longest length, in tokens.  buffer: width of the slope, in tokens, at most ``limit``.  scale: of the penalty.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.shaping.added", "limits.question.overthinking"})

    limit: Annotated[int, Gt(0)] = 1024
    buffer: Annotated[int, Gt(0)] = 256
    scale: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer > self.limit:
            raise InputError(f"{self.part_name()}.buffer = {self.buffer}: must be at most limit = {self.limit}")

    def __call__(self, x: Experience) -> Experience:
        length = x.trajectory_of_token.size()
        return _charged(x, ((self.limit - self.buffer - length) / self.buffer).clamp(-1, 0) * self.scale)


@dataclass(frozen=True)
class LengthPlateau(Reward):
    """``R <- R + weight g(L)`` for ``L`` tokens, with ``g`` a trapezoid, added to the first reward column.

    ``g`` is 0 up to ``start``, rises linearly to 1 at ``full``, stays there until ``fade``, and falls linearly to 0 at
    ``end`` and beyond. A long plateau asks for reasoning, a short one for direct answers (arXiv 2604.08539, where they
    are set by hand for each task; the thresholds and the weight were not available).

    start, full, fade, end: in tokens, ``start < full <= fade < end``.  weight: at least 0; a reconstruction.
    domain: the only domain whose trajectories are paid; None: all are. Plateaus of several domains follow each other.

    Raises :class:`InputError` for thresholds in another order.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.shaping.added", "limits.question.overthinking"})

    start: Annotated[int, Ge(0)]
    full: Annotated[int, Gt(0)]
    fade: Annotated[int, Gt(0)]
    end: Annotated[int, Gt(0)]
    weight: Annotated[float, Ge(0)] = 0.1
    domain: Annotated[int, Ge(0)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start < self.full <= self.fade < self.end:
            found = ", ".join(f"{name} = {getattr(self, name)}" for name in ("start", "full", "fade", "end"))
            raise InputError(f"{self.part_name()}: {found}: must be start < full <= fade < end")

    def __call__(self, x: Experience) -> Experience:
        length = x.trajectory_of_token.size()
        rising = (length - self.start) / (self.full - self.start)
        falling = (self.end - length) / (self.end - self.fade)
        bonus = self.weight * torch.minimum(rising, falling).clamp(0, 1)
        if self.domain is not None:
            bonus = bonus * (x.domain_of_trajectory.labels == self.domain)
        return _charged(x, bonus)


@dataclass(frozen=True)
class KLPenalty(Reward):
    """``r_t <- r_t - coefficient * k(log pi - log ref)`` at every token that may train: KL in the reward, not the loss.

    ``pi`` is the policy the update starts from (``old_logp``; ``behavior_logp`` where that was not computed).

    unit: ``token`` charges each token, for advantages made of token rewards; ``trajectory`` charges the sum to the
    first reward column, for advantages made of returns.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ref_logp", "behavior_logp"})

    coefficient: Annotated[float, Ge(0)] = 0.01
    estimator: KLEstimator = "k1"
    unit: Literal["token", "trajectory"] = "token"

    def __call__(self, x: Experience) -> Experience:
        sampled = x.behavior_logp if x.old_logp is None else x.old_logp
        if sampled is None or x.ref_logp is None:
            raise ValueError("the KL penalty needs ref_logp, and old_logp or behavior_logp")
        penalty = x.of_learnable(-self.coefficient * kl_estimate(sampled - x.ref_logp, self.estimator))
        if self.unit == "trajectory":
            return _charged(x, x.trajectory_of_token.sum(penalty))
        return x.replace(token_reward=penalty if x.token_reward is None else x.token_reward + penalty)


@dataclass(frozen=True)
class FormatGate(Reward):
    """``R = otherwise`` where the reward named ``format`` is below 1, whatever else the first reward column says.

    So the format is no second thing to earn by, but the door to the first (arXiv 2510.07038). What turns earned counts
    as little: the last turn makes up the difference. A task without a reward for the format has none to break.

    otherwise: the first column of a trajectory in a wrong format.
    """

    otherwise: FiniteFloat = -1.0

    def __call__(self, x: Experience) -> Experience:
        form = x.named_reward("format")
        if x.reward is None or form is None:
            return x
        reward = x.reward.clone()
        reward[:, 0].masked_fill_(form < 1, self.otherwise)
        return x.replace(reward=reward)


@dataclass(frozen=True)
class FormatPenalty(Reward):
    """``R = R_task - penalty`` where the reward named ``format`` is below 1, on top of what the task itself pays.

    A right answer in a wrong format is then worth what a wrong one in the right format is, for a task of rewards 0 and
    1 and a penalty of 1 (arXiv 2605.22177); :class:`FormatGate` is the stricter rule, under which it is worth nothing.
    A task without a reward for the format has none to break.

    penalty: taken from the first reward column, at least 0.
    """

    penalty: Annotated[float, Ge(0)] = 1.0

    def __call__(self, x: Experience) -> Experience:
        form = x.named_reward("format")
        return x if form is None else _charged(x, (form < 1) * -self.penalty)


@dataclass(frozen=True)
class GradedOutcome(Reward):
    """``R = right`` for a success in the right format, ``wrong`` for a failure in it, ``broken`` where it is not kept.

    In place of all that the task pays: the first reward column is replaced, and the others count nothing. The format is
    the reward named ``format``, kept from 1 on; a task without one has none to break.

    right, wrong, broken: finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"success"})

    right: FiniteFloat = 1.0
    wrong: FiniteFloat = 0.1
    broken: FiniteFloat = 0.0

    def __call__(self, x: Experience) -> Experience:
        if x.success is None:
            raise ValueError("a graded outcome needs x.success")
        reward = x.returns.unsqueeze(1).clone() if x.reward is None else x.reward.clone()
        form = x.named_reward("format")
        reward[:, 0] = self.wrong
        reward[:, 0].masked_fill_(x.success, self.right)
        if form is not None:
            reward[:, 0].masked_fill_(form < 1, self.broken)
        return x.replace(reward=reward, reward_weights=(1.0, *(0.0,) * (reward.shape[1] - 1)))


@dataclass(frozen=True)
class CostPenalty(Reward):
    """``R = R_task - weight * cost``, with a cost that the task notes as a reward of its own, in the task's own unit.

    weight: of the cost, at least 0.  of: name of the noted reward; where a task notes several kinds of costs, one part
    for each weighs them apart.  on_failure: whether a trajectory that failed is charged, too; False: costs count among
    successes alone.  absent: whether a task that notes no such cost is ``refused``, or ``free`` of it.

    Raises :class:`InputError` for a cost below 0, and when the task notes none and that is not free.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.shaping.added", "limits.question.overthinking"})

    weight: Annotated[float, Ge(0)] = 1.0
    of: str = "cost"
    on_failure: bool = True
    absent: Literal["refused", "free"] = "refused"

    def needs(self) -> frozenset[str]:
        """``success``, where failures are not charged."""
        return super().needs() | (frozenset() if self.on_failure else frozenset({"success"}))

    def __call__(self, x: Experience) -> Experience:
        cost = x.named_reward(self.of)
        if cost is None:
            if self.absent == "free":
                return x
            names = ", ".join(x.reward_names)
            raise InputError(
                f"{self.part_name()}: needs a task that notes a reward named {self.of!r}, not only {names}"
            )
        if bool((cost < 0).any()):
            bad = int((cost < 0).nonzero()[0, 0])
            raise InputError(
                f"{self.part_name()}: trajectory {bad} has {self.of} {float(cost[bad])}: must be at least 0"
            )
        if not self.on_failure:
            assert x.success is not None
            cost = cost * x.success
        return _charged(x, -self.weight * cost)


@dataclass(frozen=True)
class RewardWeights(Reward):
    """``R = scale sum_k weights_k R_k``: what each reward column counts, in place of the task's own weights.

    What turns earned stays where it is; by how much the return is now another, the last turn earns more or less.

    weights: one for each column, in the task's order; finite. None: the task's own.  scale: of all of them.

    Raises :class:`InputError` when the experience has another number of columns.
    """

    weights: tuple[FiniteFloat, ...] | None = None
    scale: FiniteFloat = 1.0

    def __call__(self, x: Experience) -> Experience:
        reward = x.returns.unsqueeze(1) if x.reward is None else x.reward
        own = x.reward_weights if x.reward is not None else (1.0,)
        weights = own if self.weights is None else self.weights
        if reward.shape[1] != len(weights):
            raise InputError(
                f"{self.part_name()}.weights = {self.weights}: must be one for each of the rewards "
                f"{', '.join(x.reward_names)}"
            )
        return x.replace(reward=reward, reward_weights=tuple(self.scale * weight for weight in weights))


@dataclass(frozen=True)
class NotedRewards(Reward):
    """``R = scale R_task + offset + sum_k weights_k R_k``: rewards that a task notes without pay are paid, by name.

    ``R_task`` is the return by the task's own weights. A reward that the task does not note counts nothing. The first
    reward column is then all of ``R``, and the others keep what they note, at weight 0.

    names: of the rewards, each once.  weights: as many, finite.

    Raises :class:`InputError` for other than one weight per name, and names given twice.
    """

    names: tuple[str, ...]
    weights: tuple[FiniteFloat, ...]
    scale: FiniteFloat = 1.0
    offset: FiniteFloat = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.weights) != len(self.names) or len(set(self.names)) < len(self.names):
            raise InputError(
                f"{self.part_name()}.weights = {self.weights}: must be one for each of different names, not "
                f"{', '.join(self.names)}"
            )

    def __call__(self, x: Experience) -> Experience:
        total = self.scale * x.returns + self.offset
        for name, weight in zip(self.names, self.weights, strict=True):
            noted = x.named_reward(name)
            if noted is not None:
                total = total + weight * noted
        return paid(x, total)


def paid(x: Experience, total: Tensor) -> Experience:
    """The experience with these returns, all of them in the first reward column; the others pay nothing any more."""
    reward = total.unsqueeze(1) if x.reward is None else torch.cat([total.unsqueeze(1), x.reward[:, 1:]], 1)
    names = x.reward_names[: reward.shape[1]]
    return x.replace(reward=reward, reward_names=names, reward_weights=(1.0, *(0.0 for _ in names[1:])))


def _charged(x: Experience, penalty: Tensor) -> Experience:
    """The experience with ``penalty`` [trajectories], or a bonus, added to its first reward column."""
    reward = x.returns.unsqueeze(1).clone() if x.reward is None else x.reward.clone()
    reward[:, 0] += penalty
    return x.replace(reward=reward)
