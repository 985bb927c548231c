"""Claims of agents that learn together: alone, with a critic that sees more, by values, and by what others do."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from stratagem.multiagent.dags import fixed_dag
from stratagem.multiagent.games import CoordinationGame, MatrixGame, MeetingGame, TwoStepGame
from stratagem.multiagent.tabular import GraphPolicies, TeamModel
from stratagem.multiagent.values import ValueAgents
from stratagem.multiagent.world import MultiAgentWorld
from stratagem.recipe import Recipe
from stratagem.recipes.games import ippo as ippo_recipe
from stratagem.recipes.games import mappo as mappo_recipe
from stratagem.recipes.games import qmix as qmix_recipe
from stratagem.recipes.games import vdn as vdn_recipe
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

HELD_OUT = 200
"""Episodes a trained team is judged by."""

ALWAYS_EXPLORING: dict[str, Any] = {
    "schedules": (),
    "sampler.prompts_per_step": 16,
    "replay.groups": 256,
    "optimization.learning_rate": 2e-3,
    "optimization.minibatches": 8,
    "architecture.target_every": 40,
    "architecture.recurrence": "none",
}
"""Value learners see all joint actions alike, as the paper's did in its games of one and two turns, whose observations
show all there is: nothing is to be remembered."""


def _trained(recipe: Recipe, game: Any, seed: int, batches: int) -> MultiAgentWorld:
    """The world once a team has learned from so many batches."""
    world = MultiAgentWorld(game, seed)
    settings = Settings(steps=batches, seed=seed, evaluation_episodes=0, checkpoint_every=batches + 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        for _ in range(batches):
            trainer.step()
    world.serve(batches)
    return world


# ---- alone, or with a critic that sees more -------------------------------------------------------------------------


@claim(
    "ippo",
    statement="Independent PPO does as well as or better than learners with a joint view: on hard maps of SMAC it is "
    "above QMIX and about level with a PPO whose critic sees the state.",
    source="arXiv 2011.09533, abstract and figure 1",
    baseline="mappo's critic and value scale; qmix",
    rule=(Expect("minus_mappo", above=-0.1), Expect("minus_qmix", above=-0.1)),
    scale="Two agents on a grid of five by five, who see two cells far and are to meet: a meeting pays 1, a turn "
    "costs 0.02. Mean return of 200 sampled held-out episodes after 20 batches of 32 episodes, for each the "
    "same episodes; QMIX has 80 batches of 8, explores by half of them and takes a step for each episode (in "
    "first versions, with batches of 32 and a mixer that did not begin at 0, it did not learn to meet in most runs, "
    "and the verdict was the same). As well is within 0.1 of a return. It says nothing of many agents or of long "
    "episodes, where a critic on one agent's view has less to go by.",
)
def ippo(seed: int) -> dict[str, float]:
    """Return against that of MAPPO and QMIX after as many episodes."""
    game = MeetingGame()
    arms = {"ippo": (ippo_recipe(), 20), "mappo": (mappo_recipe(), 20), "qmix": (qmix_recipe(anneal=40), 80)}
    found = {
        name: _trained(arm, game, seed, batches).evaluate(HELD_OUT, "sampled").mean_return
        for name, (arm, batches) in arms.items()
    }
    return {
        "minus_mappo": found["ippo"] - found["mappo"],
        "minus_qmix": found["ippo"] - found["qmix"],
        **found,
    }


@claim(
    "mappo",
    statement="Value normalisation never hurts and often improves the final return significantly, since targets are of "
    "very different sizes.",
    source="arXiv 2103.01955, section 5.1 and figure 4",
    baseline="mappo without value normalisation; ippo for the critic",
    rule=(Expect("gain", above=0),),
    scale="Three agents who set bits that flip by chance for 20 turns, each turn paying up to 3, so that values are"
    " around 40 while networks begin at 0. Mean return of 200 sampled held-out episodes after 12 batches of "
    "32 episodes. critic_gain is MAPPO's return less that of IPPO with normalised values, where all agents "
    "see all bits: there the central critic knows nothing more, and no gain is claimed.",
)
def mappo(seed: int) -> dict[str, float]:
    """Return with and without value normalisation, and with a critic of each agent's own view."""
    game = CoordinationGame(agents=3)
    whole, plain = mappo_recipe(), mappo_recipe(normalize_values=False)
    alone = whole.with_values({"architecture.critic": "observation"})
    ours, theirs, local = (
        _trained(arm, game, seed, 12).evaluate(HELD_OUT, "sampled").mean_return for arm in (whole, plain, alone)
    )
    return {"gain": ours - theirs, "return": ours, "plain_return": theirs, "critic_gain": ours - local}


# ---- values ---------------------------------------------------------------------------------------------------------


@claim(
    "vdn",
    statement="Agents that share a reward learn more when their values are added up to the team's than when each learns"
    " alone what its own actions are worth.",
    source="arXiv 1706.05296, abstract and figure 4",
    baseline="the same learner without a mixer: independent Q-learning",
    rule=(Expect("gain", above=0),),
    scale="Two agents on a grid of five by five, who see two cells far and are to meet. Mean greedy return of 200 "
    "held-out episodes after 25 batches of 16 episodes, with as many steps of the same optimizer. The paper's"
    " other point, that of one learner for all joint actions, is not tried.",
)
def vdn(seed: int) -> dict[str, float]:
    """Return with values that are added up, and of agents that learn alone."""
    whole = vdn_recipe(episodes=16, anneal=15).with_values({"optimization.learning_rate": 1e-3})
    alone = whole.with_values({"architecture.mixer": None})
    ours, theirs = (
        _trained(arm, MeetingGame(), seed, 25).evaluate(HELD_OUT, "greedy").mean_return for arm in (whole, alone)
    )
    return {"gain": ours - theirs, "return": ours, "independent_return": theirs}


@claim(
    "qmix",
    statement="A monotone mixer represents what a sum cannot: in a game of two steps VDN takes the safe 7, since its "
    "values of the other game are wrong, and QMIX learns them and takes the 8.",
    source="arXiv 1803.11485, section 5 and table 1",
    baseline="vdn",
    rule=(Expect("gain", above=0.5), Expect("error", below=0.5), Expect("nonmonotonic_error", above=1)),
    scale="The paper's game, exploration by chance alone as there, 16 episodes in each of 100 batches and eight "
    "steps a batch, at four times the paper's learning rate and a fifth of its target's period. error is the "
    "largest error of Q_tot in the second game. nonmonotonic_error is that in a matrix game whose best action"
    " turns with what the other does (arXiv 1905.05408), which no monotone mixer represents: the limit the "
    "paper names itself.",
)
def qmix(seed: int) -> dict[str, float]:
    """Greedy return against VDN's, and errors of the values where the mixer suffices and where it does not."""
    ours, theirs = (
        _trained(arm.with_values(ALWAYS_EXPLORING), TwoStepGame(), seed, 100) for arm in (qmix_recipe(), vdn_recipe())
    )
    risky = torch.from_numpy(TwoStepGame.table[2])
    limits = _trained(qmix_recipe().with_values(ALWAYS_EXPLORING), MatrixGame("nonmonotonic"), seed, 60)
    known = torch.from_numpy(MatrixGame("nonmonotonic").table)
    returns = [world.evaluate(1, "greedy").mean_return for world in (ours, theirs)]
    return {
        "gain": returns[0] - returns[1],
        "error": _error(ours, torch.eye(3)[2], risky),
        "vdn_error": _error(theirs, torch.eye(3)[2], risky),
        "nonmonotonic_error": _error(limits, torch.ones(1), known),
        "return": returns[0],
        "vdn_return": returns[1],
    }


def _error(world: MultiAgentWorld, seen: Tensor, table: Tensor) -> float:
    """Largest error of the team's value of two agents who both see this, and so does the critic."""
    policy = world.policy
    assert isinstance(policy, ValueAgents) and policy.mixer is not None
    with torch.no_grad():
        worth = policy.utilities(torch.cat([seen.expand(2, -1), torch.eye(2)], 1))
        pairs = torch.cartesian_prod(torch.arange(len(table)), torch.arange(len(table)))
        utilities = worth[torch.arange(2), pairs]
        total = policy.mixer(utilities, seen.expand(len(pairs), -1))
    return float((total - table.reshape(-1)).abs().max())


# ---- what others do -------------------------------------------------------------------------------------------------

STARTS, STEPS, RATE = 20, 400, 0.05
GRAPHS: dict[str, tuple[Literal["none", "line", "full"], float]] = {
    "none": ("none", 0.0),
    "line": ("line", 0.0),
    "full": ("full", 0.0),
    "annealed": ("full", 0.7),
}
"""Edges, and over what share of the steps they fall away; 0: they stay."""


@claim(
    "bn_policy",
    statement="Agents that see each other's actions escape equilibria that independent ones end in, and what they reach"
    " stays when the edges are taken away while they learn.",
    source="arXiv 2306.01920, abstract, theorem 1 and the coordination game",
    baseline="independent agents",
    rule=(Expect("gain_full", above=0), Expect("gain_annealed", above=0)),
    scale="The paper's coordination game with two and three agents, tabular policies and exact gradients of the "
    "discounted return (0.95), from 20 tables of normal logits a seed, the same for all graphs where agents "
    "see nothing: 400 steps of 0.05 in place of 2,000 of 0.01. Figures are means of J / J* over both games; "
    "share_ is the share above 0.95, gap_ the mean gain of the best deviation, which along a denser graph may"
    " look at more. Annealed keeps each edge with a probability that falls from 1 to 0 over 70 % of the "
    "steps, and is judged without edges. Learned graphs and networks are not in it.",
)
def bn_policy(seed: int) -> dict[str, float]:
    """``J / J*`` of three graphs and of one that is taken away."""
    found: dict[str, list[float]] = {}
    for agents in (2, 3):
        model = TeamModel.coordination(agents)
        for name, (edges, anneal) in GRAPHS.items():
            policies = GraphPolicies(model, fixed_dag(edges, agents))
            tables = _ascended(policies, _tables(policies, seed), anneal)
            worth = model.worth(policies.thinned(tables, 0.0 if anneal else 1.0)) / model.optimum()
            found.setdefault(f"ratio_{name}", []).append(float(worth.mean()))
            found.setdefault(f"share_{name}", []).append(float((worth > 0.95).double().mean()))
            if not anneal:
                found.setdefault(f"gap_{name}", []).append(float(policies.gap(tables).mean()))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    return {
        "gain_full": means["ratio_full"] - means["ratio_none"],
        "gain_annealed": means["ratio_annealed"] - means["ratio_none"],
        **means,
    }


def _tables(policies: GraphPolicies, seed: int) -> list[Tensor]:
    """Normal logits, the same whatever an agent sees of the others' actions."""
    source = generator(seed, "logits", policies.model.agents)
    tables = []
    for states, seen, actions in policies.shapes():
        alone = torch.randn(STARTS, states, 1, actions, generator=source, dtype=torch.float64)
        tables.append(alone.repeat(1, 1, seen, 1))
    return tables


def _ascended(policies: GraphPolicies, tables: list[Tensor], anneal: float) -> Sequence[Tensor]:
    """After gradient ascent; edges fall away over this share of the steps, 0: they stay."""
    if not anneal:
        for _ in range(STEPS):
            tables = [table + RATE * g for table, g in zip(tables, policies.gradient(tables), strict=True)]
        return tables
    moving = [table.requires_grad_() for table in tables]
    for step in range(STEPS):
        kept = max(0.0, 1 - step / (anneal * STEPS))
        worth = policies.model.worth(policies.thinned(moving, kept)).sum()
        slopes = torch.autograd.grad(worth, moving, allow_unused=True)
        with torch.no_grad():
            for table, slope in zip(moving, slopes, strict=True):
                if slope is not None:
                    table += RATE * slope
    return [table.detach() for table in moving]
