"""Environment steps per second of PPO on CartPole-v1, Stratagem over Stable-Baselines3, side by side in one process.

    pip install -r benchmarks/requirements-ppo_control.txt
    python benchmarks/ppo_control.py [--rounds 20] [--threads 1]

Both learn with the same hyper-parameters and networks (two tanh layers of 64 each for policy and critic) and take turns
batch by batch. A ratio above 1 means that Stratagem is faster. Given are the median over rounds and, in brackets, the
quartiles, of the whole batch and of its two halves: collecting it and learning from it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from stratagem import recipes
from stratagem.control import ControlWorld, GymTask
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

ENVIRONMENT = "CartPole-v1"


@dataclass(frozen=True)
class Setting:
    """Environments, turns of each per batch, transitions per mini-batch, passes over the batch."""

    name: str
    environments: int
    turns: int
    minibatch: int
    epochs: int


SETTINGS = (
    Setting("4 epochs", 8, 128, 256, 4),
    Setting("10 epochs", 8, 128, 256, 10),
    Setting("the zoo's, 20 epochs", 8, 32, 256, 20),
)

Timing = tuple[float, float]
"""Seconds spent collecting and learning."""


class _Clock(BaseCallback):
    """Notes when a batch begins and when it has been collected."""

    def _on_rollout_start(self) -> None:
        self.began = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.collected = time.perf_counter()

    def _on_step(self) -> bool:
        return True


def stable_baselines(setting: Setting, seed: int) -> Callable[[], Timing]:
    """A function that learns from one batch with Stable-Baselines3."""
    model = PPO(
        "MlpPolicy",
        make_vec_env(ENVIRONMENT, setting.environments, seed=seed),
        n_steps=setting.turns,
        batch_size=setting.minibatch,
        n_epochs=setting.epochs,
        learning_rate=3e-4,
        seed=seed,
        device="cpu",
    )
    clock = _Clock()

    def batch() -> Timing:
        model.learn(setting.environments * setting.turns, clock, reset_num_timesteps=False)
        return clock.collected - clock.began, time.perf_counter() - clock.collected

    return batch


def stratagem(setting: Setting, seed: int) -> Callable[[], Timing]:
    """A function that learns from one batch with Stratagem's own trainer."""
    world = ControlWorld(GymTask(ENVIRONMENT), seed)
    recipe = world.adapt(recipes.baselines.ppo(value_weight=1.0)).with_values(
        {
            "sampler.prompts_per_step": setting.environments,
            "sampler.turns": setting.turns,
            "optimization.minibatches": setting.environments * setting.turns // setting.minibatch,
            "optimization.epochs": setting.epochs,
            "optimization.learning_rate": 3e-4,
        }
    )
    run = RunDirectory.create(tempfile.mkdtemp())
    trainer = Trainer(recipe, world, run, Settings(seed=seed))

    def batch() -> Timing:
        began = time.perf_counter()
        metrics = trainer.step()
        return metrics["timing/rollout"], time.perf_counter() - began - metrics["timing/rollout"]

    return batch


def compare(setting: Setting, rounds: int) -> list[list[float]]:
    """Ratios by round, of the whole batch, of collecting and of learning; two rounds warm up and do not count."""
    ours, theirs = stratagem(setting, 0), stable_baselines(setting, 0)
    ratios: list[list[float]] = [[], [], []]
    for number in range(rounds + 2):
        (collect, learn), (their_collect, their_learn) = ours(), theirs()
        if number >= 2:
            pairs = ((their_collect + their_learn, collect + learn), (their_collect, collect), (their_learn, learn))
            for column, (them, us) in zip(ratios, pairs, strict=True):
                column.append(them / us)
    return ratios


def main() -> None:
    """Print one row per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'environment steps per second':<32}{'batch':>22}{'collecting':>22}{'learning':>22}")
    for setting in SETTINGS:
        shape = f"{setting.environments} x {setting.turns}, {setting.name}"
        print(f"{shape:<32}" + "".join(f"{_summary(column):>22}" for column in compare(setting, arguments.rounds)))


def _summary(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
