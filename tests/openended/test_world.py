"""Batches, trials, scores and whole runs."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, train
from stratagem.control.inputs import ControlInputs
from stratagem.errors import InputError
from stratagem.openended import GoalPolicy, Grid, OpenEndedTask, OpenEndedWorld, Shape
from stratagem.sampling import ProbedTasks, Rollouts, Segments, Shuffled
from stratagem.seeding import generator

UNIVERSE = OpenEndedTask(horizon=5)
SAMPLER = Rollouts(prompts_per_step=3, group_size=2)


def test_a_batch_is_what_happened_and_can_be_asked_about_again():
    world = OpenEndedWorld(UNIVERSE, 0)
    collected = world.collect(SAMPLER, 0)
    x = collected.x
    assert (x.groups, x.trajectories, x.tokens, collected.tokens) == (3, 6, 30, 30)
    assert x.task_id.tolist() == [0, 1, 2]
    tasks = UNIVERSE.tasks("train", [0, 0, 1, 1, 2, 2])
    grid, action = Grid(UNIVERSE, tasks), x.action.view(6, 5)
    for step in range(5):
        seen = x.inputs.observation.view(6, 5, -1)[:, step]
        assert torch.equal(seen, grid.observation())
        assert torch.equal(grid.step(action[:, step]), x.turn_reward.view(6, 5)[:, step])
    torch.testing.assert_close(world.policy(x).logp, x.behavior_logp)
    assert isinstance(x.inputs, ControlInputs) and x.turn_done.view(6, 5)[:, -1].all()


def test_trials_are_counted_and_their_scores_are_shares_of_steps():
    world = OpenEndedWorld(UNIVERSE, 0)
    sampler = SAMPLER.replace(curriculum=ProbedTasks(proposals=4, episodes=3))
    collected = world.collect(sampler, 0)
    assert collected.metrics["episodes/tried"] == 24
    assert collected.tokens == 30 + 24 * 5
    scores = world.scores("train", range(50), 2, generator(0), None)
    assert scores.shape == (50, 2) and scores.min() == 0 and scores.max() == 1
    assert ((scores * 5) % 1 < 1e-9).all()


def test_other_curricula_choose_tasks_too():
    sampler = SAMPLER.replace(curriculum=Shuffled(prompts=3))
    world = OpenEndedWorld(UNIVERSE, 0)
    assert sorted(world.collect(sampler, 0).x.task_id.tolist()) == [0, 1, 2]


def test_the_same_seed_collects_the_same_and_state_resumes_it():
    one, other = OpenEndedWorld(UNIVERSE, 4), OpenEndedWorld(UNIVERSE, 4)
    one.collect(SAMPLER, 0)
    other.load_state_dict(*one.state_dict())
    first, second = (world.collect(SAMPLER, 1).x for world in (one, other))
    assert torch.equal(first.action, second.action) and torch.equal(first.task_id, second.task_id)


def test_what_it_cannot_do_is_refused():
    world = OpenEndedWorld(UNIVERSE, 0)
    for sampler, said in (
        (Segments(), "takes rollouts"),
        (Rollouts(demonstrations=1), "no demonstrator"),
        (Rollouts(top_k=2), "without top_p and top_k"),
    ):
        with pytest.raises(InputError, match=said):
            world.collect(sampler, 0)
    with pytest.raises(InputError, match="needs a policy with"):
        OpenEndedWorld(UNIVERSE, 0, GoalPolicy(Shape.of(OpenEndedTask(objects=1))))


def test_held_out_scores_are_the_same_whenever_they_are_asked():
    world = OpenEndedWorld(UNIVERSE, 1)
    scores = world.held_out(range(20), 2)
    assert (scores == world.held_out(range(20), 2)).all()
    assert (scores[:5] != world.held_out(range(20, 25), 2)).any()


@pytest.mark.slow
def test_ppo_learns_to_reach_an_object(tmp_path):
    universe = "openended:grid,side=5,horizon=16,objects=1,options=1,atoms=1,walls=0,negations=0"
    found = train("ppo", universe, steps=25, out=tmp_path / "run", seed=1, evaluation_episodes=200)
    before, after = found.first_and_last("sampled")
    assert after["mean_return"] > 1.3 * before["mean_return"]


@pytest.mark.parametrize("recipe", ["xland", "ppo", "grpo"])
def test_a_run_learns_resumes_and_saves_a_policy(recipe, tmp_path):
    small = {"sampler.prompts_per_step": 4}
    if recipe == "xland":
        small |= {"sampler.curriculum.proposals": 2, "sampler.curriculum.episodes": 2}
    found = train(
        recipe, "openended:grid,horizon=5", values=small, steps=2, out=tmp_path / "run", evaluation_episodes=4
    )
    assert found.metrics["participation"] >= 0
    policy = GoalPolicy.from_directory(tmp_path / "run" / "model")
    assert policy.shape == Shape.of(UNIVERSE)


def test_the_recipe_is_ppo_with_a_curriculum_of_probed_tasks():
    changed = catalogue.recipe("xland")
    assert isinstance(changed.sampler.curriculum, ProbedTasks)
    assert changed.optimization == catalogue.recipe("ppo").optimization
    assert changed.advantage == catalogue.recipe("ppo").advantage
    assert catalogue.card("xland").family == "games"
