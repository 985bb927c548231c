"""Time of advantages and objectives on a large batch and one thread, as a share of what is promised."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from stratagem import recipes
from stratagem.advantages import (
    DiversityBonus,
    EntropyRaised,
    HierarchicalGAE,
    InformationGain,
    NodeStandardized,
    PlanningRaised,
    SharedSteps,
)
from stratagem.experience import Experience, PolicyOutput
from stratagem.partition import Partition
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.rewards import WindowEntropyReward
from stratagem.seeding import generator
from stratagem.spans import Span

PROMISE_MS = 50.0
TOKENS, TRAJECTORIES, GROUP = 4_000_000, 4_096, 8
TURNS, STATES = 64_000, 50
"""Of a batch of agents: turns in all, and states a group's turns are in."""

PARTS: dict[str, Advantage] = {
    "nodes": NodeStandardized(),
    "nodes, of 64 tokens": NodeStandardized(steps=64),
    "information": InformationGain(),
    "plans, by phrases": PlanningRaised(by="phrases"),
    "plans, by entropy": PlanningRaised(by="entropy"),
    "diversity": DiversityBonus(),
    "unsure thoughts": EntropyRaised(),
    "shared steps": SharedSteps(),
    "shared ways": SharedSteps(history=None),
    "hierarchical": HierarchicalGAE(),
}
"""Advantages that read what tokens are, which the baselines do not."""


def batch(tokens: int = TOKENS, trajectories: int = TRAJECTORIES) -> Experience:
    """A packed batch with every field a baseline reads; trajectories of unequal length."""
    random = generator(0, "benchmark")
    share = torch.rand(trajectories, generator=random) + 0.5
    lengths = (share / share.sum() * tokens).long()
    lengths[-1] += tokens - lengths.sum()

    def normal(rows: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(rows, generator=random)

    old_logp = -normal(tokens).abs()
    return Experience.from_lengths(
        lengths,
        torch.ones(trajectories, dtype=torch.int64),
        torch.full((trajectories // GROUP,), GROUP),
        reward=normal(trajectories),
        old_logp=old_logp,
        behavior_logp=old_logp + normal(tokens, 0.01),
        ref_logp=old_logp + normal(tokens, 0.1),
        value=normal(tokens),
        value_target=normal(tokens),
    )


def agents(x: Experience, turns: int = TURNS, states: int = STATES) -> Experience:
    """The same tokens in trajectories of about equally many turns each, whose states repeat."""
    random = generator(0, "turns")
    numbers = torch.arange(x.trajectories)
    each = (turns * (numbers + 1)) // x.trajectories - (turns * numbers) // x.trajectories
    lengths = x.trajectory_of_token.size()
    first = torch.repeat_interleave(each.cumsum(0) - each, each)
    place, of_turn = torch.arange(turns) - first, torch.repeat_interleave(numbers, each)
    cut = (lengths[of_turn] * (place + 1)) // each[of_turn] - (lengths[of_turn] * place) // each[of_turn]
    return x.replace(
        turn_of_token=Partition.from_sizes(cut),
        trajectory_of_turn=Partition.from_sizes(each),
        turn_reward=torch.randn(turns, generator=random),
        turn_state=torch.randint(states, (turns,), generator=random),
    )


def reasoning(x: Experience) -> Experience:
    """The turns of :func:`agents` as thoughts, sub-goals and actions, with all that ``PARTS`` read."""
    random, turn = generator(0, "reasoning"), x.turn_of_token
    share = turn.position() / turn.size()[turn.labels]
    success = torch.rand(x.trajectories, generator=random) < 0.4
    return x.replace(
        span=torch.tensor([Span.THINK, Span.SWITCH, Span.SUBGOAL, Span.ACTION])[(4 * share).long()],
        segment_start=torch.rand(x.turns, generator=random) < 0.3,
        action=torch.randint(50_000, (x.tokens,), generator=random),
        entropy=torch.rand(x.tokens, generator=random),
        planning=torch.rand(x.tokens, generator=random) < 0.1,
        mask=torch.rand(x.tokens, generator=random) < 0.9,
        success=success,
        reward=success.float(),
        turn_reward=None,
    )


def milliseconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Least processor time of a call after a first one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def measured(recipe: Recipe, x: Experience) -> tuple[float, float, float]:
    """Milliseconds of the advantage, of the objective, and of the objective with its derivative."""
    if "ref_logp" not in recipe.needs():  # As in a run, where nobody computes what no part reads.
        x = x.replace(ref_logp=None)
    credited = x.replace(advantage=recipe.advantage(x), target=recipe.advantage.target(x))
    assert x.old_logp is not None
    random = generator(0, "policy")
    logp = x.old_logp + 0.01 * torch.randn(x.tokens, generator=random)
    value, median = torch.randn((2, x.tokens), generator=random)
    out = PolicyOutput(logp.requires_grad_(), value=value.requires_grad_(), median=median.requires_grad_())

    def objective() -> torch.Tensor:
        # A fresh copy, so that nothing remembered from the last call is left out of the time.
        return recipe.objective(out, credited.replace()).loss

    return (
        milliseconds(lambda: recipe.advantage(x)),
        milliseconds(objective),
        milliseconds(lambda: objective().backward()),
    )


def main() -> None:
    """Print one line for each baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--trajectories", type=int, default=TRAJECTORIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = batch(arguments.tokens, arguments.trajectories)
    of_turns = agents(x)
    measured(recipes.grpo(), x)
    print(
        f"{x.tokens:,} tokens, {x.trajectories:,} trajectories, of {of_turns.turns:,} turns where states are compared; "
        f"one thread, float32; promise: {PROMISE_MS:.0f} ms each"
    )
    print(f"{'recipe':24}{'advantage':>12}{'objective':>12}{'+ backward':>12}   share of the promise")
    for name in sorted(recipes.__all__):
        built = getattr(recipes, name)()
        if not isinstance(built, Recipe):
            continue
        advantage, objective, both = measured(built, of_turns if "turn_state" in built.needs() else x)
        share = max(advantage, objective) / PROMISE_MS
        print(f"{name:24}{advantage:9.1f} ms{objective:9.1f} ms{both:9.1f} ms   {share:5.0%}")
    masked = reasoning(of_turns)
    batches = (masked.replace(mask=None), masked)
    print(f"\n{'part':24}{'all train':>12}{'nine tenths':>12}   share of the promise")
    rewards = {"reward of windows": WindowEntropyReward()}
    for name, part in {**PARTS, **rewards}.items():
        times = [milliseconds(lambda part=part, read=read: part(read)) for read in batches]
        print(f"{name:24}" + "".join(f"{time:9.1f} ms" for time in times) + f"   {max(times) / PROMISE_MS:5.0%}")


if __name__ == "__main__":
    main()
