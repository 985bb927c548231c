"""Recipes that learn from rewards, given preferences for them."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.lab import find_game
from stratagem.lab.compared import LADDER
from stratagem.lab.world import LabTask, LabWorld
from stratagem.preferences.contests import exploitability
from stratagem.rewards import WinRateReward
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def test_a_pair_of_p3o_is_credited_by_who_is_preferred():
    world = LabWorld(LabTask(find_game("ladder")), seed=1000)
    recipe = world.adapt(recipes.p3o().replace(rewards=(WinRateReward(),)))
    x = recipe.prepare(world.collect(recipe.sampler, 0).x)
    first, second = x.action.view(-1, 2).T
    preferred = LADDER[first, second]
    # A pair of win rates in [-1, 1], one minus the other, on both sides.
    expected = torch.stack([4 * preferred - 2, 2 - 4 * preferred], 1).flatten()
    torch.testing.assert_close(x.advantage.double(), expected, atol=1e-6, rtol=0)


def test_p3o_finds_the_best_answer_by_comparisons_alone(tmp_path):
    world = LabWorld(LabTask(find_game("ladder")), seed=1000)
    recipe = world.adapt(recipes.p3o().replace(rewards=(WinRateReward(),)))
    before = exploitability(world.task.oracle, world.answers(1))
    settings = Settings(steps=60, seed=1000, evaluation_episodes=0)
    Trainer(recipe, world, RunDirectory.create(tmp_path), settings).run()
    world.serve(1)
    assert exploitability(world.task.oracle, world.answers(1)) < 0.01 < before
    assert world.evaluate(1, "greedy").win_rate == pytest.approx(float(LADDER[0].mean()), abs=0.2)
