"""BNPO through its recipe: what it changes, what it comes down to, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import diagnose
from stratagem.recipe import Recipe
from stratagem.recipes import bnpo, grpo


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
