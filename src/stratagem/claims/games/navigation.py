"""The claims of agents that find their ways beside each other: following plans on a grid, and barriers on a plane."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stratagem.catalogue import card
from stratagem.multiagent import DiscsGame, Frame, MultiAgentWorld, PathfindingGame
from stratagem.multiagent.controllers import Controller, learned, pibt, planned, throughput
from stratagem.multiagent.discs import action_of, fixed, play
from stratagem.multiagent.game import State
from stratagem.multiagent.policy import AgentsPolicy
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim
from stratagem.tasks.task import Split
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

# ---- following plans ------------------------------------------------------------------------------------------------

CROWDS = (8, 16, 24)
"""Agents on a map of 12 by 12."""

MAPS = 4
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
    baseline="the same plans followed by rule, with a random detour in a tenth of turns; the same without costs; PIBT",
    rule=(
        Expect("log_ratio_to_detour", above=0),
        Expect("log_ratio_of_costs", above=0),
        Expect("log_ratio_to_pibt", above=0),
    ),
    scale="Random maps of 12 by 12 with a fifth walls, 8, 16 and 24 agents, 128 turns, 4 held-out maps of each; one "
    "policy trained with 16 agents for 24 batches of 4,096 agent turns (a hundred thousand, where the paper has a "
    "billion), without a memory. The ratio of costs is that of the rule with detours, with both costs and without. "
    "PIBT sees and moves all agents as one. 60 batches and 10 maps took too long; the last cut, from 6 "
    "maps to 4, came after a first result, for time alone. No learned competitor and no search-based solver is "
    "compared.",
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


# ---- barriers -------------------------------------------------------------------------------------------------------

BATCHES, COPIES, TURNS = 40, 16, 32
"""Of training: so many turns of the game each, which the search for fixed parameters may use as well."""

SCENES = 40
"""Held-out scenes, each with a gap of its own."""

TRIED = 4
"""Training scenes on which fixed parameters of each agent are tried."""


def _scenes(game: DiscsGame, seed: int, split: Split, count: int) -> np.ndarray:
    return np.array([game.start_seed(split, derive(seed, "scene", number) >> 33) for number in range(count)])


def _tuned(game: DiscsGame, seed: int) -> AgentsPolicy:
    """The technique, trained on a fixed number of turns."""
    world = MultiAgentWorld(game, derive(seed, "barriers"))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(BATCHES, derive(seed, "trainer"), evaluation_episodes=0, checkpoint_every=1000)
        recipe = card("online_cbf").recipe(copies=COPIES, turns=TURNS)
        Trainer(recipe, world, RunDirectory.create(Path(folder) / "run"), settings).run()
    return world.policy


def _best(game: DiscsGame, tried: Sequence[np.ndarray], scenes: np.ndarray) -> np.ndarray:
    """The parameters with the largest mean return on these scenes."""
    returns = [play(game, fixed(action), scenes)["return"] for action in tried]
    return tried[int(np.argmax(returns))]


@claim(
    "online_cbf",
    statement="Barrier parameters that a shared message-passing policy sets turn by turn bring agents through scenes "
    "in which fixed ones leave them stuck.",
    source="arXiv 2303.04313, abstract (scenes that fixed parameters do not solve, and better navigation elsewhere)",
    baseline="the best fixed parameters for all agents (a grid) and for each of them (random search), found with as "
    "many turns of the game as training takes",
    rule=(Expect("success_over_shared", above=0), Expect("success_over_each", above=0)),
    scale="Four discs that change corners of a 4 by 4 square through a gap of 0.6 to 1 between two obstacles, single "
    "integrators, 40 batches of 512 turns; 40 held-out scenes, the policy acting by its mean. Rewards, ranges of the "
    "parameters and the network are reconstructions. Fixed parameters are chosen by the same return, with as many "
    "turns of the game: 15 shared ones on 6 scenes each, 25 for each agent on 4. No velocity is learned, and no agent "
    "may go round: where all are stuck head-on, parameters alone may not free them. Agents with parameters of their "
    "own are told apart, which a policy that all share cannot do but by what they see.",
)
def online_cbf(seed: int) -> dict[str, float]:
    """Success on held-out scenes, over that of fixed parameters."""
    game, budget = DiscsGame(), BATCHES * COPIES * TURNS
    grid = [action_of(zeta, eta)[None] for zeta in (0.1, 0.3, 1.0, 3.0, 10.0) for eta in (1.0, 2.0, 3.0)]
    draw = numpy_generator(seed, "search")
    each = [draw.uniform(-5, 5, (game.agents, 2)) for _ in range(budget // (TRIED * game.max_turns))]
    of_grid = _scenes(game, derive(seed, "grid"), "train", budget // (len(grid) * game.max_turns))
    shared = _best(game, grid, of_grid)
    own = _best(game, each, _scenes(game, derive(seed, "each"), "train", TRIED))
    held_out = _scenes(game, seed, "test", SCENES)
    act = _tuned(game, seed).acting()

    def learned_parameters(state: State) -> np.ndarray:
        shape = state["place"].shape[:2]
        nothing = np.zeros((*shape, 0), dtype=bool)
        frame = Frame(game.observe(state).astype(np.float32), nothing[:, 0], nothing, np.ones(shape, dtype=bool))
        return act(frame, None).action

    results = {
        "learned": play(game, learned_parameters, held_out),
        "shared": play(game, fixed(shared), held_out),
        "each": play(game, fixed(own), held_out),
    }
    figures = ("success", "return", "infeasible", "least")
    measured = {f"{figure}_{who}": result[figure] for who, result in results.items() for figure in figures}
    return {
        **{
            f"success_over_{who}": measured["success_learned"] - measured[f"success_{who}"]
            for who in ("shared", "each")
        },
        **{f"return_over_{who}": measured["return_learned"] - measured[f"return_{who}"] for who in ("shared", "each")},
        **measured,
    }
