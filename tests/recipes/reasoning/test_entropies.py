"""Recipes that steer entropy, through the recipes: what they are made of, and where they are their base."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipe import Recipe


def gradient(recipe: Recipe, x: Experience, logp: Tensor) -> Tensor:
    """Of the loss by every log-probability."""
    logp = logp.detach().clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


# ---- entropy_mechanism_cov ------------------------------------------------------------------------------------------


def four(**fields) -> Experience:
    """Four tokens of which the third, rare and bad, has the largest covariance."""
    logp = torch.tensor([0.9, 0.5, 0.1, 0.8]).log()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    return Experience.from_lengths(
        [4], [1], [1], old_logp=logp, behavior_logp=logp, advantage=advantage, seed=[5], **fields
    )


MOVED = torch.tensor([0.3, -0.1, -0.1, 0.4])
"""By which the first and the last are beyond PPO's clip, the last on the side the clip does not stop."""


def test_kl_cov_is_the_unclipped_gradient_but_for_the_token_that_varies_most():
    x = four()
    found = 4 * gradient(recipes.entropy_mechanism_cov(), x, x.old_logp + MOVED)
    expected = -MOVED.exp() * x.advantage
    expected[2] -= 1.0
    torch.testing.assert_close(found, expected)


def test_clip_cov_is_the_clipped_gradient_without_that_token():
    x = four()
    found = 4 * gradient(recipes.entropy_mechanism_cov("clip"), x, x.old_logp + MOVED)
    expected = -MOVED.exp() * x.advantage
    expected[0] = expected[2] = 0.0
    torch.testing.assert_close(found, expected)


def test_without_their_terms_both_are_grpo_with_the_mean_over_tokens():
    x = four()
    logp = x.old_logp + MOVED
    base = recipes.grpo().with_values({"objective.aggregation": "token_mean"})
    clip = recipes.entropy_mechanism_cov("clip").with_values({"objective.correction.low": 4.0})
    assert torch.equal(gradient(clip, x, logp), gradient(base, x, logp))
    none = recipes.entropy_mechanism_cov(coefficient=0.0)
    unclipped = base.with_values({"objective.gate": "unclipped"})
    torch.testing.assert_close(gradient(none, x, logp), gradient(unclipped, x, logp))
    # Where the policy has not moved, the penalty has no gradient either.
    assert torch.equal(gradient(recipes.entropy_mechanism_cov(), x, x.old_logp), gradient(base, x, x.old_logp))


def test_the_forms_have_the_published_numbers_and_are_written_and_read_back():
    kl, clip = recipes.entropy_mechanism_cov(), recipes.entropy_mechanism_cov("clip")
    assert (kl.objective.regularizer.term.share, kl.objective.regularizer.factor) == (2e-3, 1.0)
    mask = clip.objective.correction
    assert (mask.share, mask.low, mask.high) == (2e-4, 1.0, 5.0)
    assert catalogue.card("entropy_mechanism_cov").arxiv == "2505.22617"
    for recipe in (kl, clip):
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    with pytest.raises(InputError, match="covariance_mask"):
        recipes.entropy_mechanism_cov("clip", low=5.0, high=1.0)


def test_what_may_not_train_is_not_counted_among_the_tokens_that_vary():
    x = four()
    wide = Experience.from_lengths(
        [6],
        [1],
        [1],
        mask=[True, False, True, True, False, True],
        seed=[5],
        **{
            name: torch.tensor([v[0], math.nan, v[1], v[2], -math.inf, v[3]])
            for name in ("old_logp", "behavior_logp", "advantage")
            for v in [getattr(x, name).tolist()]
        },
    )
    logp = torch.zeros(6).masked_scatter(wide.mask, x.old_logp + MOVED)
    for form in ("kl", "clip"):
        recipe = recipes.entropy_mechanism_cov(form)
        found = gradient(recipe, wide, logp)
        assert torch.equal(found[wide.mask], gradient(recipe, x, x.old_logp + MOVED))
        assert not found[~wide.mask].any()


# ---- ares_aepo ------------------------------------------------------------------------------------------------------


def test_ares_without_its_terms_is_grpo_with_a_kl_and_with_them_it_is_not():
    source = torch.Generator().manual_seed(2)
    tokens, answers = 48, 8
    success = torch.arange(answers) % 3 == 0
    x = Experience.from_lengths(
        [6] * answers,
        [1] * answers,
        [4, 4],
        reward=success.float(),
        success=success,
        **{name: torch.randn(tokens, generator=source) for name in ("old_logp", "behavior_logp", "ref_logp")},
        entropy=torch.rand(tokens, generator=source),
    )
    logp = x.old_logp + 0.1 * torch.randn(tokens, generator=source)
    base = recipes.grpo(kl_coefficient=1e-2)
    expected = gradient(base, base.prepare(x), logp)
    bare = recipes.ares_aepo(alpha=0.0).with_values(
        {"rewards.window_entropy_reward.alpha_rate": 0.0, "objective.regularizer.term.rate": 0.0}
    )
    torch.testing.assert_close(gradient(bare, bare.prepare(x), logp), expected)
    # Within the margin every wrong answer of a group earns the same, which standardising takes off again.
    full = recipes.ares_aepo(width=2)
    assert (full.shape(x).returns - x.returns)[~success].tolist() == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.3])
    strong = bare.with_values({"objective.regularizer.term.rate": 50.0, "objective.regularizer.term.every": 1})
    gradient(strong, strong.prepare(x), logp)
    strong.after_step(taken=True)
    assert not torch.allclose(gradient(strong, strong.prepare(x), logp), expected)


def test_ares_has_the_published_numbers_and_is_written_and_read_back():
    recipe = recipes.ares_aepo(triggers=(5, 9))
    [reward] = recipe.rewards
    assert (reward.triggers, reward.width, reward.alpha) == ((5, 9), 4, 0.5)
    penalty = recipe.objective.regularizer
    assert (penalty.factor, penalty.term.budget, penalty.term.every) == (1e-2, 0.01, 100)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert {"entropy", "success", "action", "pass_rate", "ref_logp"} <= recipe.needs()
    with pytest.raises(InputError, match="triggers"):
        recipes.ares_aepo(triggers=())
