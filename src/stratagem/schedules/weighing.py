"""Schedules that weigh several rewards anew: by the front that was reached, or by what their gradients do for all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError, unknown
from stratagem.experience import Experience
from stratagem.hypervolume import gained
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceMean
from stratagem.parts import Advantage, Gauge, Objective, Sampler, Schedule
from stratagem.sampling import Rollouts
from stratagem.schedules.probes import Probe


@dataclass(frozen=True)
class FrontGain(Probe):
    """``knob = low + span tanh(dHV)``: rewards count more when the policy enlarges the front of what was reached.

    Before every ``every``-th batch the mean of each reward is measured on a fresh batch (``validation/NAME``).
    The first measurement, of the policy the run begins with, is the reference point, and the knob stays at 1. Of every
    later one, ``u``, ``dHV`` is the hypervolume, over the reference, that ``u`` adds to the points so far, at least 0;
    the knob then keeps its value until the next one, and ``u`` is one of the points if ``dHV > 0`` (arXiv 2509.11452).

    Rewards are meant to lie in [0, 1], each: a volume of unlike scales says nothing. A point that is dominated,
    repeated or not above the reference in every reward adds nothing, so the knob is then ``low``. The released code
    lets a point below the reference take volume away from others.

    every, begin: as of every probe, but the first measurement is in batch ``begin`` itself.  sampler: what is measured
    on: a batch like any other to the world, whose tokens the budget counts.
    knob: dotted path of a number.  low, span: by default the knob is between 0.5 and 2.
    names: of the rewards that are measured; none: those that count in the task's own return.
    """

    every: Annotated[int, Ge(1)] = 1
    sampler: Sampler = Rollouts(prompts_per_step=32, group_size=1)
    knob: str = "rewards.reward_weights.scale"
    low: Annotated[FiniteFloat, Ge(0)] = 0.5
    span: Annotated[FiniteFloat, Ge(0)] = 1.5
    names: tuple[str, ...] = ()
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        empty = torch.zeros(0, dtype=torch.float64)
        self._memory.update(points=empty, factor=torch.ones((), dtype=torch.float64))

    def memory(self) -> dict[str, Tensor]:
        """points: those kept, by reward in alphabetical order; the first is the reference.  factor: the knob's."""
        return self._memory

    def due(self, step: int) -> bool:
        return step >= self.begin and (step - self.begin) % self.every == 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        return {self.knob: float(self._memory["factor"])}

    def before_batch(self, step: int, gauge: Gauge) -> dict[str, float]:
        if not self.due(step) or (fresh := gauge.sampled(self.sampler)) is None:
            return {}
        means = self.means(fresh)
        self.judge([means[name] for name in sorted(means)])
        return {f"validation/{name}": mean for name, mean in means.items()}

    def means(self, x: Experience) -> dict[str, float]:
        """Of the rewards of a batch. Raises :class:`InputError` for a name the task does not have."""
        if x.reward is None:
            return {"reward": float(x.returns.double().mean())}
        weights = dict(zip(x.reward_names, x.reward_weights, strict=True))
        for name in self.names:
            if name not in weights:
                raise unknown(f"reward in {self.part_name()}.names:", name, weights)
        means = dict(zip(x.reward_names, x.reward.double().mean(0).tolist(), strict=True))
        return {name: means[name] for name in self.names or (name for name, weight in weights.items() if weight)}

    def judge(self, point: Sequence[float]) -> None:
        """Take a measurement into account, unless it is not finite."""
        if not all(map(math.isfinite, point)):
            return
        points, row = self._memory["points"], torch.tensor([point], dtype=torch.float64)
        if not points.numel():
            points.resize_(row.shape).copy_(row)
            return
        reference, *reached = points.tolist()
        gain = gained(point, reached, reference)
        self._memory["factor"].fill_(self.low + self.span * math.tanh(gain))
        if gain > 0:
            points.resize_(len(points) + 1, len(point))[-1].copy_(row[0])


@dataclass(frozen=True)
class GradientInfluence(Schedule):
    """``w_k <- softmax_k(log w_k + step I_k)``, ``I_k = <g_k, sum_j g_j>``: weight for rewards that help all of them.

    ``g_k`` is the gradient of a loss by the policy's weights when reward ``k`` alone is credited. It is taken on every
    batch before that is learned from, and the batch is learned from with the new weights (arXiv 2509.11452). So
    a reward that agrees with the others, or has a long gradient, gains weight; it is one step of mirror ascent on
    ``sum_k w_k I_k``. Rewards that are orthogonal and have gradients of one length, or are opposed, keep theirs. Logged
    are ``influence/NAME``, ``gradient/norm/NAME`` and ``weight/NAME``. A batch costs a forward and a backward pass more
    for every reward, and holds as many gradients.

    The first weights are the batch's own, scaled to add up to 1; a reward of weight 0 keeps it and costs nothing. Where
    a gradient is not finite the weights stay, with a warning.

    step: 0.1 is the learning rate over the regularisation factor in the scripts released with the paper, 1e-6 / 1e-5.
    regularization: that factor; then ``step`` is the learning rate of the moment over it. None: ``step`` as given.
    normalized: divide all gradients by their mean length, so that ``step`` means the same for every policy; a
    reconstruction (in the released code such a line is switched off).
    max_norm: longer gradients are scaled down to it, as in the released code; None: they are not.
    accumulation: batches whose influences are averaged for a move.  floor: least weight, before scaling to a sum of 1;
    the paper has none, and a weight of 0 would never come back.
    advantage, objective: what a reward alone is credited and learned by. The released code has the KL term of the loss
    in every ``g_k`` as well.
    """

    step: Annotated[FiniteFloat, Ge(0)] = 0.1
    regularization: Annotated[FiniteFloat, Gt(0)] | None = None
    normalized: bool = False
    max_norm: Annotated[FiniteFloat, Gt(0)] | None = 1.0
    accumulation: Annotated[int, Ge(1)] = 1
    floor: Annotated[float, Ge(0), Le(0.1)] = 1e-4
    advantage: Advantage = GroupStandardized()
    objective: Objective = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceMean())
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weights", "influence", "batches"):
            self._memory[name] = torch.zeros(0 if name != "batches" else 1, dtype=torch.float64)

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        return {}

    def before_credit(self, step: int, x: Experience, gauge: Gauge) -> tuple[Experience, dict[str, float]]:
        if x.reward is None or not x.tokens:
            return x, {}
        self.begin(x.reward_weights)
        used = [column for column, weight in enumerate(self.weights) if weight]
        gradients = [gauge.gradient(self.objective, self._alone(x, column)) for column in used]
        products = torch.zeros(len(x.reward_names), len(x.reward_names), dtype=torch.float64)
        for row, one in zip(used, gradients, strict=True):
            for column, other in zip(used, gradients, strict=True):
                products[row, column] = gauge.product(one, other)
        influence = self.move(products, gauge.learning_rate)
        figures = {}
        for column in used:
            name = x.reward_names[column]
            figures[f"influence/{name}"] = float(influence[column])
            figures[f"gradient/norm/{name}"] = float(products[column, column]) ** 0.5
            figures[f"weight/{name}"] = self.weights[column]
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        return x.replace(reward_weights=self.weights), finite

    def _alone(self, x: Experience, column: int) -> Experience:
        """The batch as this reward alone would credit it."""
        assert x.reward is not None
        name = (x.reward_names[column],)
        x = x.replace(reward=x.reward[:, column], reward_names=name, reward_weights=(1.0,), turn_reward=None)
        return x.replace(advantage=self.advantage(x).detach())

    def begin(self, weights: Sequence[float]) -> None:
        """Start from these weights, unless it has started. Raises :class:`InputError` for one below 0, and all 0."""
        if self._memory["weights"].numel():
            return
        if min(weights) < 0 or not sum(weights):
            raise InputError(f"{self.part_name()}: weights of rewards {tuple(weights)}: must be at least 0, not all 0")
        given = torch.tensor(weights, dtype=torch.float64)
        for name, values in (("weights", given / given.sum()), ("influence", torch.zeros_like(given))):
            self._memory[name].resize_(given.shape).copy_(values)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the rewards now; none before the first batch."""
        return tuple(self._memory["weights"].tolist())

    def move(self, products: Float64[Tensor, "names names"], learning_rate: float) -> Float64[Tensor, " names"]:
        """Take the inner products of all gradients of a batch into account; returns the influences.

        products: 0 for rewards of weight 0.
        """
        products = self._scaled(products)
        influence = products.sum(1)
        if not bool(influence.isfinite().all()):
            warnings.warn(f"{self.part_name()}: a gradient is not finite; the weights stay", stacklevel=2)
            return influence
        total, batches = self._memory["influence"], self._memory["batches"]
        total.add_(influence)
        batches.add_(1)
        if int(batches) == self.accumulation:
            step = self.step if self.regularization is None else learning_rate / self.regularization
            self._memory["weights"].copy_(self._moved(step * total / batches))
            total.zero_()
            batches.zero_()
        return influence

    def _scaled(self, products: Tensor) -> Tensor:
        """Inner products of the gradients once they are clipped and normalised."""
        lengths = products.diagonal().sqrt()
        factor = torch.ones_like(lengths)
        if self.max_norm is not None:
            factor = (self.max_norm / lengths.clamp(min=1e-300)).clamp(max=1)
        if self.normalized:
            mean = (factor * lengths)[self._memory["weights"] > 0].mean()
            factor = factor / torch.where(mean > 0, mean, 1.0)
        return products * torch.outer(factor, factor)

    def _moved(self, change: Tensor) -> Tensor:
        weights = self._memory["weights"]
        moved = torch.softmax(weights.log() + change, 0)
        floored = torch.where(weights > 0, moved.clamp(min=self.floor), 0.0)
        return floored / floored.sum()
