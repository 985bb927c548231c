from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.catalogue import card
from stratagem.control import CategoricalPolicy, ControlInputs, ControlWorld, GymTask
from stratagem.control.acting import state_keys
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.recipe import Recipe
from stratagem.sampling import Demonstrations, DynamicSampling, EntropyTempering, Rollouts, Segments
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

TENSORS = ("action", "behavior_logp", "value", "turn_reward", "turn_state", "final_value", "episode", "task_id")


def countdown(**arguments: Any) -> GymTask:
    return GymTask("Countdown-v0", arguments=arguments)


def collected(world: ControlWorld, sampler: Any, step: int = 0) -> Experience:
    x = world.collect(sampler, step).x
    assert x is not None
    return x


def observed(x: Experience) -> torch.Tensor:
    assert isinstance(x.inputs, ControlInputs)
    return x.inputs.observation


# ---- segments -------------------------------------------------------------------------------------------------------


def test_a_segment_is_cut_into_one_trajectory_per_episode_piece() -> None:
    world = ControlWorld(countdown(length=3), seed=0)
    x = collected(world, Segments(prompts_per_step=2, turns=5))
    assert x.trajectory_of_turn.size().tolist() == [3, 2, 3, 2]
    assert x.group_of_trajectory.labels.tolist() == [0, 0, 1, 1]
    assert x.turn_reward.tolist() == [1, 2, 3, 1, 2] * 2
    assert x.reward.squeeze(1).tolist() == [6, 3, 6, 3]
    assert x.finished.tolist() == [True, False, True, False]
    assert x.truncated.tolist() == [False, True, False, True]
    assert x.turn_done.tolist() == [False, False, True, False, False] * 2
    assert observed(x)[:, 0].tolist() == [0, 1, 2, 0, 1] * 2


def test_running_episodes_go_on_in_the_next_segment() -> None:
    world = ControlWorld(countdown(length=3), seed=0)
    first = collected(world, Segments(prompts_per_step=1, turns=2), 0)
    second = collected(world, Segments(prompts_per_step=1, turns=2), 1)
    assert first.episode.tolist() == [0] and second.episode.tolist() == [0, 1]
    assert second.turn_reward.tolist() == [3, 1]
    assert observed(second)[0, 1] == observed(first)[0, 1]


def test_final_value_is_the_critics_word_on_the_state_in_which_an_unfinished_trajectory_was_left() -> None:
    world = ControlWorld(GymTask("LimitedCountdown-v0", arguments={"length": 9}), seed=0)
    x = collected(world, Segments(prompts_per_step=1, turns=6))
    assert x.trajectory_of_turn.size().tolist() == [4, 2]
    left = torch.stack([torch.tensor([4.0, float(observed(x)[0, 1])]), torch.tensor([2.0, float(observed(x)[4, 1])])])
    torch.testing.assert_close(x.final_value, world.policy.values(left).detach())
    assert x.turn_done.tolist() == [False] * 3 + [True] + [False] * 2


def test_a_terminal_state_is_worth_nothing_more() -> None:
    x = collected(ControlWorld(countdown(length=2), seed=0), Segments(prompts_per_step=1, turns=2))
    assert x.final_value.tolist() == [0.0]


def test_behaviour_and_value_are_the_policys_own() -> None:
    world = ControlWorld(countdown(), seed=0)
    x = collected(world, Segments(prompts_per_step=3, turns=7))
    said = world.policy(x, also=["value"])
    assert torch.equal(said.logp.detach(), x.behavior_logp)
    assert torch.equal(said.value.detach(), x.value)


def test_the_weights_last_served_act() -> None:
    world = ControlWorld(countdown(length=50), seed=0)
    with torch.no_grad():
        world.policy.actor[-1].bias.copy_(torch.tensor([0.0, 50.0]))
    before = collected(world, Segments(prompts_per_step=1, turns=40), 0)
    world.serve(7)
    after = collected(world, Segments(prompts_per_step=1, turns=40), 1)
    assert 0 < before.action.sum() < 40
    assert after.action.tolist() == [1] * 40 and after.version.tolist() == [7] * 40


def test_the_number_of_environments_may_change_between_steps() -> None:
    world = ControlWorld(countdown(), seed=0)
    for step, count in enumerate((2, 4, 1)):
        assert collected(world, Segments(prompts_per_step=count, turns=2), step).groups == count


# ---- rollouts -------------------------------------------------------------------------------------------------------


def test_the_episodes_of_a_group_are_whole_and_start_in_the_same_state() -> None:
    world = ControlWorld(GymTask("CartPole-v1", max_turns=30), seed=0)
    x = collected(world, Rollouts(prompts_per_step=3, group_size=4))
    assert x.group_of_trajectory.size().tolist() == [4, 4, 4]
    starts = observed(x)[x.trajectory_of_turn.first()].view(3, 4, 4)
    assert torch.equal(starts, starts[:, :1].expand_as(starts))
    assert not torch.equal(starts[0], starts[1])
    assert len(set(x.task_id.tolist())) == 3
    assert bool((x.finished | (x.trajectory_of_turn.size() == 30)).all())


def test_more_episodes_than_environments_are_played_one_after_the_other() -> None:
    world = ControlWorld(countdown(length=2), seed=0)
    x = collected(world, Rollouts(prompts_per_step=50, group_size=2))
    assert x.trajectories == 100 and x.reward.squeeze(1).tolist() == [3] * 100
    assert x.group_of_trajectory.size().tolist() == [2] * 50


def test_rejected_groups_are_replaced_as_often_as_the_sampler_allows() -> None:
    world = ControlWorld(countdown(length=2), seed=0)
    outcome = world.collect(DynamicSampling(prompts_per_step=2, group_size=2, refill_rounds=2), 0)
    assert outcome.x.tokens == 0
    assert outcome.metrics["episodes"] == 12 and outcome.metrics["groups/kept"] == 0


def test_samplers_that_make_no_sense_in_control_are_refused() -> None:
    world = ControlWorld(countdown(), seed=0)
    with pytest.raises(InputError, match="sampler demonstrations: a control task takes segments or rollouts"):
        world.collect(Demonstrations(), 0)
    with pytest.raises(InputError, match="samples without top_p and top_k"):
        world.collect(Rollouts(top_p=0.9), 0)
    with pytest.raises(InputError, match=r"similar_states = 0\.9: a control policy reads no text"):
        world.collect(Rollouts(similar_states=0.9), 0)
    with pytest.raises(InputError, match="tempering = entropy_tempering: a control policy samples at one temperature"):
        world.collect(Rollouts(tempering=EntropyTempering()), 0)
    with pytest.raises(InputError, match="demonstrations = 1: a control task has no demonstrator"):
        world.collect(Rollouts(demonstrations=1), 0)


# ---- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["fail_share", "nan_share"])
@pytest.mark.parametrize("sampler", [Segments(prompts_per_step=4, turns=30), Rollouts(10, 4)])
def test_failed_episodes_are_counted_left_out_and_replaced(fault: str, sampler: Any) -> None:
    world = ControlWorld(countdown(**{fault: 0.5}), seed=0)
    outcome = world.collect(sampler, 0)
    assert outcome.x is not None
    assert outcome.metrics["episodes/failed"] > 0
    # What is left are whole or cut countdowns from start numbers above the share.
    assert bool((observed(outcome.x)[:, 1] >= 0.5).all())
    assert outcome.x.turn_reward.isfinite().all()
    assert "failure" in outcome.samples[0]


def test_a_batch_of_nothing_but_failures_is_none() -> None:
    world = ControlWorld(countdown(fail_share=1.0), seed=0)
    outcome = world.collect(Segments(prompts_per_step=2, turns=8), 0)
    assert outcome.x is None
    # Every episode fails in its second turn: four in each environment.
    assert outcome.metrics["episodes/failed"] == 8


def test_an_environment_that_never_starts_breaks_the_run_with_its_own_words() -> None:
    world = ControlWorld(countdown(broken=True), seed=0)
    with pytest.raises(BrokenRunError, match="could not be started; the last: OSError: no such simulator"):
        world.collect(Segments(prompts_per_step=1, turns=2), 0)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluation_reports_returns_of_held_out_episodes_and_no_success() -> None:
    result = ControlWorld(countdown(length=3), seed=0).evaluate(10, "sampled")
    assert (result.episodes, result.success, result.failed) == (10, None, 0)
    assert (result.mean_return, result.std_return, result.mean_length) == (6.0, 0.0, 3.0)
    assert result.interval == (6.0, 6.0)


def test_evaluation_counts_failed_episodes_apart() -> None:
    result = ControlWorld(countdown(fail_share=0.5), seed=0).evaluate(40, "greedy")
    assert result.failed > 0 and result.episodes == 40 - result.failed and result.mean_return == 6.0


def test_held_out_episodes_are_the_same_for_every_seed_and_every_time() -> None:
    worlds = [ControlWorld(GymTask("CartPole-v1"), seed, policy=CategoricalPolicy(4, 2, seed=9)) for seed in (0, 1)]
    greedy = [world.evaluate(8, "greedy").mean_return for world in (*worlds, worlds[0])]
    assert greedy[0] == greedy[1] == greedy[2]


def test_evaluation_does_not_disturb_training() -> None:
    def second_batch(disturb: Callable[[ControlWorld], Any]) -> Experience:
        world = ControlWorld(GymTask("CartPole-v1"), seed=0)
        collected(world, Segments(prompts_per_step=2, turns=30), 0)
        disturb(world)
        return collected(world, Segments(prompts_per_step=2, turns=30), 1)

    quiet, disturbed = second_batch(lambda world: None), second_batch(lambda world: world.evaluate(5, "sampled"))
    assert all(torch.equal(getattr(quiet, name), getattr(disturbed, name)) for name in TENSORS)


# ---- seeds and state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("sampler", [Segments(prompts_per_step=2, turns=40), Rollouts(2, 2)])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(environment: str, sampler: Any) -> None:
    task = GymTask(environment, max_turns=30)
    first, again, other = (collected(ControlWorld(task, seed), sampler) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in TENSORS)
    assert not torch.equal(first.task_id, other.task_id)


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_a_restored_world_goes_on_exactly_where_it_was(environment: str) -> None:
    sampler = Segments(prompts_per_step=3, turns=25)
    unbroken = ControlWorld(GymTask(environment), seed=0)
    collected(unbroken, sampler, 0)
    tensors, plain = unbroken.state_dict()
    restored = ControlWorld(GymTask(environment), seed=0)
    restored.load_state_dict(tensors, json.loads(json.dumps(plain)))
    expected, got = unbroken.collect(sampler, 1), restored.collect(sampler, 1)
    assert expected.x is not None and got.x is not None
    assert all(torch.equal(getattr(expected.x, name), getattr(got.x, name)) for name in TENSORS)
    assert torch.equal(observed(expected.x), observed(got.x))
    assert expected.metrics == got.metrics


def test_an_environment_that_does_not_replay_is_told() -> None:
    world = ControlWorld(GymTask("CartPole-v1"), seed=0)
    collected(world, Segments(prompts_per_step=1, turns=5), 0)
    tensors, plain = world.state_dict()
    other = ControlWorld(GymTask("CartPole-v1"), seed=0)
    with pytest.warns(UserWarning, match="did not replay to where it was"):
        other.load_state_dict(tensors | {"observation.0": torch.full((4,), 9.0)}, plain)


def test_state_keys_are_equal_for_equal_observations_only() -> None:
    keys = state_keys(torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [0.0, 1.0000001]]).numpy()).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


# ---- recipes --------------------------------------------------------------------------------------------------------


def test_adapt_gives_a_recipe_with_a_critic_segments_of_single_turns_and_a_discount() -> None:
    recipe = ControlWorld(countdown(), seed=0).adapt(card("ppo").recipe())
    flat = recipe.flat()
    assert isinstance(recipe.sampler, Segments)
    assert (flat["optimization.shuffle"], flat["advantage.of.discount"]) == ("turns", 0.99)
    assert ControlWorld(countdown(), seed=0).adapt(recipe) == recipe


def test_adapt_leaves_a_discount_that_was_chosen_and_whole_episodes_without_a_critic() -> None:
    world = ControlWorld(countdown(), seed=0)
    assert world.adapt(card("ppo").recipe(discount=0.9)).flat()["advantage.of.discount"] == 0.9
    assert isinstance(world.adapt(card("grpo").recipe()).sampler, Rollouts)


def test_a_policy_that_does_not_fit_the_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"a categorical policy of 4 features .* is categorical of 3"):
        ControlWorld(GymTask("CartPole-v1"), seed=0, policy=CategoricalPolicy(3, 2))


# ---- with the trainer -----------------------------------------------------------------------------------------------


def trainer(path: Path, recipe: Recipe, steps: int, seed: int = 0, **settings: Any) -> Trainer:
    torch.set_num_threads(1)
    world = ControlWorld(GymTask("CartPole-v1"), seed)
    return Trainer(world.adapt(recipe), world, RunDirectory.create(path), Settings(steps=steps, seed=seed, **settings))


def evaluations(path: Path) -> dict[tuple[int, str], float]:
    rows = RunDirectory(path).rows("evaluations.jsonl")
    return {(row["step"], row["mode"]): row["mean_return"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ppo_balances_the_pole_with_no_further_settings(tmp_path: Path, seed: int) -> None:
    trainer(tmp_path, card("ppo").recipe(), 60, seed).run()
    assert evaluations(tmp_path)[60, "greedy"] >= 475
    assert evaluations(tmp_path)[60, "sampled"] >= 475


@pytest.mark.slow
def test_grpo_balances_the_pole(tmp_path: Path) -> None:
    trainer(tmp_path, card("grpo").recipe(), 30).run()
    assert evaluations(tmp_path)[30, "greedy"] >= 475


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_resumed_run_repeats_an_unbroken_one(tmp_path: Path, name: str) -> None:
    recipe = card(name).recipe()
    unbroken = trainer(tmp_path / "whole", recipe, 4, evaluation_episodes=2)
    unbroken.run()
    first = trainer(tmp_path / "broken", recipe, 2, evaluation_episodes=2)
    first.run()
    resumed = trainer(tmp_path / "resumed", recipe, 4, evaluation_episodes=2)
    resumed.resume(first.run_directory.load())
    resumed.run()
    for expected, got in zip(unbroken.policy.state_dict().values(), resumed.policy.state_dict().values(), strict=True):
        assert torch.equal(expected, got)


# ---- start states and seeds -----------------------------------------------------------------------------------------


def test_a_single_start_state_can_be_rolled_out_over_and_over() -> None:
    world = ControlWorld(GymTask("CartPole-v1"), seed=0)
    x = collected(world, Rollouts(prompts_per_step=3, group_size=2, start_states=(1,)))
    usual = collected(ControlWorld(GymTask("CartPole-v1"), seed=0), Rollouts(prompts_per_step=3, group_size=2))
    assert x.task_id.tolist() == [usual.task_id.tolist()[1]] * 3
    assert len(x.seed.unique()) == 6 and len(x.episode.unique()) == 6


def test_a_trajectorys_seed_follows_from_the_runs() -> None:
    seeds = [
        collected(ControlWorld(countdown(), seed), Segments(prompts_per_step=2, turns=5)).seed for seed in (0, 0, 1)
    ]
    assert torch.equal(seeds[0], seeds[1]) and not set(seeds[0].tolist()) & set(seeds[2].tolist())
