"""Groups per second the lab draws, credits and learns from, on one thread, as a multiple of what is promised."""

from __future__ import annotations

import argparse
import time

import torch

from stratagem import recipes
from stratagem.lab import diagnose

PROMISE = 100_000
GAME = "four_by_four"


def groups_per_second(name: str, groups: int, repeats: int = 5) -> float:
    """The best of some diagnoses, by the processor time of drawing, crediting and differentiating alone."""
    recipe = getattr(recipes, name)()
    rates = []
    for seed in range(repeats):
        start, clock = time.process_time(), time.perf_counter()
        found = diagnose(recipe, GAME, groups=groups, seed=seed)
        # The rate of the diagnosis counts seconds on a clock; a busy machine is no fault of the lab's.
        rates.append(found.groups_per_second * (time.perf_counter() - clock) / (time.process_time() - start))
    return max(rates)


def main() -> None:
    """Print one line for each of a few recipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=65_536)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{GAME}: groups of 8 answers of 4 tokens, batches of 512 groups, one thread; promise: {PROMISE:,} a second")
    for name in ("reinforce", "rloo", "grpo", "reinforce_pp", "ppo"):
        rate = groups_per_second(name, arguments.groups)
        print(f"{name:16}{rate:12,.0f}   {rate / PROMISE:5.2f} times the promise")


if __name__ == "__main__":
    main()
