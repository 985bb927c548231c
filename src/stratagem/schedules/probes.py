"""Schedules that have something measured: gradients of a loss's terms, and one that weighs the terms by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from stratagem.advantages import Constant
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives import LogLikelihood, PolicyGradient, TokenMean
from stratagem.parts import Advantage, Gauge, Objective, Sampler, Schedule
from stratagem.sampling import Demonstrations, Rollouts


@dataclass(frozen=True)
class Probe(Schedule):
    """Has something measured on a batch that is not learned from.

    every: in batches.  begin: no measurement before this batch, from 0.  sampler: what the batch is of.
    """

    every: Annotated[int, Ge(1)] = 20
    begin: Annotated[int, Ge(0)] = 0
    sampler: Sampler = Rollouts()

    def due(self, step: int) -> bool:
        """Whether to measure in this step."""
        return step >= self.begin and (step + 1 - self.begin) % self.every == 0


@dataclass(frozen=True)
class GradientProbe(Probe):
    """Has the gradients of the objective's terms held against that of a validation loss; changes nothing itself.

    In the last of every ``every`` batches, before it is learned from, it measures (the terms by their path in the
    objective, such as ``imitation``): ``gradient/norm/TERM``, ``gradient/norm/validation``, ``gradient/product/TERM``
    (with the validation's), ``gradient/cosine/TERM`` and ``gradient/learning_rate``, as far as they are finite. They
    are of the policy's weights, critic aside; three gradients are held at a time. Raises :class:`InputError` for an
    objective that has no terms.

    every: in batches.  begin: no measurement before this batch, from 0.
    sampler, advantage, objective: what the validation loss is of. By default the negative log-likelihood of held-out
    demonstrations. With ``Rollouts`` and a policy gradient it is minus the return: a batch like any other to the world,
    whose start states are then not trained on, and whose tokens the budget counts.
    ahead: take the validation's gradient where a plain gradient step on the batch would lead, instead of here: then the
    products are exact derivatives through that step. Every other optimizer makes them approximate.
    """

    sampler: Sampler = Demonstrations(prompts_per_step=32, held_out=True)
    advantage: Advantage = Constant()
    objective: Objective = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())
    ahead: bool = False

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        return {}

    def before_update(self, step: int, x: Experience, gauge: Gauge) -> dict[str, float]:
        if not self.due(step) or (fresh := gauge.sampled(self.sampler)) is None:
            return {}
        return self.measured(x, gauge.completed(fresh), gauge)

    def measured(self, x: Experience, validation: Experience, gauge: Gauge) -> dict[str, float]:
        """The figures, of a batch about to be learned from and one of the validation loss."""
        objective = gauge.objective
        terms = {name: child for name, child in objective.children() if isinstance(child, Objective)}
        if not terms:
            raise InputError(f"schedule {self.part_name()}: objective {objective.part_name()} has no terms")
        judged = validation.replace(advantage=self.advantage(validation).detach())
        after = gauge.gradient(objective, x) if self.ahead else None
        held_against = gauge.gradient(self.objective, judged, after=after)
        length = gauge.product(held_against, held_against) ** 0.5
        figures = {"gradient/norm/validation": length, "gradient/learning_rate": gauge.learning_rate}
        for name, term in terms.items():
            gradient = gauge.gradient(term, x)
            product, norm = gauge.product(gradient, held_against), gauge.product(gradient, gradient) ** 0.5
            figures[f"gradient/norm/{name}"] = norm
            figures[f"gradient/product/{name}"] = product
            figures[f"gradient/cosine/{name}"] = product / (norm * length) if norm * length != 0 else 0.0
        return {name: value for name, value in figures.items() if math.isfinite(value)}


@dataclass(frozen=True)
class MetaWeight(GradientProbe):
    """Learns the weight ``mu`` of a :class:`~stratagem.objectives.Blend` while it is trained (arXiv 2508.06944).

    After every measurement, ``mu <- clip(mu + clip(meta_rate g + entropy_rate (H* - H), -most, most), low, high)``.
    With ``g_S`` and ``g_R`` the gradients of imitation and exploration and ``g_V`` that of the validation loss, ``g = a
    g_V (g_S - g_R)`` is the derivative of minus the validation loss by ``mu`` through one gradient step of length
    ``a``, the learning rate; so ``mu`` rises when imitation lowers the validation loss more than exploration does.
    ``H`` is the entropy of the batch, ``H*`` its mean over the first ``entropy_batches`` after the warm-up, so low
    entropy raises ``mu``. Before batch ``begin``, the warm-up, ``mu = 1``; then it starts from ``initial``.

    A measurement that is not finite, or of a batch that taught nothing, leaves ``mu`` alone. What is beyond a bound is
    not remembered.

    knob: path of ``mu``.  initial, low, high: ``low <= initial <= high``.  meta_rate, entropy_rate: at least 0; both 0
    is a fixed ``mu``. With the learning rate of the paper's configuration, 1e-6, ``meta_rate`` 1e-4 moves ``mu`` by
    1e-10 times a product of gradients, so there the entropy alone moves it.
    most: of ``mu`` in one move.
    sign: ``released`` subtracts ``g``, as the released code does, which lets ``mu`` raise the validation loss.
    entropy_sign: -1 lets low entropy lower ``mu``.
    normalized: ``g = cos(g_V, g_S) - cos(g_V, g_R)`` instead, in [-2, 2] whatever the losses' scales and learning rate
    (a reconstruction: the paper's formula for normalisation is not known).
    """

    begin: Annotated[int, Ge(0)] = 50
    knob: str = "objective.weight"
    initial: Annotated[float, Ge(0), Le(1)] = 0.8
    low: Annotated[float, Ge(0), Le(1)] = 0.05
    high: Annotated[float, Ge(0), Le(1)] = 0.95
    meta_rate: Annotated[float, Ge(0)] = 1e-4
    entropy_rate: Annotated[float, Ge(0)] = 5e-4
    most: Annotated[float, Gt(0)] = 0.05
    entropy_batches: Annotated[int, Ge(1)] = 20
    sign: Literal["ascent", "released"] = "ascent"
    entropy_sign: Literal[1, -1] = 1
    normalized: bool = False
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.initial <= self.high:
            raise InputError(
                f"meta_weight: low = {self.low}, initial = {self.initial}, high = {self.high}: must be in this order"
            )
        zero = torch.zeros((), dtype=torch.float64)
        self._memory.update(weight=zero + self.initial, entropy=zero.clone(), batches=zero.clone())

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        if step < self.begin:
            return {self.knob: 1.0}
        if step > self.begin:
            self._note_entropy(metrics)
            self._move(metrics)
        return {self.knob: float(self._memory["weight"])}

    def _note_entropy(self, metrics: Mapping[str, float]) -> None:
        """Enter the last batch into the target, while it is one of the first."""
        entropy, batches = metrics.get("entropy", math.nan), self._memory["batches"]
        if batches < self.entropy_batches and math.isfinite(entropy):
            self._memory["entropy"].add_((entropy - self._memory["entropy"]) / (batches + 1))
            batches.add_(1)

    def _move(self, metrics: Mapping[str, float]) -> None:
        if "gradient/learning_rate" not in metrics:
            return
        change = self.meta_rate * self._meta_gradient(metrics) if self.meta_rate else 0.0
        if self.entropy_rate:
            below = float(self._memory["entropy"]) - metrics.get("entropy", math.nan)
            change += self.entropy_rate * self.entropy_sign * below
        if math.isfinite(change):
            self._memory["weight"].add_(min(max(change, -self.most), self.most)).clamp_(self.low, self.high)

    def _meta_gradient(self, metrics: Mapping[str, float]) -> float:
        kind, scale = ("cosine", 1.0) if self.normalized else ("product", metrics["gradient/learning_rate"])
        imitation, exploration = (
            metrics.get(f"gradient/{kind}/{term}", math.nan) for term in ("imitation", "exploration")
        )
        return (1.0 if self.sign == "ascent" else -1.0) * scale * (imitation - exploration)
