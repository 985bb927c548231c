"""The recipe that asks questions in easier formats first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.recipe import Recipe
from stratagem.recipes.reasoning.formats import cog_drift
from stratagem.sampling import Promoting
from stratagem.tasks import registry
from stratagem.tasks.formats import FormatsTask


def test_cog_drift_is_grpo_with_its_own_clip_and_kl_and_a_curriculum():
    recipe = cog_drift()
    assert recipe.sampler.curriculum == Promoting(prompts=1024)
    assert (recipe.sampler.prompts_per_step, recipe.sampler.group_size) == (8, 8)
    changed = {change.path for change in recipe.diff(recipes.grpo())}
    assert all(path.startswith(("sampler.curriculum", "objective.gate", "objective.regularizer")) for path in changed)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert catalogue.card("cog_drift").recipe().name == "cog_drift"


def test_without_promotion_it_is_a_static_mixture():
    recipe = cog_drift(promote=False, questions=2)
    assert recipe.sampler.curriculum is None
    assert [recipe.sampler.start_state(group) for group in range(10)] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_a_threshold_that_cannot_be_exceeded_is_refused():
    with pytest.raises(InputError, match=r"promoting.threshold = 1.2"):
        cog_drift(threshold=1.2)
    with pytest.raises(InputError, match=r"promoting.threshold = 1.0"):
        cog_drift(threshold=1.0, by="success")


def test_questions_of_a_language_task_move_up_when_they_are_passed(make_world: Any):
    task = registry.make("formats:calculator,max_turns=1")
    assert isinstance(task, FormatsTask)
    world = make_world(task)
    world.serve(1)
    # At a threshold below every return each visit promotes: a fresh model answers nothing right.
    recipe = cog_drift(threshold=-1.0, questions=2).with_values(
        {"sampler.prompts_per_step": 2, "sampler.group_size": 2}
    )
    asked, golds = [], []
    for step in range(4):
        x = world.collect(recipe.sampler, step).x
        asked.append(sorted(x.task_id.tolist()))
        golds.append([task.variant("train", number)[1].gold for number in asked[-1]])
        assert x.reward_names == ("reward", "format")
    assert asked == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert golds[2] == golds[3] and all(gold.isalpha() for gold in golds[0] + golds[1])


def test_a_question_stays_where_it_is_not_passed(make_world: Any):
    world = make_world(registry.make("formats:calculator,max_turns=1"))
    world.serve(1)
    recipe = cog_drift(questions=2).with_values({"sampler.prompts_per_step": 2, "sampler.group_size": 2})
    for step in range(2):
        collected = world.collect(recipe.sampler, step)
        assert sorted(collected.x.task_id.tolist()) == [0, 4]
    assert collected.metrics["curriculum/level_0/questions"] == 2
    assert collected.metrics["curriculum/upgrades"] == 0
    assert torch.equal(recipe.sampler.history.visits, torch.tensor([2, 2]))
