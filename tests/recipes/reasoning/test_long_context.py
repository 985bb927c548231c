"""QwenLong-L1.5 through the recipe: its settings taken out, and domains that batches really have."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import Constant
from stratagem.claims.reasoning.long_context import FIVE_TASKS
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

OFF = {"per_task": False, "bounds": None}


def batch(entropy: float = 1.0) -> tuple[Experience, torch.Tensor]:
    """Two tasks of two groups with rewards of unlike size."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (16,), generator=source)
    tokens = int(lengths.sum())
    rewards = torch.rand(16, generator=source, dtype=torch.float64)
    rewards[8:] *= 10
    logp = -torch.rand(tokens, generator=source, dtype=torch.float64)
    x = Experience.from_lengths(
        lengths.tolist(),
        [1] * 16,
        [4] * 4,
        groups_per_domain=[2, 2],
        reward=rewards,
        entropy=torch.full((tokens,), entropy, dtype=torch.float64),
        behavior_logp=logp,
    )
    return x, logp


def gradient(recipe: Recipe, entropy: float = 1.0) -> torch.Tensor:
    x, logp = batch(entropy)
    logp = logp.requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss, logp)[0]


def test_with_everything_off_it_is_grpo_on_policy_with_the_mean_over_tokens():
    base = recipes.grpo().with_values({"objective.aggregation": "token_mean"})
    assert torch.equal(gradient(recipes.qwenlong_l1_5(**OFF)), gradient(base))


def test_below_the_upper_bound_hysteresis_changes_nothing_and_above_it_no_bad_token_counts():
    plain, ours = recipes.qwenlong_l1_5(bounds=None), recipes.qwenlong_l1_5()
    assert torch.equal(gradient(ours, 0.2), gradient(plain, 0.2))
    unlearned = gradient(plain) > 0
    found = gradient(ours)
    assert bool(unlearned.any()) and not bool(found[unlearned].any())
    assert torch.equal(found[~unlearned], gradient(plain)[~unlearned])


@pytest.mark.parametrize("unit", ["token", "trajectory"])
def test_a_threshold_leaves_out_unsure_negatives_whatever_the_mode(unit):
    ours = recipes.qwenlong_l1_5(threshold=0.5, unit=unit)
    unlearned = gradient(recipes.qwenlong_l1_5(bounds=None), 0.2) > 0
    assert torch.equal(gradient(ours, 0.2), gradient(recipes.qwenlong_l1_5(bounds=None), 0.2))
    alone = recipes.qwenlong_l1_5(bounds=None, threshold=0.5, unit=unit)
    assert not bool(gradient(alone, 0.6)[unlearned].any())


def test_it_is_written_and_read_back_and_refuses_bounds_out_of_order():
    recipe = recipes.qwenlong_l1_5(threshold=1.0)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    with pytest.raises(InputError, match="entropy_hysteresis"):
        recipes.qwenlong_l1_5(bounds=(0.3, 0.1))


def test_a_batch_of_the_lab_knows_the_tasks_of_its_starts():
    world = LabWorld(LabTask(FIVE_TASKS), seed=0)
    x = world.collect(Rollouts(prompts_per_step=15, group_size=2, start_states=tuple(range(15))), 0).x
    assert x.domain_of_group.labels.tolist() == [task for task in range(5) for _ in range(3)]
    drawn = world.collect(Rollouts(prompts_per_step=40, group_size=2), 1).x
    assert torch.equal(drawn.domain_of_group.labels, drawn.task_id // 3) and drawn.domain_of_group.count == 5


def test_a_batch_without_a_good_token_moves_nothing_while_negatives_are_left_out(tmp_path):
    world = LabWorld(LabTask(FIVE_TASKS), seed=1)
    recipe = world.adapt(recipes.qwenlong_l1_5(bounds=(0.0, 0.1)).replace(advantage=-1.0 * Constant()))
    trainer = Trainer(recipe, world, RunDirectory.create(tmp_path), Settings(3, 1, evaluation_episodes=0))
    before = world.policy.table().detach().clone()
    metrics = trainer.step()
    assert metrics["updates/no_gradient"] == 1 and metrics["without_negatives"] == 1
    assert torch.equal(world.policy.table(), before)
