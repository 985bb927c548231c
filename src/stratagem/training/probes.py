"""Gradients of a loss's terms, held against the gradient of a validation loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.schedules import GradientProbe
from stratagem.training.microbatches import microbatches
from stratagem.training.world import Policy


def gradient_metrics(
    probe: GradientProbe, recipe: Recipe, policy: Policy, x: Experience, validation: Experience
) -> dict[str, float]:
    """What :class:`GradientProbe` says is logged, as far as it is finite; the policy is left as it is.

    x: the batch about to be learned from, credited.  validation: the batch of the validation loss.

    Raises :class:`InputError` for an objective that has no terms.
    """
    terms = {name: child for name, child in recipe.objective.children() if isinstance(child, Objective)}
    if not terms:
        raise InputError(
            f"schedule {probe.part_name()}: objective {recipe.objective.part_name()} of {recipe.name} has no terms"
        )
    rate = recipe.optimization.learning_rates()[0]
    judged = validation.replace(advantage=probe.advantage(validation).detach())
    if probe.ahead:
        step = _gradient(recipe.objective, recipe, policy, x)
        held_against = _gradient_ahead(probe.objective, recipe, policy, judged, step, rate)
    else:
        held_against = _gradient(probe.objective, recipe, policy, judged)
    length = _product(held_against, held_against) ** 0.5
    metrics = {"gradient/norm/validation": length, "gradient/learning_rate": rate}
    for name, term in terms.items():
        gradient = _gradient(term, recipe, policy, x)
        product, norm = _product(gradient, held_against), _product(gradient, gradient) ** 0.5
        metrics[f"gradient/norm/{name}"] = norm
        metrics[f"gradient/product/{name}"] = product
        metrics[f"gradient/cosine/{name}"] = product / (norm * length) if norm * length != 0 else 0.0
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


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
    total = [torch.zeros_like(parameter) for parameter in parameters]
    asked = {name.removeprefix("output.") for name in objective.needs() if name.startswith("output.")}
    temperature = recipe.sampler.policy_temperature
    for piece in microbatches(x, recipe.optimization.microbatch_tokens):
        out = policy(piece, temperature=temperature, also=asked, view=recipe.view)
        loss = objective(out, piece).loss
        if not loss.requires_grad:
            continue
        for sum_, gradient in zip(total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            if gradient is not None:
                sum_.add_(gradient)
    return total


def _gradient_ahead(
    objective: Objective, recipe: Recipe, policy: Policy, x: Experience, step: list[Tensor], rate: float
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


def _product(one: list[Tensor], other: list[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True))
