"""The claim of agents that learn one set of policies for games of different sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from stratagem.multiagent.adaptation import adapted
from stratagem.multiagent.game import Frame, State
from stratagem.multiagent.relational import RelationalAgents
from stratagem.multiagent.resources import ResourcesGame, deviation_gain
from stratagem.multiagent.world import MultiAgentWorld
from stratagem.objectives import information_estimate
from stratagem.recipe import Recipe
from stratagem.recipes.games import mra as mra_recipe
from stratagem.sampling import Rollouts
from stratagem.seeding import numpy_generator, seed_torch
from stratagem.study.claims import Expect, claim
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

SEEN, UNSEEN = (2, 4), (3, 6)
BATCHES, HELD_OUT, STEPS, SITES = 10, 100, 10, 3


def _recipe(codes: int, information: float = 0.1) -> Recipe:
    small = mra_recipe(codes, information, episodes=24, replayed=16, updates=8, capacity=600, learning_rate=3e-3)
    return small.with_values({"architecture.width": 32})


def _game(populations: Sequence[int]) -> ResourcesGame:
    return ResourcesGame(tuple(populations), places=max(UNSEEN))


def _trained(recipe: Recipe, populations: Sequence[int], seed: int) -> RelationalAgents:
    world = MultiAgentWorld(_game(populations), seed)
    settings = Settings(steps=BATCHES, seed=seed, evaluation_episodes=0, checkpoint_every=BATCHES + 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        for _ in range(BATCHES):
            trainer.step()
    assert isinstance(world.policy, RelationalAgents)
    return world.policy


def _earned(policy: RelationalAgents, populations: Sequence[int], seed: int) -> float:
    """Mean return of an agent in these games, one after another."""
    worlds = [MultiAgentWorld(_game([number]), seed, policy) for number in populations]
    return float(np.mean([world.evaluate(HELD_OUT, "sampled").mean_return for world in worlds]))


def _earned_after_steps(policy: RelationalAgents, recipe: Recipe, seed: int) -> float:
    """The same in games that were not seen, each after its best code was found and some steps were taken there."""
    found = [
        _earned(adapted(policy, _game([number]), recipe, STEPS, seed, episodes=16), [number], seed) for number in UNSEEN
    ]
    return float(np.mean(found))


def _information(policy: RelationalAgents, seed: int) -> float:
    """What an action says of its code among the most agents that it learned with."""
    x = MultiAgentWorld(_game([SEEN[1]]), seed, policy).collect(Rollouts(32, 1), 0).x
    assert x is not None
    seed_torch(seed, "information")
    with torch.no_grad():
        logp = policy(x, also={"code_logp"}).code_logp
    assert logp is not None
    return float(information_estimate(logp[:, 0], logp[:, 1:]).mean())


def _gap(policy: RelationalAgents, seed: int) -> float:
    """What an agent gains by its best response among three agents with their likeliest codes."""
    game, chances = _game([UNSEEN[0]]), policy.chances()

    def likelihoods(state: State) -> np.ndarray:
        seen, legal = game.observe(state).astype(np.float32), game.legal(state)
        return chances(Frame(seen, seen[:, 0, :0], legal, game.alive(state)))

    draws = numpy_generator(seed, "sites")
    sites = [draws.permutation(game.cells)[: game.landmarks] for _ in range(SITES)]
    return float(np.mean([deviation_gain(game, likelihoods, UNSEEN[0], site) for site in sites]))


@claim(
    "mra",
    statement="Agents that learn one set of policies with an informative latent code in games of some sizes earn more "
    "in games of sizes they have not seen, at once and after a few gradient steps, than one policy for all games.",
    source="arXiv 2108.12988, abstract and experiments (resource occupying)",
    baseline="the same learner without a code (one policy for all games); without the information; one for each game",
    rule=(Expect("zero_shot_gain", above=0), Expect("adapted_gain", above=0)),
    scale="Rings of 12 cells with three landmarks, 12 turns. Learned with 2 and 4 agents in 80 optimizer steps, tested "
    "with 3 and 6: mean return of an agent in 100 sampled held-out episodes each, and again after the best of four "
    "codes was chosen on 16 training episodes and 10 steps were taken on 16 more. Critics are of each agent's own "
    "reward, since those of a team's sum learn little in so few steps. With two agents there is one other to attend "
    "to, so there a code changes nothing. gain_over_single is over the mean of a learner for each game, each with as "
    "many steps; gap is what a best response gains among three agents, exactly; code_entropy is that of the codes in "
    "use and information what an action says of its code among four agents, in nats. Where that is near 0 the codes "
    "are not in use yet, and no gain can come of them. It says nothing of the paper's 80,000 episodes with up to 12 "
    "agents on a plane.",
)
def mra(seed: int) -> dict[str, float]:
    """Returns in games of unseen sizes, against learners without code, without information, and of one game each."""
    recipes = {"mra": _recipe(4), "uninformed": _recipe(4, 0.0), "shared": _recipe(1)}
    learned = {name: _trained(recipe, SEEN, seed) for name, recipe in recipes.items()}
    zero = {name: _earned(policy, UNSEEN, seed) for name, policy in learned.items()}
    later = {name: _earned_after_steps(policy, recipes[name], seed) for name, policy in learned.items()}
    single = [_earned(_trained(recipes["shared"], [number], seed), UNSEEN, seed) for number in SEEN]
    with torch.no_grad():
        logp = learned["mra"].code_logp(torch.tensor(UNSEEN, dtype=torch.float32))
    return {
        "zero_shot_gain": zero["mra"] - zero["shared"],
        "adapted_gain": later["mra"] - later["shared"],
        "gain_over_single": zero["mra"] - float(np.mean(single)),
        "gain_of_information": zero["mra"] - zero["uninformed"],
        "adapted_gain_of_information": later["mra"] - later["uninformed"],
        "zero_shot": zero["mra"],
        "adapted": later["mra"],
        "trained": _earned(learned["mra"], SEEN, seed),
        "shared_trained": _earned(learned["shared"], SEEN, seed),
        "code_entropy": float(-(logp.exp() * logp).sum(1).mean()),
        "information": _information(learned["mra"], seed),
        "gap": _gap(learned["mra"], seed),
        "shared_gap": _gap(learned["shared"], seed),
    }
