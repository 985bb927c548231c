"""Tokens generated and prefilled for as many trajectories, grown as trees or rolled out one by one, as ratios."""

from __future__ import annotations

import argparse

import torch

from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.sampling import AtTurns, Branching, RandomNodes, Rollouts
from stratagem.tasks.registry import make

TREES = {
    "at the second turn": Branching(group_size=4, at=AtTurns(first=True), branches=2),
    "at random nodes": Branching(group_size=4, at=RandomNodes(), branches=1, depth=8, together=True),
}
"""Ways to grow twelve trajectories or more of a prompt from a few."""


def counted(sampler: Rollouts, task: str, prompts: int, seed: int) -> dict[str, float]:
    """Per trajectory: tokens generated, given to read, and computed of these."""
    policy = LanguagePolicy.from_path(str(tiny_model_path()))
    world = LanguageWorld(make(task), policy, HFEngine(policy), seed)
    world.serve(1)
    try:
        got = world.collect(sampler.replace(prompts_per_step=prompts), 0)
    finally:
        world.close()
    assert got.x is not None
    computed, taken_over = got.metrics["prefill/tokens"], got.metrics["prefill/taken_over"]
    totals = {"generated": got.tokens, "read": computed + taken_over, "prefilled": computed}
    return {name: total / got.x.trajectories for name, total in totals.items()}


def main() -> None:
    """Print a line for plain rollouts and one for each kind of tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="key_door")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = arguments.task, arguments.prompts, arguments.seed
    flat = counted(Rollouts(group_size=12), *given)
    print(f"{arguments.task}, tokens per trajectory; in brackets as a multiple of twelve plain rollouts of each prompt")
    print("read: given to the engine, as it would be computed if nothing were shared")
    for name, figures in {"plain": flat, **{name: counted(tree, *given) for name, tree in TREES.items()}}.items():
        told = "".join(f"{what:>12} {value:7.1f} ({value / flat[what]:.2f})" for what, value in figures.items())
        print(f"{name:24}{told}")


if __name__ == "__main__":
    main()
