from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stratagem import run
from stratagem.architectures import Agents, MixedValues
from stratagem.catalogue import card, recipe
from stratagem.control import ControlWorld, GymTask
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.multiagent import AgentInputs, CoordinationGame, MeetingGame, MultiAgentWorld, TwoStepGame
from stratagem.sampling import DynamicSampling, EpsilonGreedy, Rollouts, Segments
from stratagem.seeding import derive
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .conftest import Walk

FIGURES = ("action", "behavior_logp", "value", "turn_reward", "turn_state", "final_value", "episode", "seed", "task_id")
SAMPLERS = [Segments(prompts_per_step=3, turns=4), Rollouts(3, 2)]


def collected(world: Any, sampler: Any, step: int = 0) -> Experience:
    x = world.collect(sampler, step).x
    assert x is not None
    return x


def trainer(world: Any, name: Any, path: Path, steps: int = 2, **values: Any) -> Trainer:
    made = recipe(name) if isinstance(name, str) else name
    settings = Settings(steps=steps, evaluation_episodes=0, checkpoint_every=1, seed=5)
    return Trainer(made.with_values(values), world, RunDirectory.create(path), settings)


# ---- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["segments", "rollouts"])
def test_a_batch_replays_what_the_agents_did(sampler: Any) -> None:
    game = Walk()
    x = collected(MultiAgentWorld(game, seed=3), sampler)
    assert isinstance(x.inputs, AgentInputs) and x.action is not None and x.turn_reward is not None
    assert x.turn_role is not None and x.episode is not None
    turns = x.trajectory_of_turn
    first = turns.first()
    assert x.turn_role.tolist() == x.inputs.agent.tolist()
    assert x.turn_role[first].tolist() == [0, 1] * (x.trajectories // 2)
    assert turns.spread(x.turn_role[first]).tolist() == x.turn_role.tolist()
    assert x.episode[::2].tolist() == x.episode[1::2].tolist()
    assert turns.size()[::2].tolist() == turns.size()[1::2].tolist()
    for pair in range(0, x.trajectories, 2):
        if int(x.inputs.observation[first[pair], 1] * 10) != 0:
            continue  # Begun in an earlier batch.
        group = int(x.group_of_trajectory.labels[pair])
        assert x.task_id is not None
        copies, one = game.copies(1), np.array([0])
        number = int(x.episode[pair]) if isinstance(sampler, Segments) else group
        copies.reset(one, np.array([game.start_seed("train", derive(3, "start", number) >> 33)]))
        for turn in range(int(turns.size()[pair])):
            rows = [int(first[pair + agent]) + turn for agent in range(2)]
            frame = copies.observe(one)
            assert np.array_equal(frame.observation[0], x.inputs.observation[rows].numpy())
            assert np.array_equal(frame.state[0], x.inputs.state[rows[0]].numpy())
            assert np.array_equal(frame.legal[0], x.inputs.legal[rows].numpy())
            out = copies.step(one, x.action[rows].numpy()[None])
            assert out.reward[0].tolist() == x.turn_reward[rows].tolist()
        assert x.inputs.final_observation is not None and x.finished is not None
        assert np.array_equal(out.frame.observation[0], x.inputs.final_observation[pair : pair + 2].numpy())
        assert out.terminated[0].tolist() == x.finished[pair : pair + 2].tolist()


def test_a_group_holds_all_agents_of_all_episodes_from_one_start() -> None:
    x = collected(MultiAgentWorld(MeetingGame(agents=3, max_turns=3), seed=0), Rollouts(2, 4))
    assert x.group_of_trajectory.size().tolist() == [12, 12]
    assert isinstance(x.inputs, AgentInputs)
    start = x.inputs.state[x.trajectory_of_turn.first()]
    assert all(len(torch.unique(rows, dim=0)) == 1 for rows in start.split(12))
    assert x.behavior_logp is not None and len(torch.unique(x.behavior_logp)) > 12


def test_running_episodes_go_on_in_the_next_segment_and_carry_a_final_value() -> None:
    world = MultiAgentWorld(CoordinationGame(max_turns=5), seed=0)
    first, second = (collected(world, Segments(prompts_per_step=1, turns=3), step) for step in (0, 1))
    assert first.episode.tolist() == [0] * 3 and second.episode.tolist() == [0] * 3 + [1] * 3
    assert first.running.all() and first.final_value is not None and bool((first.final_value != 0).all())
    assert second.running.tolist() == [False] * 3 + [True] * 3
    assert second.truncated.all() and second.turn_done.sum() == 3
    assert isinstance(first.inputs, AgentInputs) and isinstance(second.inputs, AgentInputs)
    assert torch.equal(first.inputs.final_observation, second.inputs.observation[second.trajectory_of_turn.first()[:3]])


def test_a_terminal_state_is_worth_nothing_and_a_limit_what_the_critic_says() -> None:
    x = collected(MultiAgentWorld(MeetingGame(size=2, max_turns=3), seed=0), Rollouts(20, 1))
    assert 0 < x.finished.sum() < 40
    assert bool((x.final_value[x.finished] == 0).all()) and bool((x.final_value[~x.finished] != 0).all())
    assert torch.equal(x.finished, ~x.truncated)


# ---- one agent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["segments", "rollouts"])
def test_one_agent_acts_as_a_control_policy_does_to_the_last_digit(sampler: Any) -> None:
    mine = collected(MultiAgentWorld(Walk(agents=1), seed=7), sampler)
    theirs = collected(ControlWorld(GymTask("Alone-v0"), seed=7), sampler)
    names = [name for name in FIGURES if name not in ("turn_state", "seed")]
    assert all(torch.equal(getattr(mine, name), getattr(theirs, name)) for name in names)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_ippo_of_one_agent_learns_as_ppo_does_to_the_last_digit(tmp_path: Path, weights: str) -> None:
    changes = {"optimization.epochs": 2, "sampler.prompts_per_step": 4}
    mine = MultiAgentWorld(Walk(agents=1), seed=7)
    trainer(mine, "ippo", tmp_path / "a", **changes, **{"architecture.weights": weights}).run()
    theirs = ControlWorld(GymTask("Alone-v0"), seed=7)
    alone = card("ppo").recipe(discount=0.99, value_weight=1.0, value_clip=0.2, entropy_weight=0.01)
    ours = card("ippo").recipe()
    alone = alone.replace(sampler=ours.sampler, optimization=ours.optimization)
    trainer(theirs, alone, tmp_path / "b", **changes).run()
    pairs = zip(mine.policy.parameters(), theirs.policy.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


# ---- seeds and state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["segments", "rollouts"])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(sampler: Any) -> None:
    first, again, other = (collected(MultiAgentWorld(Walk(), seed), sampler) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in FIGURES)
    assert not torch.equal(first.task_id, other.task_id)


def test_a_restored_world_goes_on_exactly_where_it_was() -> None:
    sampler = Segments(prompts_per_step=3, turns=4)
    unbroken, restored = (MultiAgentWorld(Walk(), seed=0) for _ in range(2))
    collected(unbroken, sampler, 0)
    tensors, plain = unbroken.state_dict()
    restored.load_state_dict(tensors, json.loads(json.dumps(plain)))
    expected, got = unbroken.collect(sampler, 1), restored.collect(sampler, 1)
    assert expected.x is not None and got.x is not None
    assert all(torch.equal(getattr(expected.x, name), getattr(got.x, name)) for name in FIGURES)
    assert expected.metrics == got.metrics


@pytest.mark.parametrize("recurrence", ["none", "gru"])
@pytest.mark.parametrize("name", ["ippo", "mappo", "qmix"])
def test_a_resumed_run_repeats_an_unbroken_one(tmp_path: Path, name: str, recurrence: str) -> None:
    task = "meeting:size=3,max_turns=5"
    values = {"sampler.prompts_per_step": 6, "architecture.recurrence": recurrence}
    if name != "qmix" and recurrence == "gru":
        values |= {"optimization.shuffle": "trajectories", "optimization.minibatches": 2}
    values |= {"architecture.target_every": 7} if name == "qmix" else {"sampler": "segments", "sampler.turns": 8}
    given = {"values": values, "evaluation_episodes": 5, "checkpoint_every": 2}
    whole = run.train(name, task, steps=4, out=tmp_path / "whole", **given)  # type: ignore[arg-type]
    run.train(name, task, steps=2, out=tmp_path / "part", **given)  # type: ignore[arg-type]
    resumed = run.resume(tmp_path / "part", steps=4)
    timeless = [
        {key: value for key, value in result.metrics.items() if not key.startswith(("timing", "memory"))}
        for result in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]
    if name != "qmix" and recurrence == "gru":
        assert bool(load_file(whole.directory / "checkpoints" / "step-4" / "world.safetensors")["memory"].any())
    weights = [
        (path / "checkpoints" / "step-4" / "policy.safetensors") for path in (whole.directory, resumed.directory)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_trained_policy_is_evaluated_from_its_folder(tmp_path: Path) -> None:
    run.train("mappo", "two_step", steps=1, out=tmp_path / "r", evaluation_episodes=4)
    sampled, greedy = run.evaluate(tmp_path / "r", episodes=8)
    assert (sampled.episodes, greedy.episodes, greedy.mean_length) == (8, 8, 2)


# ---- architectures --------------------------------------------------------------------------------------------------


def test_a_recipe_decides_what_a_fresh_policy_is_made_of(tmp_path: Path) -> None:
    world = MultiAgentWorld(MeetingGame(), seed=0)
    trainer(world, "mappo", tmp_path / "a", **{"architecture.weights": "separate", "architecture.hidden": 8})
    assert world.policy.arguments() | {"weights": "separate", "critic": "both", "hidden": 8} == world.policy.arguments()
    trainer(world, "ppo", tmp_path / "b")
    assert world.policy.arguments()["weights"] == "separate"


def test_a_given_policy_of_another_architecture_is_refused(tmp_path: Path) -> None:
    game = MeetingGame()
    given = MultiAgentWorld(game, 0, Agents(critic="state").build(game, 0))
    with pytest.raises(InputError, match=r"recipe mappo asks for actor_critics of .*'critic': 'both'"):
        trainer(given, "mappo", tmp_path / "a")
    assert trainer(given, "mappo", tmp_path / "b", **{"architecture.critic": "state"}).policy is given.policy


def test_a_policy_for_any_number_of_agents_is_trained_further_with_another_number(tmp_path: Path) -> None:
    three, two = (Walk(agents=agents) for agents in (3, 2))
    given = MultiAgentWorld(two, 0, Agents(told=False).build(three, 0))
    assert trainer(given, "ippo", tmp_path / "a", **{"architecture.told": False}).policy is given.policy
    with pytest.raises(InputError, match=r"asks for actor_critics of .*'hidden': 8"):
        trainer(given, "ippo", tmp_path / "b", **{"architecture.told": False, "architecture.hidden": 8})


def test_a_world_with_a_policy_of_its_own_refuses_a_recipe_that_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe mappo: asks for a policy made of agents"):
        trainer(ControlWorld(GymTask("CartPole-v1"), 0), "mappo", tmp_path / "r")


def test_a_policy_of_other_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="needs agents of agents = 2, features = 5"):
        MultiAgentWorld(MeetingGame(), 0, Agents().build(MeetingGame(agents=3), 0))


# ---- recipes and samplers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "grpo", "reinforce_pp", "rloo"])
def test_ordinary_recipes_train_agents(tmp_path: Path, name: str) -> None:
    world = MultiAgentWorld(MeetingGame(size=3, max_turns=6), seed=0)
    adapted = world.adapt(recipe(name)).with_values({"optimization.epochs": 1})
    before = [weight.clone() for weight in world.policy.policy_parameters()]
    trainer(world, adapted, tmp_path / "r").run()
    after = list(world.policy.policy_parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_groups_that_agree_are_rolled_out_anew() -> None:
    world = MultiAgentWorld(MeetingGame(size=3, max_turns=4), seed=0)
    result = world.collect(DynamicSampling(prompts_per_step=3, group_size=4), 0)
    assert result.x is not None and result.metrics["groups/kept"] == result.x.groups
    assert bool((result.x.group_of_trajectory.std(result.x.returns) > 0).all())


def test_samplers_that_ask_for_more_are_refused() -> None:
    world = MultiAgentWorld(MeetingGame(), seed=0)
    with pytest.raises(InputError, match="agents that act at once samples without top_p"):
        world.collect(Rollouts(2, 1, top_p=0.5), 0)
    with pytest.raises(InputError, match="samples from its policy"):
        ControlWorld(GymTask("CartPole-v1"), 0).collect(EpsilonGreedy(2, 1), 0)


def test_exploring_agents_take_legal_actions_as_often_as_epsilon_says() -> None:
    world = MultiAgentWorld(Walk(), 0, MixedValues(mixer=None).build(Walk(), 0))
    x = collected(world, EpsilonGreedy(400, 1, epsilon=0.4))
    assert x.behavior_logp is not None and isinstance(x.inputs, AgentInputs) and x.action is not None
    likely = x.behavior_logp.exp()
    assert sorted(set(likely.mul(1e4).round().int().tolist())) == [1333, 2000, 7333, 8000]
    assert bool(x.inputs.legal.gather(1, x.action[:, None]).all())
    best = likely > 0.5
    assert abs(float(best.float().mean()) - 0.6 - 0.4 * (1 / 3 + 1 / 2) / 2) < 0.02


class Breaking(Walk):
    """Copies of which those with an odd start break in their second turn, or never start."""

    def __init__(self, at: str) -> None:
        super().__init__()
        object.__setattr__(self, "at", at)

    def copies(self, count: int) -> Any:
        return BreakingCopies(super().copies(count), self.at)  # type: ignore[attr-defined]


class BreakingCopies:
    def __init__(self, of: Any, at: str) -> None:
        self.of, self.at, self.seeds = of, at, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def reset(self, copies: Any, seeds: Any) -> dict[int, str]:
        self.of.reset(copies, seeds)
        self.seeds |= dict(zip(copies.tolist(), seeds.tolist(), strict=True))
        return {row: "no such simulator" for row in range(len(seeds))} if self.at == "start" else {}

    def step(self, copies: Any, action: Any) -> Any:
        out = self.of.step(copies, action)
        odd = [row for row, copy in enumerate(copies.tolist()) if self.seeds[copy] // 2 % 2]
        if self.at == "reward":
            reward = out.reward.copy()
            reward[odd] = np.nan
            return out._replace(reward=reward)
        return out._replace(failures=dict.fromkeys(odd, "OSError: gone"))


@pytest.mark.parametrize("at", ["step", "reward"])
def test_copies_that_break_lose_their_episode_alone(at: str) -> None:
    result = MultiAgentWorld(Breaking(at), seed=0).collect(Rollouts(12, 1, refill_rounds=0), 0)
    failed = int(result.metrics["episodes/failed"])
    assert result.x is not None and 0 < failed < 12
    assert result.x.trajectories == 2 * (12 - failed) and bool(result.x.turn_reward.isfinite().all())
    assert "not finite" in result.samples[0]["failure"] or "gone" in result.samples[0]["failure"]


def test_a_game_that_never_starts_breaks_the_run() -> None:
    with pytest.raises(BrokenRunError, match="could not be started; the last: no such simulator"):
        MultiAgentWorld(Breaking("start"), seed=0).collect(Segments(prompts_per_step=8, turns=2), 0)


def test_two_steps_are_learned_by_value_learners(tmp_path: Path) -> None:
    world = MultiAgentWorld(TwoStepGame(), seed=0)
    learner = trainer(world, "qmix", tmp_path / "r", steps=3)
    learner.run()
    assert world.policy.kind == "value_agents" and learner.recipe.flat()["sampler.epsilon"] < 1
