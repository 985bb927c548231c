"""SPA-RL through its recipe: what is paid, what is learned first, and what is PPO in the limit."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GAE, BatchWhitened
from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.estimators import ReturnDecomposition
from stratagem.experience import Experience
from stratagem.lab import Tree, find_game
from stratagem.lab.exact import Exact
from stratagem.lab.updates import sample_updates


def episodes(progress: list[float], returns: list[float], **fields: object) -> Experience:
    """Two trajectories of two turns of two tokens."""
    tokens = 8
    return Experience.from_lengths(
        [2] * 4,
        [2, 2],
        [2],
        reward=torch.tensor(returns),
        turn_progress=torch.tensor(progress),
        value=torch.linspace(0.1, 0.5, tokens),
        behavior_logp=torch.full((tokens,), -1.0),
        ref_logp=torch.full((tokens,), -1.5),
        **fields,
    )


def test_what_reaches_the_advantage_is_progress_grounding_and_the_kl_of_every_token():
    x = episodes([0.1, 0.4, 0.0, 0.0], [1.0, 0.0], turn_executed=[True, False, False, True])
    shaped = recipes.spa_rl(kl_coefficient=0.1).shape(x)
    paid = torch.tensor([0.0, 0.6, 0.0, 0.9, 0.0, 0.0, 0.0, 0.5])
    torch.testing.assert_close(shaped.token_rewards(), paid - 0.1 * 0.5)


def test_sparse_progress_without_grounding_or_kl_is_ppo():
    x = episodes([0.0, 1.0, 0.0, 0.25], [1.0, 0.25])
    ours = recipes.spa_rl(grounding=0, kl_coefficient=0).prepare(x)
    theirs = recipes.ppo().prepare(x)
    assert torch.equal(ours.advantage, theirs.advantage) and torch.equal(ours.value_target, theirs.value_target)


def test_the_estimator_learns_alone_first_and_goes_on_unless_it_is_fixed():
    def knobs(recipe, step):
        return {path: value for schedule in recipe.schedules for path, value in schedule(step, {}).items()}

    assert [knobs(recipes.spa_rl(warmup=3), step) for step in (0, 2, 3)] == [
        {"advantage.factor": 0.0},
        {"advantage.factor": 0.0},
        {"advantage.factor": 1.0},
    ]
    fixed = recipes.spa_rl(warmup=3, refit=False)
    assert "estimator.steps" not in knobs(fixed, 2) and knobs(fixed, 3)["estimator.steps"] == 0
    fixed.with_values(knobs(fixed, 3))
    assert recipes.spa_rl(warmup=0).schedules == ()
    with pytest.raises(InputError, match="the estimator would never learn"):
        recipes.spa_rl(warmup=0, refit=False)


def test_the_constant_of_the_released_code_needs_no_estimator():
    recipe = recipes.spa_rl(source="leave_one_out", kl_coefficient=0)
    assert recipe.estimator is None and recipe.schedules == () and "turn_progress" not in recipe.needs()
    shaped = recipe.shape(episodes([0.0] * 4, [1.0, 0.0]).replace(turn_progress=None))
    assert shaped.turn_reward.tolist() == [1.5, 1.5, -0.5, -0.5]


def test_the_catalogue_knows_it_and_its_yaml_reads_back():
    recipe = card("spa_rl").recipe()
    assert recipe.estimator == ReturnDecomposition()
    assert type(recipe).from_yaml(recipe.to_yaml()) == recipe
    assert recipe.advantage == 1.0 * BatchWhitened(GAE())
    assert recipe.with_values({"estimator": "return_decomposition", "estimator.steps": 7}).estimator.steps == 7


def test_the_lab_knows_exact_contributions_which_add_up_to_the_return():
    tree = Tree.enumerate(find_game("corridor"))
    exact = Exact(tree, tree.normal_logits(0))
    recipe = recipes.spa_rl(grounding=0, kl_coefficient=0)
    from stratagem.lab.updates import _with_tables

    leaves = _with_tables(recipe, exact, exact)
    torch.testing.assert_close(tree.leaves.trajectory_of_turn.sum(leaves.turn_progress), tree.leaves.returns)
    updates = sample_updates(recipe, exact, exact, 512, 64, 0)
    assert float((updates.mean * exact.gradient).sum()) > 0
