from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from stratagem import run
from stratagem.architectures import Agents, MixedValues
from stratagem.catalogue import card, recipe
from stratagem.errors import InputError
from stratagem.multiagent import (
    AgentsPolicy,
    Followers,
    Frame,
    MeetingGame,
    MultiAgentWorld,
    PathfindingGame,
    RecallGame,
    TrainedFollowers,
)
from stratagem.multiagent.controllers import learned, throughput
from stratagem.sampling import EpsilonGreedy, Rollouts, Segments
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .conftest import Walk
from .corridor import Corridor
from .recurrent import ACTORS, GRU, collected, inputs, world
from .test_policy import scaled

# ---- who acts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dying(Walk):
    """The walk of agents of which the last is dead from turn 2 on."""

    mortal: ClassVar[bool] = True

    def alive(self, state: Any) -> np.ndarray:
        alive = np.ones(state["place"].shape, dtype=bool)
        alive[:, -1] = state["turn"] < 2
        return alive

    def transition(self, state: Any, action: np.ndarray) -> Any:
        changed, reward, _ = super().transition(state, action)
        over = np.zeros(action.shape, dtype=bool)
        over[:, -1] = state["turn"] >= 1
        return changed, reward, over


def test_an_agent_that_dies_forgets_and_the_next_episode_begins_without_memory() -> None:
    of = world(Agents(**GRU), Dying())
    sampler = Segments(prompts_per_step=3, turns=4)
    first, second = collected(of, sampler), collected(of, sampler, 1)
    after = [inputs(x).memory.view(-1, 2, 24)[..., :8] for x in (first, second)]  # type: ignore[union-attr]
    assert not after[0].any()
    going = torch.isin(second.episode[::2], first.episode)  # type: ignore[index]
    assert bool(going.any()) and not bool(going.all())
    assert bool(after[1][going][:, 0].any(1).all()) and not after[1][going][:, 1].any()
    assert not after[1][~going].any()


def test_a_team_evaluates_and_watches_from_nothing() -> None:
    game = MeetingGame(size=3)
    of = world(Agents(**GRU), game)
    before = of.evaluate(10, "sampled")
    collected(of, Segments(prompts_per_step=3, turns=5))
    assert of.evaluate(10, "sampled") == before
    greedy = of.evaluate(1, "greedy", first=3)
    assert float(of.watch(3, "greedy").reward.mean(1).sum()) == pytest.approx(greedy.mean_return, abs=1e-5)


def test_a_world_that_has_played_before_it_gets_a_recipe_carries_what_its_agents_remember(tmp_path: Path) -> None:
    of = MultiAgentWorld(RecallGame(), 0)
    of.evaluate(5, "greedy")
    chosen = recipe("vdn").with_values({"sampler.prompts_per_step": 2})
    Trainer(chosen, of, RunDirectory.create(tmp_path / "r"), Settings(steps=1, evaluation_episodes=5)).run()
    assert of.policy.memory_width == 64


def test_a_controller_carries_what_agents_remember_and_begins_anew_with_each_episode() -> None:
    game = PathfindingGame(size=8, agents=3)
    policy = scaled(Agents(told=False, front="convolution", width=4, **GRU).build(game, 0))
    controller = learned(game, policy)
    seeds = np.arange(4)
    twice = [throughput(game, controller, seeds, np.random.default_rng(0)) for _ in range(2)]
    assert np.array_equal(*twice)
    fewer = throughput(game, controller, seeds[:2], np.random.default_rng(0))
    assert fewer.shape == (2,)
    act, memory, seen = policy.acting(), None, []
    frame = game.copies(1)
    frame.reset(np.array([0]), np.array([0]))
    for _ in range(3):
        acted = act(frame.observe(np.array([0])), None, memory)
        memory = acted.memory
        seen.append(memory)
    assert not np.array_equal(seen[0], seen[1]) and seen[0].shape == (1, 3, 24)


def test_followers_of_a_game_have_no_memory() -> None:
    policy = Agents(**GRU).build(Followers(Corridor()), 0)
    with pytest.raises(InputError, match="followers remember nothing"):
        TrainedFollowers(policy, Corridor())


def test_any_number_of_agents_act_by_one_policy_with_a_memory() -> None:
    policy = Agents(told=False, **GRU).build(Walk(), 0)
    assert policy.any_number
    seen = np.zeros((2, 5, 2), dtype=np.float32)
    frame = Frame(seen, np.zeros((2, 0), np.float32), np.ones((2, 5, 3), bool), np.ones((2, 5), bool))
    assert policy.acting()(frame, None).memory.shape == (2, 5, 24)


@pytest.mark.parametrize(
    "architecture",
    [ACTORS[0], ACTORS[3], Agents(told=False, **GRU), MixedValues(hidden=8, recurrence="gru")],
    ids=["shared", "separate", "any", "values"],
)
def test_a_saved_policy_remembers_as_before(tmp_path: Path, architecture: Any) -> None:
    of = world(architecture)
    of.policy.save(tmp_path / "p", "card")
    read = AgentsPolicy.from_directory(tmp_path / "p")
    assert read.arguments() == of.policy.arguments() and read.arguments()["recurrence"] == "gru"
    sampler = EpsilonGreedy(4, 1) if isinstance(architecture, MixedValues) else Rollouts(4, 1)
    x, same = collected(of, sampler), collected(MultiAgentWorld(Walk(), 0, read), sampler)
    assert torch.equal(x.action, same.action) and torch.equal(x.behavior_logp, same.behavior_logp)  # type: ignore[arg-type]


# ---- what was there before ------------------------------------------------------------------------------------------

RECORDED = {
    "ippo": (-482.7982, -123.4521, 0.1354149, 1948.6928),
    "mappo": (-482.7982, 104.2015, 0.4720571, 2018.3187),
    "vdn": (-135.1928, 0.0, 0.1276361, 1289.4768),
    "bn_policy": (-495.6610, 107.1960, 0.5011262, 3493.6964),
}
"""Figures of the commit before there was a memory."""


def figures(name: str, folder: Path, **arguments: Any) -> tuple[float, float, float, float]:
    """Of a first batch: likelihood and values; after it was learned from: loss, and all weights."""
    of = MultiAgentWorld(MeetingGame(size=3, max_turns=6), 3)
    chosen = card(name).recipe(**arguments)
    settings = Settings(steps=1, seed=5, evaluation_episodes=0)
    trainer = Trainer(chosen, of, RunDirectory.create(folder), settings)
    x = collected(of, chosen.sampler, 7)
    trainer.step()
    weights = sum(float(weight.detach().double().abs().sum()) for weight in of.policy.parameters())
    assert x.behavior_logp is not None
    value = 0.0 if x.value is None else float(x.value.double().sum())
    return float(x.behavior_logp.double().sum()), value, trainer._last_metrics["loss"], weights


@pytest.mark.parametrize("name", RECORDED)
def test_agents_without_a_memory_learn_as_they_did_before_there_was_one(name: str, tmp_path: Path) -> None:
    arguments = {"recurrence": "none"} if name == "vdn" else {}
    assert figures(name, tmp_path / "r", **arguments) == pytest.approx(RECORDED[name], rel=1e-3)


# ---- a task that asks for it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments"), [("ippo", {"entropy_weight": 0.03}), ("vdn", {"anneal": 5})])
def test_a_team_with_a_memory_learns_to_recall(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    of = MultiAgentWorld(RecallGame(delay=2), 1000)
    chosen = card(name).recipe(**arguments, recurrence="gru").with_values({"optimization.learning_rate": 2e-3})
    settings = Settings(steps=20, seed=1000, evaluation_episodes=0, checkpoint_every=100)
    trainer = Trainer(chosen, of, RunDirectory.create(tmp_path / "r"), settings)
    for _ in range(20):
        trainer.step()
        of.serve(1)
        if of.evaluate(100, "greedy").mean_return > 0.95:
            return
    pytest.fail("not learned in 20 batches")


def test_a_run_of_agents_with_a_memory_is_evaluated_from_its_folder(tmp_path: Path) -> None:
    run.train("qmix", "recall", steps=1, out=tmp_path / "r", evaluation_episodes=4)
    sampled, greedy = run.evaluate(tmp_path / "r", episodes=8)
    assert (sampled.episodes, greedy.episodes, greedy.mean_length) == (8, 8, 5)
