"""BNPO and SEED-GRPO through their recipes: what they change, what they come down to, and what they refuse."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import GroupCentered, GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import diagnose
from stratagem.recipe import Recipe
from stratagem.recipes import bnpo, dr_grpo, grpo, seed_grpo
from stratagem.tasks.task import answer_key


def answers(*groups: list[float], **fields) -> Experience:
    flat = [float(reward) for group in groups for reward in group]
    ones = [1] * len(flat)
    said = -torch.ones(len(flat))
    sizes = [len(group) for group in groups]
    return Experience.from_lengths(ones, ones, sizes, reward=torch.tensor(flat), behavior_logp=said, **fields)


# ---- bnpo -----------------------------------------------------------------------------------------------------------


def test_bnpo_is_grpo_with_another_advantage_and_the_published_loss():
    assert {change.path.split(".")[0] for change in bnpo().diff(grpo())} == {"sampler", "advantage", "objective"}
    flat = bnpo().flat()
    assert (flat["sampler.prompts_per_step"], flat["sampler.group_size"]) == (32, 16)
    assert (flat["objective.gate.low"], flat["objective.gate.high"], flat["objective.gate.dual"]) == (0.2, 0.28, 10.0)
    assert flat["objective.aggregation"] == "sequence_sum"
    assert catalogue.card("bnpo").base == "grpo"


def test_bnpo_survives_yaml():
    for recipe in (bnpo(), bnpo(reward_range=(-1.0, 1.0), shape=(1.5, 2.0), dual=None)):
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_bnpo_credits_three_rates_around_a_half_as_grpo_does_up_to_a_constant():
    x = answers([1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0])
    found = bnpo().prepare(x).advantage
    torch.testing.assert_close(found, math.pi / 8 * GroupStandardized(correction=0, eps=0)(x))


def test_bnpo_fits_every_column_of_the_reward_by_itself():
    right, form = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]]
    apart = [bnpo().prepare(answers(*column)).advantage for column in (right, form)]
    x = answers(*right)
    both = torch.stack([x.reward[:, 0], answers(*form).reward[:, 0]], 1)
    x = x.replace(reward=both, reward_names=("accuracy", "format"), reward_weights=(1.0, 1.0))
    torch.testing.assert_close(bnpo().prepare(x).advantage, (apart[0] + apart[1]) / 2)


def test_bnpo_refuses_a_group_of_one_and_a_reward_out_of_range():
    with pytest.raises(InputError, match=r"sampler\.group_size = 1"):
        bnpo(group_size=1)
    with pytest.raises(InputError, match="trajectory 1 of group 0 has return -1: must be between low = 0 and high = 1"):
        bnpo().prepare(answers([1, -1]))
    assert bnpo(reward_range=(-1.0, 1.0)).prepare(answers([1, -1])).advantage.tolist() == [0.5, -0.5]


def test_the_lab_judges_bnpo_where_rewards_are_in_range_and_says_why_not_elsewhere():
    assert diagnose(bnpo(), "corridor", groups=256).bias is not None
    with pytest.raises(InputError, match="the lab cannot judge it: beta_normalized: trajectory"):
        diagnose(bnpo(), "stopping", groups=256)


def test_language_policies_learn_by_bnpo(make_trainer, small):
    metrics = make_trainer(small("bnpo", advantage__of__high=4.0), steps=1).step()
    assert metrics["updates/not_finite"] == 0


# ---- seed_grpo ------------------------------------------------------------------------------------------------------

SAID = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 6, 7])


def quiz() -> Experience:
    return answers([1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0], answer=SAID)


def gradient(recipe: Recipe, x: Experience) -> torch.Tensor:
    logp = x.behavior_logp.clone().requires_grad_()
    recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss.backward()
    return logp.grad


def test_seed_grpo_is_dr_grpo_with_another_advantage():
    assert {change.path.split(".")[0] for change in seed_grpo().diff(dr_grpo())} == {"advantage"}
    assert seed_grpo(length=256).objective == dr_grpo(256).objective
    assert catalogue.card("seed_grpo").base == "dr_grpo"
    assert Recipe.from_yaml(seed_grpo("focal", 2.0, "likelihood", "apart").to_yaml()) == seed_grpo(
        "focal", 2.0, "likelihood", "apart"
    )


def test_seed_grpo_without_strength_is_dr_grpo_exactly():
    for form in ("reciprocal", "linear", "exponential", "focal"):
        assert torch.equal(gradient(seed_grpo(form, 0.0), quiz()), gradient(dr_grpo(), quiz()))


def test_seed_grpos_gradient_is_its_factor_times_dr_grpos():
    # Halves of eight: u = 1/3. Shares 1/2, 1/4, 1/4 of four: u = 3/4.
    factor = torch.tensor([1 / (1 + 0.0417 / 3)] * 8 + [1 / (1 + 0.0417 * 3 / 4)] * 4)
    torch.testing.assert_close(gradient(seed_grpo(), quiz()), factor * gradient(dr_grpo(), quiz()))
    expected = factor * GroupCentered()(quiz())
    torch.testing.assert_close(seed_grpo().prepare(quiz()).advantage, expected)


def test_answers_that_a_normaliser_equates_are_one_to_seed_grpo():
    def credit(*answers_: object) -> torch.Tensor:
        keys = torch.tensor([answer_key(answer) for answer in answers_])
        return seed_grpo().prepare(answers([1, 1, 0, 0], answer=keys)).advantage

    numbers = [str(Fraction(text)) for text in ("1/2", "0.5", "3", "6/2")]
    assert torch.equal(credit(*numbers), credit("a", "a", "b", "b"))
    assert not torch.equal(credit(*numbers), credit("1/2", "0.5", "3", "6/2"))


def test_seed_grpo_needs_answers():
    with pytest.raises(ValueError, match="recipe seed_grpo reads answer, which this experience does not have"):
        seed_grpo().prepare(answers([1, 0]))


def test_language_policies_learn_by_seed_grpo(make_trainer, small):
    metrics = make_trainer(small("seed_grpo"), steps=1).step()
    assert metrics["updates/not_finite"] == 0


def test_the_lab_can_judge_seed_grpo():
    assert diagnose(seed_grpo(), "corridor", groups=256).bias is not None
