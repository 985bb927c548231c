"""The recipe that gives rollouts to prompts by the success it foresees."""

from __future__ import annotations

from typing import Any

import pytest

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.reasoning.budgets import v0_value_model
from stratagem.sampling import InContext, Logistic, Neighbours
from stratagem.study.experiments import learn
from stratagem.tasks import registry


def test_v0_value_model_is_grpo_with_other_group_sizes():
    recipe = v0_value_model()
    changed = {change.path for change in recipe.diff(recipes.grpo())}
    assert changed and all(path.startswith("sampler.curriculum") for path in changed)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert catalogue.card("v0_value_model").recipe().sampler.curriculum.method == "greedy"


@pytest.mark.parametrize(
    ("name", "kind"), [("logistic", Logistic), ("neighbours", Neighbours), ("in_context", InContext)]
)
def test_predictors_go_by_name(name: Any, kind: type):
    assert isinstance(v0_value_model(predictor=name).sampler.curriculum.predictor, kind)


def test_groups_smaller_than_the_least_are_refused():
    with pytest.raises(InputError, match="budgeted: group_size = 8: must lie between least = 9 and most = 128"):
        v0_value_model(least=9)


def test_v0_value_model_learns_in_the_lab():
    run = learn(v0_value_model(), LabTask(find_game("prompts")), 1000, 6)
    assert run.last.expected_return > run.policies[0].expected_return
    assert {row["batch/trajectories"] for row in run.metrics} == {64}


def test_language_rolls_out_groups_of_unequal_sizes(make_world: Any):
    world = make_world(registry.make("calculator:max_turns=1,terms=2"))
    world.serve(1)
    recipe = v0_value_model(prompts=6).with_values({"sampler.prompts_per_step": 3, "sampler.group_size": 4})
    sampler = recipe.sampler
    x = world.collect(sampler, 0).x
    sizes = x.group_of_trajectory.size().tolist()
    # Nothing is known yet: all rates are a half, and the first of equals is given what is left.
    assert sum(sizes) == 12 and min(sizes) >= 2
    assert len(x.episode.unique()) == 12
    assert x.group_of_trajectory.size().tolist() == sampler.history.at(x.task_id).trajectories.tolist()
