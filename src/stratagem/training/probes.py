"""What schedules ask to have measured: rewards on a fresh batch, gradients of a loss's terms and of single rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.experience import Experience
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.schedules import FrontGain, GradientInfluence, GradientProbe
from stratagem.schedules.weighing import VALIDATION
from stratagem.shards import whole
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


def reward_metrics(probe: FrontGain, validation: Experience) -> dict[str, float]:
    """``validation/NAME``: mean rewards of a batch that is not learned from.

    Raises :class:`InputError` for a name the task does not have.
    """
    if validation.reward is None:
        return {f"{VALIDATION}reward": float(validation.returns.double().mean())}
    weights = dict(zip(validation.reward_names, validation.reward_weights, strict=True))
    for name in probe.names:
        if name not in weights:
            raise unknown(f"reward in {probe.part_name()}.names:", name, weights)
    means = dict(zip(validation.reward_names, validation.reward.double().mean(0).tolist(), strict=True))
    chosen = probe.names or tuple(name for name, weight in weights.items() if weight)
    return {f"{VALIDATION}{name}": means[name] for name in chosen}


def weighed(
    schedule: GradientInfluence, recipe: Recipe, policy: Policy, x: Experience
) -> tuple[Experience, dict[str, float]]:
    """The batch with its rewards weighed anew, and what :class:`GradientInfluence` says is logged, where finite.

    x: shaped and not yet credited. The policy is left as it is.
    """
    if x.reward is None:
        return x, {}
    schedule.begin(x.reward_weights)
    used = [column for column, weight in enumerate(schedule.weights) if weight]
    gradients = [_reward_gradient(schedule, recipe, policy, x, column) for column in used]
    products = torch.zeros(len(x.reward_names), len(x.reward_names), dtype=torch.float64)
    for row, one in zip(used, gradients, strict=True):
        for column, other in zip(used, gradients, strict=True):
            products[row, column] = _product(one, other)
    influence = schedule.move(products, recipe.optimization.learning_rates()[0])
    metrics = {}
    for column in used:
        name = x.reward_names[column]
        metrics[f"influence/{name}"] = float(influence[column])
        metrics[f"gradient/norm/{name}"] = float(products[column, column]) ** 0.5
        metrics[f"weight/{name}"] = schedule.weights[column]
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return x.replace(reward_weights=schedule.weights), finite


def _reward_gradient(
    schedule: GradientInfluence, recipe: Recipe, policy: Policy, x: Experience, column: int
) -> list[Tensor]:
    """Of the schedule's loss, when one reward alone is credited."""
    assert x.reward is not None
    name = (x.reward_names[column],)
    alone = x.replace(reward=x.reward[:, column], reward_names=name, reward_weights=(1.0,), turn_reward=None)
    return _gradient(schedule.objective, recipe, policy, alone.replace(advantage=schedule.advantage(alone).detach()))


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
    return sum(float(whole((a.double() * b.double()).sum())) for a, b in zip(one, other, strict=True))
