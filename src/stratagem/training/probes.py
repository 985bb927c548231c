"""What may be measured in a run beside learning: fresh batches, and gradients of any objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Objective, Sampler
from stratagem.recipe import Recipe
from stratagem.shards import whole
from stratagem.training.microbatches import microbatches
from stratagem.training.world import Policy


@dataclass(eq=False)
class RunGauge:
    """What schedules of a run may measure (:class:`~stratagem.parts.Gauge`).

    sample: a fresh batch as the world gives it; None when it has no token.  complete: adds the fields the recipe reads.
    """

    recipe: Recipe
    policy: Policy
    sample: Callable[[Sampler], Experience | None]
    complete: Callable[[Experience], Experience]

    @property
    def objective(self) -> Objective:
        """Of the recipe."""
        return self.recipe.objective

    @property
    def learning_rate(self) -> float:
        """Of the policy."""
        return self.recipe.optimization.learning_rates()[0]

    def sampled(self, sampler: Sampler) -> Experience | None:
        """A fresh batch; None when it has no token."""
        return self.sample(sampler)

    def completed(self, x: Experience) -> Experience:
        """A fresh batch with the fields that the recipe reads."""
        return self.complete(x)

    def gradient(self, objective: Objective, x: Experience, *, after: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Of an objective on all of ``x``, where the policy is or a plain step along ``after`` leads."""
        if after is None:
            return _gradient(objective, self.recipe, self.policy, x)
        return _gradient_ahead(objective, self.recipe, self.policy, x, after, self.learning_rate)

    def product(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
        """Inner product of two gradients."""
        return _product(one, other)


def interference(recipe: Recipe, policy: Policy, one: Experience, other: Experience) -> dict[str, float]:
    """How the gradients of a recipe's loss on two sets of problems agree, such as easy and hard ones; nothing moves.

    one, other: batches as they were collected, with the fields the recipe reads.

    ``cosine`` of the two, 0 where one has no gradient; ``norm/one`` and ``norm/other``; ``share``, that of ``one`` in
    the sum of the norms: when a few problems have most of it, they decide where the shared parameters go (the "ray
    interference" of arXiv 1904.11455).
    """
    gradients = [_gradient(recipe.objective, recipe, policy, recipe.prepare(x)) for x in (one, other)]
    norms = [_product(gradient, gradient) ** 0.5 for gradient in gradients]
    product, total = math.prod(norms), sum(norms)
    return {
        "cosine": _product(*gradients) / product if product else 0.0,
        "norm/one": norms[0],
        "norm/other": norms[1],
        "share": norms[0] / total if total else 0.0,
    }


def _gradient(objective: Objective, recipe: Recipe, policy: Policy, x: Experience) -> list[Tensor]:
    """Of the objective on all of ``x``, by the policy's own parameters; 0 where it says nothing."""
    parameters = list(policy.policy_parameters())
    others = [*policy.critic_parameters(), *policy.view_parameters(recipe.view)]
    with _kept_gradients([*parameters, *others]):
        _backward(objective, recipe, policy, x)
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def _backward(objective: Objective, recipe: Recipe, policy: Policy, x: Experience) -> None:
    """Add the gradient of the objective on all of ``x`` to that of every parameter."""
    asked = {name.removeprefix("output.") for name in objective.needs() if name.startswith("output.")}
    temperature = recipe.sampler.policy_temperature
    for piece in microbatches(x, recipe.optimization.microbatch_tokens):
        out = policy(piece, temperature=temperature, also=asked, view=recipe.view)
        loss = objective(out, piece).loss
        if loss.requires_grad:
            loss.backward()


@contextmanager
def _kept_gradients(parameters: list[Tensor]) -> Iterator[None]:
    """Inside this block the parameters begin without a gradient; afterwards they have the one from before."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _gradient_ahead(
    objective: Objective, recipe: Recipe, policy: Policy, x: Experience, step: Sequence[Tensor], rate: float
) -> list[Tensor]:
    """The gradient after a plain step; the policy is put back as it was."""
    parameters = list(policy.policy_parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.sub_(rate * gradient)
        return _gradient(objective, recipe, policy, x)
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)


def _product(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum(float(whole((a.double() * b.double()).sum())) for a, b in zip(one, other, strict=True))
