"""Recipes that roll out trees, next to GRPO."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GroupStandardized, NodeStandardized
from stratagem.experience import Experience
from stratagem.objectives import TokenMean
from stratagem.parts import AdvantageSum
from stratagem.recipe import Recipe


def test_trees_with_the_published_numbers_have_twelve_leaves():
    sampler = recipes.ib_tpo().sampler
    assert (sampler.group_size, sampler.depth, sampler.branches, sampler.at.nodes) == (4, 8, 1, 1)
    assert sampler.together and sampler.at.beta == 5.0
    assert recipes.ib_tpo(depth=1).sampler.branches == 0


def test_without_branches_and_local_credit_it_is_grpo_with_a_token_mean():
    recipe, plain = recipes.ib_tpo(depth=1, local=0.0), recipes.grpo()
    x = Experience.from_lengths(
        [2, 1, 3, 1, 2, 2],
        [2, 1, 2, 1],
        [4],
        action=torch.arange(11),
        reward=[1.0, 0, 0, 1],
        success=[True, False, False, True],
    )
    assert isinstance(recipe.advantage, NodeStandardized) and isinstance(plain.advantage, GroupStandardized)
    torch.testing.assert_close(recipe.advantage(x), plain.advantage(x))
    assert recipe.objective.aggregation == TokenMean()
    assert recipe.objective.gate == plain.objective.gate


@pytest.mark.parametrize("name", ["ib_tpo"])
def test_recipes_are_written_and_read_back(name):
    recipe = getattr(recipes, name)()
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_local_credit_has_its_weight():
    advantage = recipes.ib_tpo(local=0.1, beta=3.0).advantage
    assert isinstance(advantage, AdvantageSum)
    assert "ref_logp" in recipes.ib_tpo(kl_coefficient=0.0).needs()
    assert "ref_logp" not in recipes.ib_tpo(local=0.0, kl_coefficient=0.0).needs()
