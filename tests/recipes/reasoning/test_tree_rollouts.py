"""Recipes that roll out trees, next to GRPO."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GroupStandardized, NodeStandardized
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.game import TokenGame, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import TokenMean
from stratagem.parts import AdvantageSum
from stratagem.recipe import Recipe
from stratagem.sampling import BranchWhere, OnlineTree, Rollouts


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
        step_start=torch.arange(11) % 3 == 1,
    )
    assert isinstance(recipe.advantage, NodeStandardized) and isinstance(plain.advantage, GroupStandardized)
    torch.testing.assert_close(recipe.advantage(x), plain.advantage(x))
    assert recipe.objective.aggregation == TokenMean()
    assert recipe.objective.gate == plain.objective.gate


def test_all_parts_of_a_recipe_mean_the_same_steps():
    for steps in ("blank_lines", "turns", 16):
        flat = recipes.ib_tpo(steps=steps).flat()
        assert [value for path, value in flat.items() if path.endswith(".steps")] == [steps] * 3
    assert recipes.ib_tpo() == recipes.ib_tpo(steps="blank_lines")
    assert "step_start" in recipes.ib_tpo().needs() and "step_start" not in recipes.ib_tpo(steps=16).needs()
    built = Recipe.from_yaml(recipes.ib_tpo(steps=16).to_yaml())
    assert built.sampler.at.steps == 16


@pytest.mark.parametrize("name", ["ib_tpo", "echo_ttrl"])
def test_recipes_are_written_and_read_back(name):
    recipe = getattr(recipes, name)()
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_local_credit_has_its_weight():
    advantage = recipes.ib_tpo(local=0.1, beta=3.0).advantage
    assert isinstance(advantage, AdvantageSum)
    assert "ref_logp" in recipes.ib_tpo(kl_coefficient=0.0).needs()
    assert "ref_logp" not in recipes.ib_tpo(local=0.0, kl_coefficient=0.0).needs()


def voted(answers: list[int], **fields: object) -> Experience:
    size = len(answers)
    return Experience.from_lengths(
        [2] * size,
        [1] * size,
        [size],
        answer=answers,
        reward=[0.0] * size,
        entropy=torch.rand(2 * size, generator=torch.Generator().manual_seed(1)),
        confidence=torch.rand(2 * size, generator=torch.Generator().manual_seed(2)) / 5,
        behavior_logp=torch.full((2 * size,), -1.0),
        **fields,
    )


def test_the_majority_pays_those_who_agree_with_it():
    recipe = recipes.echo_ttrl(shaping=0.0)
    x = recipe.shape(voted([4, 4, 7]))
    assert x.returns.tolist() == [1, 1, 0]
    credit = recipe.advantage(x)
    assert credit.tolist() == pytest.approx([0.57735] * 4 + [-1.1547] * 2, abs=1e-4)
    unanimous = recipes.echo_ttrl()
    assert (unanimous.advantage(unanimous.shape(voted([4, 4, 4]))) == 0).all()


def test_all_vote_and_the_first_train():
    recipe = recipes.echo_ttrl(votes=6, trained=2)
    x = recipe.prepare(voted([7, 4, 4, 4, 7, 5]))
    assert x.trajectories == 2 and x.returns.tolist() == [0, 1]
    recipe = recipes.echo_ttrl()
    assert (recipe.sampler.group_size, recipe.selections[0].count, recipe.sampler.roots) == (32, 16, 8)
    assert isinstance(recipe.sampler, OnlineTree) and "behavior_logp" in recipe.needs()


def test_leaves_that_train_bring_the_tokens_they_share_with_them():
    """The first of a group are not branches of later ones."""
    game = TokenGame(
        "long", "Say six.", 4, ((1.0, 0),), lambda _, said: None if len(said) < 6 else over(float(said[5] == 0))
    )
    often = BranchWhere(entropy=0.1, confidence=None, rise=-10.0, after=2)
    recipe = recipes.echo_ttrl(votes=8, trained=4, branch=often, prune=None)
    x = LabWorld(LabTask(game), 1000).collect(recipe.sampler, 0).x
    trained = recipe.prepare(x.replace(entropy=torch.rand(x.tokens), confidence=torch.rand(x.tokens) / 5))
    assert trained.group_of_trajectory.size().tolist() == [4] * 8
    nodes = trained.inputs.node.view(-1, 6)
    own = [
        (int(group), int(n))
        for group, row, held in zip(trained.group_of_trajectory.labels, nodes, trained.taken_over, strict=True)
        for n in row[held:]
    ]
    shown = {
        (int(group), int(n)) for group, row in zip(trained.group_of_trajectory.labels, nodes, strict=True) for n in row
    }
    assert shown == set(own)


def test_without_shaping_and_with_one_width_it_is_grpo_on_the_majority():
    recipe = recipes.echo_ttrl(branch=None, prune=None, shaping=0.0, least=0.2, most=0.2)
    plain = recipes.grpo()
    assert type(recipe.sampler) is Rollouts
    x = recipe.prepare(voted([4, 4, 7, 4]))
    torch.testing.assert_close(x.advantage, plain.advantage(x))
    logp = (torch.linspace(-1.5, -0.5, 8)).requires_grad_()
    losses = []
    for objective in (recipe.objective, plain.objective.replace(regularizer=None)):
        loss = objective(PolicyOutput(logp=logp), x).loss
        losses.append((loss.detach(), torch.autograd.grad(loss, logp)[0]))
    torch.testing.assert_close(losses[0], losses[1])
