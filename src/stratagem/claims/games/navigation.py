"""The claims of agents that find their ways beside each other: following plans on a grid, and barriers on a plane."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from stratagem.catalogue import card
from stratagem.multiagent import MultiAgentWorld, PathfindingGame
from stratagem.multiagent.controllers import Controller, learned, pibt, planned, throughput
from stratagem.multiagent.policy import AgentsPolicy
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

# ---- following plans ------------------------------------------------------------------------------------------------

CROWDS = (8, 16, 24)
"""Agents on a map of 12 by 12."""

MAPS = 6
"""Held-out maps for each number of agents."""


def _follower(seed: int) -> AgentsPolicy:
    """The technique, trained by batches of 4,096 turns of 16 agents."""
    game = PathfindingGame(agents=16, max_turns=256)
    world = MultiAgentWorld(game, derive(seed, "follower"))
    changes = {"optimization.learning_rate": 1e-3, "optimization.minibatches": 16}
    recipe = card("follower").recipe(copies=16, turns=16).with_values(changes)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(steps=24, evaluation_episodes=0, checkpoint_every=1000, seed=derive(seed, "trainer"))
        Trainer(recipe, world, RunDirectory.create(Path(folder) / "run"), settings).run()
    return world.policy


def _throughput(seed: int, agents: int, who: str, policy: AgentsPolicy) -> float:
    costs = who not in ("detour_without_costs", "plan_without_costs")
    game = PathfindingGame(agents=agents, max_turns=128, static=costs, dynamic=costs)
    controllers: dict[str, Controller] = {
        "learned": learned(game, policy),
        "plan": planned(),
        "detour": planned(0.1),
        "detour_without_costs": planned(0.1),
        "pibt": pibt,
    }
    seeds = np.array([game.start_seed("test", derive(seed, "map", number) >> 33) for number in range(MAPS)])
    return float(throughput(game, controllers[who], seeds, numpy_generator(seed, who, agents)).mean())


@claim(
    "follower",
    statement="Agents that learn to follow congestion-aware plans of their own reach more goals than agents by rules, "
    "on maps they have not seen; both the static and the dynamic cost add to that.",
    source="arXiv 2310.01207, experiments on mazes and warehouses with up to 256 agents (throughput)",
    baseline="the same plans followed by rule, with a random detour in a tenth of all turns; the same without costs; PIBT",
    rule=(
        Expect("log_ratio_to_detour", above=0),
        Expect("log_ratio_of_costs", above=0),
        Expect("log_ratio_to_pibt", above=0),
    ),
    scale="Random maps of 12 by 12 with a fifth walls, 8, 16 and 24 agents, 128 turns, 6 held-out maps of each; one "
    "policy trained with 16 agents for 24 batches of 4,096 agent turns (a hundred thousand, where the paper has a "
    "billion), without a memory. The ratio of costs is that of the rule with detours, with both costs and without. "
    "PIBT sees and moves all agents as one. No learned competitor and no search-based solver is compared.",
)
def follower(seed: int) -> dict[str, float]:
    """Mean over numbers of agents of the logarithm of throughput over that of others."""
    policy = _follower(seed)
    names = ("learned", "plan", "detour", "detour_without_costs", "pibt")
    results = {who: np.array([_throughput(seed, agents, who, policy) for agents in CROWDS]) for who in names}
    logs = {who: float(np.log(values + 1e-3).mean()) for who, values in results.items()}
    return {
        "log_ratio_to_detour": logs["learned"] - logs["detour"],
        "log_ratio_of_costs": logs["detour"] - logs["detour_without_costs"],
        "log_ratio_to_pibt": logs["learned"] - logs["pibt"],
        "log_ratio_to_plan": logs["learned"] - logs["plan"],
        **{f"throughput_{who}": math.fsum(values) / len(values) for who, values in results.items()},
    }
