"""Graded work: a frozen policy and a small correction of it, cloned from what measures and people found good."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.preferences.learned.reward_models import (
    RewardModel,
    Scores,
    fit_comparisons,
    fit_scores,
    minimise,
    perceptron,
)
from stratagem.seeding import generator
from stratagem.validation import validate_fields


class Grades(NamedTuple):
    """What segments are worth together: standardised, larger is better; its weight in a loss; and what it is made of.

    measured, rated: whether there was a measure, and at least one rating. A segment with neither has worth and
    weight 0.
    """

    worth: Float[Tensor, " segments"]
    weight: Float[Tensor, " segments"]
    measured: Bool[Tensor, " segments"]
    rated: Bool[Tensor, " segments"]


def grade(
    metric: Float[Tensor, " segments"], ratings: Float[Tensor, "segments people"], metric_share: float = 0.5
) -> Grades:
    """``q = w zscore(metric) + (1 - w) zscore(mean rating)``; NaN where something is missing.

    Where one of the two is missing the other counts alone, and where all are equal their score is 0. People who
    disagree count for less: the weight is ``1 / (1 + v)``, ``v`` the variance of the ratings of a segment over that of
    all ratings.

    metric: larger is better.  metric_share: ``w``, in [0, 1].  Raises :class:`InputError` for a share out of range,
    infinite numbers, and shapes that do not fit.
    """
    if not 0 <= metric_share <= 1:
        raise InputError(f"grade: metric_share = {metric_share}: must be in [0, 1]")
    if ratings.ndim != 2 or metric.shape != ratings.shape[:1] or bool(metric.isinf().any() | ratings.isinf().any()):
        raise InputError(
            f"grade: metric has shape {tuple(metric.shape)} and ratings {tuple(ratings.shape)}; they must be "
            "(segments) and (segments, people), finite or NaN"
        )
    heard = ~ratings.isnan()
    count, measured = heard.sum(1), ~metric.isnan()
    said = ratings.nan_to_num(0.0)
    mean = said.sum(1) / count.clamp(min=1)
    apart = torch.where(heard, said - mean.unsqueeze(1), 0.0).square().sum(1) / count.clamp(min=1)
    among = ratings[heard].var(correction=0) if bool(heard.any()) else mean.new_zeros(())
    rated = count > 0
    share = torch.where(measured & rated, metric_share, measured.to(metric.dtype))
    # A share of 0 or 1 leaves nothing to a segment that has only the other.
    known = (measured & (metric_share > 0)) | (rated & (metric_share < 1))
    worth = share * _zscore(metric.nan_to_num(0.0), measured) + (1 - share) * _zscore(mean, rated)
    weight = 1 / (1 + apart / among.clamp(min=1e-12))
    return Grades(torch.where(known, worth, 0.0), torch.where(known, weight, 0.0), measured, rated)


def exponential_weights(
    reward: Float[Tensor, "*steps"], beta: float, largest: float = math.inf, mask: Bool[Tensor, "*steps"] | None = None
) -> Float[Tensor, "*steps"]:
    """``exp(beta r)`` brought to mean 1 over the steps of the mask, then cut at ``largest``; 0 outside the mask.

    Equal rewards have weight 1, adding to all of them changes nothing, and no reward is too large.
    Raises :class:`InputError` for a ``beta`` below 0 or a ``largest`` not above 0.
    """
    if not 0 <= beta < math.inf or not largest > 0:
        raise InputError(f"exponential weights: beta = {beta} must be at least 0, largest = {largest} above 0")
    kept = torch.ones_like(reward, dtype=torch.bool) if mask is None else mask
    height = (beta * reward).masked_fill(~kept, -math.inf)
    share = torch.softmax(height.flatten(), 0) if bool(kept.any()) else torch.zeros_like(height).flatten()
    return (share * kept.sum()).clamp(max=largest).view(reward.shape)


def weighted_cloning(
    predicted: Float[Tensor, "*steps actions"],
    target: Float[Tensor, "*steps actions"],
    reward: Float[Tensor, "*steps"],
    beta: float,
    largest: float = 20.0,
    mask: Bool[Tensor, "*steps"] | None = None,
) -> Float[Tensor, ""]:
    """``mean_t w_t ||predicted_t - target_t||^2`` over the steps of the mask, with :func:`exponential_weights`."""
    kept = torch.ones_like(reward, dtype=torch.bool) if mask is None else mask
    weight = exponential_weights(reward, beta, largest, kept)
    error = torch.where(kept.unsqueeze(-1), predicted - target, 0.0).square().sum(-1)
    return (weight * error).sum() / kept.sum().clamp(min=1)


@paper(
    "2603.03280",
    title="How to Peel with a Knife: Aligning Fine-Grained Manipulation with Human Preference",
    family="preferences",
    roles=("reward", "objective", "policy"),
    year=2026,
    name="peel",
    tags=("reward.source.preferences", "reward.source.environment", "reward.verifier.model", "learning.family.cloning"),
)
@dataclass(frozen=True)
class GradedResidual:
    """Peel: a frozen policy plus a residual, cloned with weights ``exp(beta r(o, a))``; ``r`` learned from grades.

    Grades are of whole segments: a measure of the work and people's ratings (:func:`grade`). Rewards are of steps, such
    that their mean is the grade of the segment (``scores``), or their sum decides which of two segments has the better
    grade (``comparisons``). No action is taken to learn: segments are demonstrations and earlier work of the policy.

    beta: of rewards brought to mean 0 and deviation 1 over the steps. 0: plain cloning.
    largest_weight: above 0; weights have mean 1 before they are cut.
    largest_change: bound on each coordinate of the residual, in units of actions, above 0.
    metric_share: of the measure in grades, in [0, 1].
    hidden: width of the networks' two layers.  members: of the ensemble of rewards.
    reward_steps, steps, batch, learning_rate: of Adam, for the rewards and for the residual; a batch is of steps.

    The paper was known to us by its abstract and short descriptions: two stages, a reward from measures and ratings,
    and weights ``exp(beta r)`` for a residual are theirs; all numbers, the standardisation, both bounds, the mean over
    steps, and what is done where grades are missing are reconstructed. Raises :class:`InputError` for values out of
    range.
    """

    beta: Annotated[float, Ge(0)] = 3.0
    largest_weight: Annotated[float, Gt(0)] = 20.0
    largest_change: Annotated[float, Gt(0)] = 0.1
    metric_share: Annotated[float, Ge(0), Le(1)] = 0.5
    reward: Literal["scores", "comparisons"] = "scores"
    hidden: Annotated[int, Ge(1)] = 256
    members: Annotated[int, Ge(1)] = 3
    reward_steps: Annotated[int, Ge(1)] = 500
    steps: Annotated[int, Ge(1)] = 1000
    batch: Annotated[int, Ge(1)] = 256
    learning_rate: Annotated[float, Gt(0)] = 1e-3

    def __post_init__(self) -> None:
        validate_fields(self, "peel")

    def fit_reward(
        self,
        observations: Float[Tensor, "segments steps features"],
        actions: Float[Tensor, "segments steps actions"],
        grades: Grades,
        seed: int = 0,
    ) -> RewardModel:
        """``r(o, a)`` from the grades of segments; those without a grade are left out.

        A segment with a number that is not finite is left out, too. Raises :class:`InputError` when none is left.
        """
        told = torch.cat([observations, actions], -1)
        kept = (grades.weight > 0) & told.flatten(1).isfinite().all(1)
        if not bool(kept.any()):
            raise InputError("peel: no segment has a grade and finite numbers")
        data = Scores(told[kept], grades.worth[kept], grades.weight[kept])
        model = RewardModel(told.shape[-1], self.hidden, self.members, seed)
        if self.reward == "scores":
            fit_scores(model, data, self.reward_steps, self.learning_rate, seed=seed)
        else:
            fit_comparisons(model, data.compared(), self.reward_steps, self.learning_rate, seed=seed)
        return model

    def fit(
        self,
        base: nn.Module,
        observations: Float[Tensor, "*steps features"],
        actions: Float[Tensor, "*steps actions"],
        reward: RewardModel | Float[Tensor, "*steps"],
        seed: int = 0,
    ) -> ResidualPolicy:
        """The base with a residual towards the actions of steps whose reward is high.

        base: from observations to actions; it stays as it is.  reward: of every step, or a model that says it.
        Steps with numbers that are not finite are left out. Raises :class:`InputError` when none is left.
        """
        seen, done = observations.flatten(0, -2), actions.flatten(0, -2)
        if isinstance(reward, RewardModel):
            with torch.no_grad():
                worth = reward(torch.cat([seen, done], -1))
        else:
            worth = reward.flatten()
        kept = seen.isfinite().all(-1) & done.isfinite().all(-1) & worth.isfinite()
        if not bool(kept.any()):
            raise InputError("peel: no step has finite numbers")
        seen, done = seen[kept], done[kept]
        worth = _zscore(worth[kept], torch.ones_like(worth[kept], dtype=torch.bool))
        weight = exponential_weights(worth, self.beta, self.largest_weight)
        policy = ResidualPolicy(base, seen.shape[-1], done.shape[-1], self.hidden, self.largest_change, seed)

        def loss(step: int) -> Tensor:
            rows = torch.arange(len(seen))
            if len(seen) > self.batch:
                rows = torch.randint(len(seen), (self.batch,), generator=generator(seed, "residual batch", step))
            said: Tensor = policy(seen[rows])
            return (weight[rows] * (said - done[rows]).square().sum(-1)).mean()

        minimise(loss, policy.residual.parameters(), self.steps, self.learning_rate)
        return policy


class ResidualPolicy(nn.Module):
    """``a = base(o) + largest_change tanh(f(o, base(o)))``: a frozen copy of the base at first, exactly.

    features, actions: numbers in an observation and in an action.  hidden: width of two hidden layers.
    """

    def __init__(
        self, base: nn.Module, features: int, actions: int, hidden: int, largest_change: float, seed: int = 0
    ) -> None:
        super().__init__()
        self.base = copy.deepcopy(base).requires_grad_(False)
        self.largest_change = largest_change
        widths = (features + actions, hidden, hidden, actions)
        self.residual = perceptron(widths, generator(seed, "residual"), last=0.0)

    def forward(self, observation: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch actions"]:
        """The action."""
        with torch.no_grad():
            action: Tensor = self.base(observation)
        moved: Tensor = action + self.change(observation, action)
        return moved

    def change(self, observation: Tensor, action: Tensor) -> Float[Tensor, "*batch actions"]:
        """What is added to the base's action."""
        said: Tensor = self.residual(torch.cat([observation, action], -1))
        return self.largest_change * said.tanh()


def _zscore(values: Tensor, known: Tensor) -> Tensor:
    """Standardised over the known ones; 0 where unknown, and everywhere if they are all equal."""
    count = known.sum().clamp(min=1)
    centred = torch.where(known, values - torch.where(known, values, 0.0).sum() / count, 0.0)
    deviation = (centred.square().sum() / count).sqrt()
    scale = values.abs().amax() if values.numel() else deviation
    return torch.where(deviation > 1e-6 * scale, centred / deviation, torch.zeros_like(centred))
