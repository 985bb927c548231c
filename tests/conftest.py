"""A tiny random policy, and a task whose rewards it cannot help earning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

# The same examples in every run, so that a change is judged by itself; HYPOTHESIS_PROFILE=default looks for new ones.
# How long an example takes says how busy the machine is.
untimed: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **untimed)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

Fault = Callable[[str, int, int], Any]
"""What goes wrong in a call (``reset``, ``step``, ``close``) of episode ``index`` in turn ``turn``.

It may raise, or return what the call is to return instead; None leaves the call alone.
"""


@dataclass
class Chatter(Task):
    """Whatever is said earns 0, 0.25, ... or 1, by a hash; an episode ends by another hash, or after ``turns`` turns.

    ``patience``: turns after which the task itself cuts the episode.  ``calls``: every call of an environment.
    """

    turns: int = 3
    patience: int = 8
    max_new_tokens: int = 4
    system: str | None = "Say something."
    reward_names: tuple[str, ...] = ("reward",)
    fault: Fault = lambda call, index, turn: None
    name: str = "chatter"
    description: str = "say anything"

    def __post_init__(self) -> None:
        self.max_turns = self.patience
        self.calls: list[tuple[str, int, int]] = []

    def environment(self, split: Split, index: int) -> Environment:
        return _Chat(self, index if split == "train" else -1 - index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["hello"] * self.turns)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


class _Chat(Environment):
    def __init__(self, task: Chatter, index: int) -> None:
        self.task, self.index, self.turn = task, index, 0

    def reset(self) -> Observation:
        return self._called("reset", Observation(f"topic {self.index % 5}", state_key("chatter", self.index)))

    def step(self, action: str) -> Step:
        self.turn += 1
        key = state_key("chatter", self.index, self.turn, action)
        done = self.turn == self.task.turns or key % 11 == 0
        components = {name: float(key % 3) for name in self.task.reward_names[1:]}
        reward = key % 5 / 4
        heard = Observation(f"heard {key % 4}", key)
        return self._called("step", Step(heard, reward, done, success=reward > 0.5, components=components))

    def close(self) -> None:
        self._called("close", None)

    def _called(self, call: str, result: Any) -> Any:
        self.task.calls.append((call, self.index, self.turn))
        instead = self.task.fault(call, self.index, self.turn)
        return result if instead is None else instead


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def chatter() -> type[Chatter]:
    """The task; every argument has a default."""
    return Chatter


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    from stratagem.language.pretrain import train_tokenizer
    from stratagem.tasks.key_door import KeyDoorTask

    return train_tokenizer(KeyDoorTask(), 320, episodes=20)


@pytest.fixture(scope="session")
def make_policy(tiny_tokenizer: Any) -> Callable[..., Any]:
    """``make_policy(seed=0, context=512, **options)``: a random float32 policy of twenty thousand weights."""
    from stratagem.language.pretrain import TinyShape, new_policy

    def make(seed: int = 0, context: int = 512, **options: Any) -> Any:
        shape = TinyShape(320, hidden=32, layers=2, heads=2, key_value_heads=1, intermediate=48, context=context)
        return new_policy(tiny_tokenizer, shape, seed, **{"dtype": "float32", "value_head": True, **options})

    return make


@pytest.fixture
def make_world(make_policy: Callable[..., Any], chatter: type[Chatter]) -> Iterator[Callable[..., Any]]:
    """``make_world(task=None, seed=0, policy=None, **options)``: a language world; closed when the test ends."""
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.world import LanguageWorld

    worlds: list[Any] = []

    def make(task: Task | None = None, seed: int = 0, policy: Any = None, **options: Any) -> Any:
        policy = make_policy() if policy is None else policy
        worlds.append(LanguageWorld(task or chatter(), policy, HFEngine(policy), seed, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def make_trainer(tmp_path: Path, make_world: Callable[..., Any]) -> Callable[..., Any]:
    """``make_trainer(recipe, name="run", world=None, sinks=(), **settings)``: 2 steps without evaluation by default."""
    from stratagem.training.loop import Settings, Trainer
    from stratagem.training.run_directory import RunDirectory

    def make(recipe: Any, name: str = "run", world: Any = None, sinks: Sequence[Any] = (), **settings: Any) -> Any:
        settings = {"steps": 2, "evaluation_episodes": 0, **settings}
        run = RunDirectory.create(tmp_path / name)
        return Trainer(recipe, make_world() if world is None else world, run, Settings(**settings), tuple(sinks))

    return make


@pytest.fixture
def small() -> Callable[..., Any]:
    """``small("grpo", **values)``: a recipe of the catalogue on 3 start states with 4 episodes each."""
    from stratagem import catalogue

    def make(name: str, **values: Any) -> Any:
        recipe = catalogue.card(name).recipe()
        sizes = {"sampler.prompts_per_step": 3}
        if recipe.sampler.group_size > 1:
            sizes["sampler.group_size"] = 4
        return recipe.with_values(sizes).with_values({name.replace("__", "."): v for name, v in values.items()})

    return make


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, make_policy: Callable[..., Any]) -> Path:
    """A tiny random model as it lies on a disk."""
    folder = tmp_path_factory.mktemp("models") / "random"
    make_policy(context=2048).save(folder)
    return folder


@pytest.fixture
def stopped_and_resumed() -> Callable[..., Any]:
    """``stopped_and_resumed(trainer, world, batches, within)``: the trainer that ended a run another one began.

    The first one stops after so many batches, or ``within`` the next one, after its first optimizer step; ``world`` is
    a fresh one.
    """
    from stratagem.training.loop import Interrupted, Trainer

    def run(broken: Any, world: Any, batches: int, within: bool) -> Any:
        for _ in range(batches):
            broken.step()
        if within:
            broken.stop()
            with pytest.raises(Interrupted):
                broken.step()
        else:
            broken.checkpoint()
        resumed = Trainer(broken.recipe, world, broken.run_directory, broken.settings)
        resumed.resume(broken.run_directory.load())
        resumed.run()
        return resumed

    return run
