from __future__ import annotations

import builtins
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from stratagem import run
from stratagem.errors import InputError
from stratagem.multiagent import AgentInputs, MultiAgentWorld
from stratagem.multiagent.pettingzoo import PettingZooTask
from stratagem.sampling import Rollouts, Segments
from stratagem.tasks import registry

pettingzoo = pytest.importorskip("pettingzoo")


class Relay(pettingzoo.ParallelEnv):  # type: ignore[misc]
    """Agents ``a``, ``b`` and ``c`` leave after 2, 3 and 4 turns; each earns what it does, numbered from 1.

    They see different numbers of numbers and have different numbers of actions; ``mask``: the last is not legal.
    """

    metadata = {"name": "relay_v0"}  # noqa: RUF012

    def __init__(self, kinds: str = "discrete", mask: bool = False, broken: int = 0, cut: bool = False) -> None:
        self.possible_agents = ["a", "b", "c"]
        self.mask, self.broken, self.cut, self.kinds = mask, broken, cut, kinds

    def observation_space(self, agent: str) -> Any:
        seen = spaces.Box(-9, 9, (1 + "abc".index(agent),), np.float32)
        return spaces.Dict({"observation": seen, "action_mask": spaces.MultiBinary(9)}) if self.mask else seen

    def action_space(self, agent: str) -> Any:
        place = "abc".index(agent)
        if self.kinds == "box" or (self.kinds == "mixed" and agent == "c"):
            return spaces.Box(-0.5, 0.5, (1 + place,), np.float32)
        return spaces.Tuple([]) if self.kinds == "tuple" else spaces.Discrete(2 + place, start=1)

    def _seen(self) -> dict[str, Any]:
        told = {name: np.full(1 + "abc".index(name), self.turn, dtype=np.float32) for name in self.shown}
        if not self.mask:
            return told
        masks = {name: np.arange(2 + "abc".index(name)) < 1 + "abc".index(name) for name in told}
        return {name: {"observation": one, "action_mask": masks[name]} for name, one in told.items()}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.turn, self.number = list(self.possible_agents), 0, seed
        self.shown = self.agents
        return self._seen(), {name: {} for name in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        if self.broken and self.turn == 1 and self.number // 2 % 2:
            raise OSError("gone")
        self.turn += 1
        self.shown = self.agents
        rewards = {name: float(np.sum(action)) for name, action in actions.items()}
        left = {name: self.turn >= 2 + "abc".index(name) for name in self.agents}
        self.agents = [name for name in self.agents if not left[name]]
        no = dict.fromkeys(left, False)
        return self._seen(), rewards, (no if self.cut else left), (left if self.cut else no), {n: {} for n in left}


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    sys.modules["relay_v0"] = types.ModuleType("relay_v0")
    sys.modules["relay_v0"].parallel_env = Relay  # type: ignore[attr-defined]
    yield
    del sys.modules["relay_v0"]


def relay(**arguments: Any) -> PettingZooTask:
    return PettingZooTask("relay_v0", arguments=arguments)


def batch(task: Any, sampler: Any = None, seed: int = 0) -> Any:
    x = MultiAgentWorld(task, seed).collect(sampler or Rollouts(4, 1), 0).x
    assert x is not None and isinstance(x.inputs, AgentInputs)
    return x


def test_unequal_agents_are_padded_and_their_missing_actions_are_not_legal() -> None:
    task = relay()
    assert (task.agents, task.features, task.actions, task.choices, task.state_features) == (3, 3, 4, (2, 3, 4), 9)
    x = batch(task)
    legal = x.inputs.legal[x.trajectory_of_turn.first()[:3]]
    assert legal.int().sum(1).tolist() == [2, 3, 4]
    acted = x.action[x.mask]
    assert bool(x.inputs.legal[x.mask].gather(1, acted[:, None]).all())
    # An action of 0 is the space's first, 1.
    assert torch.equal(x.turn_reward[x.mask], acted.float() + 1)


def test_an_agent_that_is_done_stays_in_the_batch_blind_untrained_and_judged() -> None:
    x = batch(relay())
    assert x.trajectory_of_turn.size().tolist() == [4] * 12
    assert x.mask.view(4, 3, 4).int().tolist() == [[[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]] * 4
    assert bool(x.critic_mask.all()) and bool((x.turn_reward[~x.mask] == 0).all())
    alone = x.inputs.observation[:4]
    assert alone[:, 0].tolist() == [0, 1, 2, 0] and bool((alone[:, 1:] == 0).all())
    assert bool(x.finished.all()) and bool((x.final_value == 0).all())


def test_agents_that_are_cut_off_are_truncated() -> None:
    x = batch(relay(cut=True))
    assert bool(x.truncated.all()) and bool((x.final_value != 0).all())
    x = batch(PettingZooTask("relay_v0", max_turns=3))
    assert x.finished.tolist() == [True, True, False] * 4 and x.trajectory_of_turn.size().tolist() == [3] * 12


def test_action_masks_are_obeyed() -> None:
    x = batch(relay(mask=True))
    assert x.inputs.legal[x.trajectory_of_turn.first()[:3]].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert bool(x.action[x.mask & (x.turn_role == 0)].eq(0).all())


def test_continuous_actions_are_clipped_to_each_agents_own_bounds() -> None:
    task = relay(kinds="box")
    assert task.continuous and task.actions == 3
    x = batch(task)
    assert x.action.shape == (48, 3)
    first = x.trajectory_of_turn.first()[:3]
    own = [float(x.action[row, : 1 + agent].clamp(-0.5, 0.5).sum()) for agent, row in enumerate(first.tolist())]
    assert x.turn_reward[first].tolist() == pytest.approx(own, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kinds": "mixed"}, "actions are Box and Discrete; supported are Discrete for all agents, or Box for all"),
        ({"kinds": "tuple"}, "actions are Tuple; supported"),
        ({"speed": 3}, "the environment cannot be made: .*speed"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        relay(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pettingzoo", "needs the module of an environment"),
        ("pettingzoo:mpe2.simple_spred_v3", "did you mean 'mpe2.simple_spread_v3'"),
        ("pettingzoo:mpe2", "unknown PettingZoo environment 'mpe2'"),
        ("pettingzoo:no_such_package.game_v0", "no_such_package cannot be imported .*install no_such_package"),
        ("pettingzoo:mpe2.simple_spread_v3,max_turns=0", "max_turns must be an integer of at least 1"),
    ],
)
def test_an_unknown_environment_is_one_line(spec: str, said: str) -> None:
    pytest.importorskip("mpe2")
    with pytest.raises(InputError, match=said) as error:
        registry.make(spec)
    assert "\n" not in str(error.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *others: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "mpe2":
            raise ModuleNotFoundError("No module named 'mpe2'", name="mpe2")
        return real(name, *others, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == "mpe2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.import_module", lambda name: without(name) or sys.modules[name])
    with pytest.raises(InputError, match=r"pip install 'stratagem\[multiagent\]'"):
        PettingZooTask("mpe2.simple_spread_v3")


def test_an_environment_that_raises_loses_its_episode_alone() -> None:
    result = MultiAgentWorld(relay(broken=1), seed=0).collect(Rollouts(10, 1, refill_rounds=0), 0)
    failed = int(result.metrics["episodes/failed"])
    assert 0 < failed < 10 and result.x is not None and result.x.trajectories == 3 * (10 - failed)
    assert result.samples[0]["failure"] == "OSError: gone"


@pytest.mark.parametrize("spec", ["pettingzoo:relay_v0", "pettingzoo:mpe2.simple_spread_v3,max_cycles=5"])
def test_a_restored_world_replays_its_environments(spec: str) -> None:
    if "mpe2" in spec:
        pytest.importorskip("mpe2")
    sampler = Segments(prompts_per_step=2, turns=3)
    unbroken, restored = (MultiAgentWorld(registry.make(spec), seed=1) for _ in range(2))  # type: ignore[arg-type]
    unbroken.collect(sampler, 0)
    tensors, plain = unbroken.state_dict()
    restored.load_state_dict(tensors, json.loads(json.dumps(plain)))
    one, same = (world.collect(sampler, 1).x for world in (unbroken, restored))
    assert one is not None and same is not None
    for name in ("action", "turn_reward", "behavior_logp", "value", "final_value", "episode"):
        assert torch.equal(getattr(one, name), getattr(same, name)), name


def test_particle_agents_train_and_are_evaluated(tmp_path: Path) -> None:
    pytest.importorskip("mpe2")
    task = "pettingzoo:mpe2.simple_spread_v3,max_cycles=5"
    values = {"sampler.prompts_per_step": 4, "optimization.epochs": 1}
    result = run.train("mappo", task, steps=2, values=values, out=tmp_path / "r", evaluation_episodes=3)
    assert result.metrics["tokens/total"] == 2 * 4 * 5 * 3
    assert result.evaluations[-1]["episodes"] == 3 and (tmp_path / "r" / "report.html").is_file()


def test_turn_based_environments_go_through_the_converter() -> None:
    class Turns(pettingzoo.AECEnv):  # type: ignore[misc]
        metadata = {"name": "turns_v0", "is_parallelizable": True}  # noqa: RUF012
        possible_agents = ["x", "y"]  # noqa: RUF012

        def observation_space(self, agent: str) -> Any:
            return spaces.Discrete(4)

        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2)

        def reset(self, seed: Any = None, options: Any = None) -> None:
            self.agents, self.count = list(self.possible_agents), 0
            self.agent_selection = "x"
            self.rewards, self._cumulative_rewards = ({"x": 0.0, "y": 0.0} for _ in range(2))
            self.terminations, self.truncations = ({"x": False, "y": False} for _ in range(2))
            self.infos: Any = {"x": {}, "y": {}}

        def observe(self, agent: str) -> int:
            return min(self.count // 2, 3)

        def step(self, action: Any) -> None:
            agent = self.agent_selection
            if self.terminations[agent]:
                self._was_dead_step(None)
                return
            self.count += 1
            self._cumulative_rewards[agent] = 0
            self.rewards = {name: float(action) * (name == agent) for name in self.possible_agents}
            if self.count >= 6:
                self.terminations = {"x": True, "y": True}
            self.agent_selection = "y" if agent == "x" else "x"
            self._accumulate_rewards()

    sys.modules["relay_v0"] = types.ModuleType("relay_v0")
    sys.modules["relay_v0"].env = Turns  # type: ignore[attr-defined]
    x = batch(PettingZooTask("relay_v0"))
    assert x.trajectory_of_turn.size().tolist() == [3] * 8
    assert x.inputs.observation.argmax(1).tolist() == [0, 1, 2] * 8
    assert torch.equal(x.turn_reward, x.action.float()) and bool(x.finished.all())
