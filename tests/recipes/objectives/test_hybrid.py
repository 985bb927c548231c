"""Decoupled objectives of hybrid chains: denominators, weights and gradients worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import DirectionKL, PolicyGradient, TokenMean, direction_logp, unit
from stratagem.recipe import Recipe

KAPPA = 2.0


def group(steps: int, mean: Tensor | None = None, rewards: tuple[float, ...] = (1.0, 0.0)) -> Experience:
    """Two chains of ``steps`` latents in three dimensions and one token each; ``mean`` is their old direction."""
    count = len(rewards)
    flags = ([True] * steps + [False]) * count
    if mean is None:
        mean = torch.tensor([0.0, 1.0, 0.0])
    taken = torch.tensor([1.0, 0.0, 0.0])
    rows = [taken if flag else torch.zeros(3) for flag in flags]
    old = [float(direction_logp(mean, taken, KAPPA)) if flag else -1.0 for flag in flags]
    reference = torch.stack([mean if flag else torch.zeros(3) for flag in flags])
    return Experience.from_lengths(
        [steps + 1] * count,
        [1] * count,
        [count],
        latent=flags,
        action=torch.stack(rows),
        behavior_logp=torch.tensor(old),
        old_logp=torch.tensor(old),
        ref_logp=torch.tensor(old),
        ref_direction=reference,
        reward=torch.tensor(rewards),
    )


def said(x: Experience, direction: Tensor) -> PolicyOutput:
    """What a policy says whose directions all are this one, and whose tokens are as they were."""
    mean = torch.where(x.latent.unsqueeze(1), direction, 0.0)
    return PolicyOutput(torch.where(x.latent, direction_logp(mean, x.action, KAPPA), x.old_logp), direction=mean)


def loss(recipe: Recipe, x: Experience, out: PolicyOutput) -> dict[str, float]:
    found = recipe.objective(out, recipe.prepare(x))
    return {"loss": found.loss.item(), **{name: value.item() for name, value in found.metrics.items()}}


def plain(**arguments: float) -> Recipe:
    return recipes.hylar(kl_coefficient=0.0, latent_kl_coefficient=0.0, **arguments)


def test_a_latent_is_clipped_at_its_own_bounds_and_weighted():
    x = group(2, rewards=(1.0, 0.0))
    advantage = float(recipes.hylar().prepare(x).advantage[0])
    found = loss(plain(), x, said(x, torch.tensor([1.0, 0.0, 0.0])))
    # exp(2) is above both: 1.1 for the good chain, and the dual clip of 3 for the bad one.
    latents = -(1.1 - 3.0) / 2 * advantage
    assert found["latents/policy_loss"] == pytest.approx(latents, rel=1e-5)
    assert found["latents/clip_fraction"] == 1
    assert found["clip_fraction"] == 0
    assert found["loss"] == pytest.approx(found["policy_loss"] + 0.5 * latents, rel=1e-5)


def test_more_latents_do_not_thin_out_the_tokens():
    direction = unit(torch.tensor([1.0, 1.0, 0.2]))
    rewards = (1.0, 0.0, 0.0)
    few, many = (group(steps, rewards=rewards) for steps in (2, 4))
    losses = []
    for x in (few, many):
        out = said(x, direction)
        change = torch.tensor([0.05, 0.1, -0.1]).repeat_interleave(x.tokens // 3)
        logp = torch.where(x.latent, out.logp, out.logp + change)
        losses.append(loss(plain(), x, PolicyOutput(logp, direction=out.direction)))
    assert losses[0]["policy_loss"] == pytest.approx(losses[1]["policy_loss"], rel=1e-6)
    assert losses[0]["latents/policy_loss"] == pytest.approx(losses[1]["latents/policy_loss"], rel=1e-6)
    joint = recipes.hylar().replace(objective=PolicyGradient(aggregation=TokenMean()))
    shares = [torch.where(x.latent, 0.0, joint.objective.aggregation.at(x)).sum().item() for x in (few, many)]
    assert shares == pytest.approx([1 / 3, 1 / 5])


def gradients(recipe: Recipe, x: Experience) -> tuple[Tensor, Tensor]:
    """Of the loss by the log-probabilities of tokens, and by a direction before it is made a unit."""
    raw = torch.tensor([1.0, 0.6, 0.3], requires_grad=True)
    token = torch.full((x.tokens,), -1.1, requires_grad=True)
    latent = said(x, unit(raw))
    out = PolicyOutput(torch.where(x.latent, latent.logp, token), direction=latent.direction)
    recipe.objective(out, recipe.prepare(x)).loss.backward()
    return token.grad, raw.grad


def test_without_weight_latents_get_no_gradient_and_tokens_keep_theirs():
    x = group(2, unit(torch.tensor([1.0, 0.5, 0.3])), rewards=(1.0, 0.0, 0.0))
    tokens, latents = gradients(plain(latent_weight=0.0), x)
    with_weight, moved = gradients(plain(latent_weight=0.5), x)
    assert latents.tolist() == [0, 0, 0]
    assert moved.abs().sum() > 0
    assert torch.equal(tokens, with_weight)
    assert tokens[x.latent].tolist() == [0.0] * int(x.latent.sum())


def test_without_latents_it_is_grpo_with_a_token_mean_bit_for_bit():
    x = group(0, rewards=(1.0, 0.0, 1.0)).replace(latent=None)
    logp = torch.tensor([-0.9, -1.4, -1.0])
    grpo = recipes.grpo()
    reference = grpo.replace(objective=grpo.objective.replace(aggregation=TokenMean()))
    out = PolicyOutput(logp, direction=torch.zeros(3, 3))
    for batch in (x, x.replace(latent=torch.zeros(3, dtype=torch.bool))):
        ours = loss(plain(), batch, out)
        assert ours["loss"] == loss(reference, batch, out)["loss"]
        full = loss(recipes.hylar(kl_coefficient=0.0), batch, out)
        assert full["loss"] == ours["loss"]
        assert full["latents/regularizer"] == 0


def test_where_policies_agree_the_gradient_is_that_of_the_cosine():
    mean = unit(torch.tensor([1.0, 0.6, 0.3]))
    x = group(1, mean, rewards=(1.0, 0.0, 0.0))
    recipe = plain(latent_weight=1.0)
    _, found = gradients(recipe, x)
    raw = torch.tensor([1.0, 0.6, 0.3], requires_grad=True)
    advantage = recipe.prepare(x).advantage[x.latent]
    (-(advantage * KAPPA * (unit(raw) @ x.action[0])).mean()).backward()
    torch.testing.assert_close(found, raw.grad, rtol=1e-5, atol=1e-8)


def test_a_latent_at_its_mean_teaches_nothing_on_policy():
    raw = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64, requires_grad=True)
    x = group(1, rewards=(1.0, 0.0, 0.0))
    at_mean = torch.where(x.latent.unsqueeze(1), unit(raw).detach(), 0.0)
    out = said(x.replace(action=at_mean), unit(raw))
    x = x.replace(action=at_mean, old_logp=out.logp.detach())
    recipe = plain()
    recipe.objective(out, recipe.prepare(x)).loss.backward()
    assert raw.grad.abs().max() < 1e-15


def test_the_kl_of_latents_has_a_weight_of_its_own():
    x = group(2)
    out = said(x, unit(torch.tensor([1.0, 2.0, 0.0])))
    losses = {
        weight: loss(recipes.hylar(latent_weight=weight, latent_kl_coefficient=0.1, concentration=KAPPA), x, out)
        for weight in (0.0, 0.5)
    }
    penalty = 0.1 * DirectionKL(KAPPA)(out, x)[0].item()
    for weight, found in losses.items():
        without = loss(recipes.hylar(latent_weight=weight, latent_kl_coefficient=0.0), x, out)
        assert found["latents/regularizer"] == pytest.approx(penalty, rel=1e-5)
        assert found["loss"] - without["loss"] == pytest.approx(penalty, rel=1e-4)


def test_the_kl_of_tokens_sees_no_latents():
    x = group(2)
    moved = said(x, unit(torch.tensor([1.0, 2.0, 0.0])))
    assert loss(recipes.hylar(), x, moved)["regularizer"] == 0


def test_what_it_needs_depends_on_its_penalties():
    assert {"ref_logp", "ref_direction"} <= recipes.hylar().experience_needs()
    assert recipes.hylar(latent_kl="rollout").experience_needs() >= {"ref_logp", "action"}
    assert "ref_direction" not in recipes.hylar(latent_kl="rollout").experience_needs()
    assert plain().output_needs() == frozenset()


def test_masked_rows_of_any_content_reach_neither_loss_nor_gradient():
    x = group(2, rewards=(1.0, 0.0, 0.0))
    mask = torch.ones(x.tokens, dtype=torch.bool)
    mask[1] = False
    direction = said(x, unit(torch.tensor([1.0, 2.0, 0.0]))).direction.clone()
    direction[1] = float("nan")
    leaf = direction.requires_grad_()
    x = x.replace(mask=mask, ref_direction=torch.where(mask.unsqueeze(1), x.ref_direction, float("nan")))
    recipe = recipes.hylar(concentration=KAPPA)
    found = recipe.objective(PolicyOutput(x.old_logp.clone(), direction=leaf), recipe.prepare(x)).loss
    assert found.isfinite()
    found.backward()
    assert leaf.grad.isfinite().all() and leaf.grad[1].tolist() == [0, 0, 0]
