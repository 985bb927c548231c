"""GDPO for masked diffusion through its recipe: numbers worked by hand, and identities on a real policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.diffusion import DiffusionInputs, DiffusionPolicy, Shape
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipe import Recipe
from stratagem.sampling import Denoising, MaskedElbo, OneStep

LENGTHS = [1, 2, 4]
REWARDS = [1.0, 0.0, 0.5]
CREDIT = [0.5, -0.5, 0.0]


def answers(log_ratio: list[float], recipe: Recipe | None = None, **fields) -> tuple[PolicyOutput, Experience]:
    """Answers of 1, 2 and 4 tokens whose ELBO differs from the old one by ``log_ratio``, all on the first token."""
    x = Experience.from_lengths(LENGTHS, [1] * 3, [3], reward=REWARDS, old_logp=torch.full((7,), -1.0), **fields)
    logp = torch.full((7,), -1.0)
    logp[[0, 1, 3]] += torch.tensor(log_ratio)
    return PolicyOutput(logp.requires_grad_()), (recipe or recipes.gdpo_diffusion()).prepare(x)


def on_policy(policy: DiffusionPolicy, likelihood) -> Experience:
    """A batch of three answers of a policy, with the views of this likelihood."""
    source = torch.Generator().manual_seed(0)
    place = torch.arange(6) - 2
    lengths = torch.tensor(LENGTHS).unsqueeze(1)
    response = (place >= 0) & (place < lengths)
    tokens = torch.randint(3, (3, 6), generator=source).masked_fill(place >= lengths, 3)
    views = likelihood.views(
        response,
        torch.rand(3, likelihood.evaluations, 6, generator=source),
        torch.rand(3, likelihood.evaluations, generator=source),
    )
    inputs = DiffusionInputs(tokens, response, views.hidden, views.weight)
    x = Experience.from_lengths(LENGTHS, [1] * 3, [3], reward=REWARDS, action=tokens[response], inputs=inputs)
    with torch.no_grad():
        return recipes.gdpo_diffusion().prepare(x.replace(old_logp=policy(x).logp))


@pytest.fixture
def policy() -> DiffusionPolicy:
    return DiffusionPolicy(Shape(3, 6, width=16), seed=3)


def gradient(loss: Tensor, policy: DiffusionPolicy) -> Tensor:
    found = torch.autograd.grad(loss, list(policy.policy_parameters()))
    return torch.cat([each.flatten() for each in found])


# ---- the objective --------------------------------------------------------------------------------------------------


def test_credit_is_the_reward_minus_its_mean_and_no_more():
    credit = answers([0.0] * 3)[1].advantage
    assert credit.tolist() == pytest.approx([0.5, -0.5, -0.5, 0, 0, 0, 0])


def test_equal_rewards_give_no_credit():
    x = Experience.from_lengths(LENGTHS, [1] * 3, [3], reward=[0.1] * 3)
    assert recipes.gdpo_diffusion().prepare(x).advantage.tolist() == [0.0] * 7


@pytest.mark.parametrize("log_ratio", [[0.0, 0.0, 0.0], [0.1, 0.3, -0.2], [2.0, -2.0, 1.0], [-2.0, 2.0, 0.0]])
def test_each_answer_counts_once_divided_by_its_length(log_ratio):
    out, x = answers(log_ratio)
    surrogates = []
    for credit, change, length in zip(CREDIT, log_ratio, LENGTHS, strict=True):
        ratio = math.exp(change)
        surrogates.append(min(ratio * credit, min(max(ratio, 0.5), 1.5) * credit) / length)
    assert recipes.gdpo_diffusion().objective(out, x).loss.item() == pytest.approx(-sum(surrogates) / 3, abs=1e-6)


def test_a_clipped_answer_has_no_gradient_and_any_other_has_one_on_all_its_tokens():
    out, x = answers([1.0, 1.0, 0.0])
    recipes.gdpo_diffusion().objective(out, x).loss.backward()
    # Ratio e: above 1.5 for the good answer, and for the bad one the clip does not hold: e * 0.5 / (3 * 2).
    assert out.logp.grad.tolist() == pytest.approx([0.0] + [math.e * 0.5 / 6] * 2 + [0.0] * 4)


def test_the_log_ratio_is_clamped():
    out, x = answers([0.0, 500.0, 0.0])
    assert recipes.gdpo_diffusion().objective(out, x).loss.item() == pytest.approx(
        -(0.5 - 0.5 * math.exp(20) / 2) / 3, rel=1e-5
    )


def test_kl_is_of_whole_answers_and_weighted_like_the_rest():
    recipe = recipes.gdpo_diffusion(kl_coefficient=0.1)
    out, x = answers([0.0] * 3, recipe, ref_logp=torch.tensor([-1.2, -1.1, -1.3, -1, -1, -1, -1]))
    # The ELBO is above the reference's by 0.2, 0.4 and 0; k3(d) = exp(-d) - 1 + d.
    penalties = [math.exp(-d) - 1 + d for d in (0.2, 0.4, 0.0)]
    penalty = sum(each / length for each, length in zip(penalties, LENGTHS, strict=True)) / 3
    plain = recipes.gdpo_diffusion().objective(out, x).loss.item()
    assert recipe.objective(out, x).loss.item() - plain == pytest.approx(0.1 * penalty, abs=1e-7)
    assert "ref_logp" in recipe.needs() and "ref_logp" not in recipes.gdpo_diffusion().needs()


# ---- on a policy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [MaskedElbo(), MaskedElbo("random", 2, 2, "count"), OneStep()])
def test_where_the_policy_has_not_moved_the_ratio_is_1_and_the_gradient_that_of_the_elbo(policy, likelihood):
    x = on_policy(policy, likelihood)
    loss = recipes.gdpo_diffusion().objective(policy(x), x)
    assert loss.metrics["ratio"].item() == 1.0
    elbo = x.trajectory_of_token.sum(policy(x).logp)
    expected = -(torch.tensor(CREDIT) / torch.tensor(LENGTHS) * elbo).sum() / 3
    assert torch.allclose(gradient(loss.loss, policy), gradient(expected, policy), atol=1e-6)


def test_other_masks_for_the_old_policy_would_make_another_ratio(policy):
    x = on_policy(policy, MaskedElbo())
    hidden = x.inputs.hidden & (torch.arange(6) != 2)
    other = x.replace(inputs=DiffusionInputs(x.inputs.tokens, x.inputs.response, hidden, x.inputs.weight))
    ratio = recipes.gdpo_diffusion().objective(policy(other), x).metrics["ratio"].item()
    assert abs(ratio - 1) > 0.01


def test_dividing_by_the_length_before_the_exponential_has_the_same_gradient_on_policy_but_clips_elsewhere(policy):
    normalised = recipes.gdpo_diffusion().with_values(
        {"objective.ratio": "geometric_mean_ratio", "objective.aggregation": "sequence_mean"}
    )
    x = on_policy(policy, MaskedElbo())
    mine, theirs = recipes.gdpo_diffusion().objective(policy(x), x), normalised.objective(policy(x), x)
    assert torch.allclose(gradient(mine.loss, policy), gradient(theirs.loss, policy), atol=1e-6)
    out, moved = answers([0.0, 0.0, 1.0])
    moved = moved.replace(advantage=torch.ones(7))
    plain = recipes.gdpo_diffusion()
    bound = [recipe.objective(out, moved).metrics["clip_fraction"].item() for recipe in (plain, normalised)]
    assert bound == [pytest.approx(4 / 7), 0.0]


# ---- the recipe -----------------------------------------------------------------------------------------------------


def test_its_arguments_reach_their_parts():
    recipe = recipes.gdpo_diffusion(points=2, clip=0.2, group_size=4, epochs=3)
    assert recipe.sampler == Denoising(group_size=4, likelihood=MaskedElbo("gauss", 2))
    assert (recipe.objective.gate.low, recipe.objective.gate.high, recipe.optimization.epochs) == (0.2, 0.2, 3)


def test_it_is_written_and_read_back_and_its_estimator_is_a_choice_by_path():
    recipe = recipes.gdpo_diffusion()
    assert Recipe.from_yaml(recipe.to_yaml(), "test") == recipe
    one_step = recipe.with_values({"sampler.likelihood": "one_step"})
    assert one_step.sampler.likelihood == OneStep() and Recipe.from_yaml(one_step.to_yaml(), "test") == one_step
    double = recipe.with_values({"sampler.likelihood.rule": "random", "sampler.likelihood.masks": "count"})
    assert double.sampler.likelihood == MaskedElbo("random", masks="count")
