"""Oracles that learn a response by playing: any recipe for agents, at one seat, against mixtures of strategies."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.games.metagame import Mixture
from stratagem.games.oracles import Oracle, Round
from stratagem.games.played import Actor, Actors, NetworkActor, PlayedGame, Seen, TableActor
from stratagem.recipe import Recipe
from stratagem.seeding import derive

ADAPTED: Mapping[str, Mapping[str, Any]] = {
    "ippo": {
        "optimization.learning_rate": 3e-3,
        "optimization.epochs": 4,
        "optimization.minibatches": 4,
        "objective.critic.clip": None,
    },
    "qmix": {
        "architecture.recurrence": "none",
        "architecture.mixer": None,
        "architecture.target_every": 50,
        "optimization.learning_rate": 2e-3,
    },
}
"""What recipes are set to for a single learner that starts from nothing and is paid in any units."""


@dataclass(frozen=True)
class LearnedResponse(Oracle):
    """The policy that a recipe trains at the player's seat while the others are drawn from their mixtures.

    Each response is learned anew in ``steps`` batches of ``episodes`` episodes each. Utilities are paid at the end of a
    game and are not discounted. On an enumerated game the policy is written down as a table: its probabilities in every
    information state. It may earn less than the best response, and less than the mixture that is in place.

    recipe: of the catalogue, for agents that act at once: ``ippo``, with one agent PPO, or ``qmix``, which with one
    agent is set to Q-learning.  settings: of its fields, by dotted path; those of :data:`ADAPTED` are the defaults.
    greedy: whether the response always takes what its policy finds most likely, as a best response may. It gains a
    little more then; but policies that keep their probabilities made better populations where we tried both.
    seed: of all that is drawn.

    Raises :class:`InputError` for an unknown recipe, for one that does not train such agents, and where what the game
    pays is known from a log alone, so that there is nothing to play.
    """

    plays: ClassVar[bool] = True

    recipe: str = "ippo"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: Annotated[int, Ge(1)] = 60
    episodes: Annotated[int, Ge(1)] = 256
    greedy: bool = False
    seed: int = 0

    def __call__(self, player: int, now: Round) -> Strategy:
        game = now.expected
        if len(now.worlds) > 1 or game.source is None:
            raise InputError(
                f"oracle {self.part_name()}: plays the games of OpenSpiel as they are; what {game.name} pays is "
                "written down by hand or known from a log, which needs an exact oracle such as best_response"
            )
        actors = tuple(
            tuple(TableActor(tree, strategy) for strategy in rows)
            for tree, rows in zip(game.players, now.populations, strict=True)
        )
        played = PlayedGame(game.source)
        return tabulated(self.learn(player, played, actors, now.mixtures, now.iteration), player, played, game)

    def learn(
        self, player: int, game: PlayedGame, actors: Actors, mixtures: tuple[Mixture, ...], iteration: int
    ) -> Actor:
        """A response to mixtures over actors of a game that is played."""
        from stratagem.games.task import SeatTask
        from stratagem.multiagent.world import MultiAgentWorld
        from stratagem.training.loop import Settings, Trainer
        from stratagem.training.run_directory import RunDirectory

        recipe = self.made()
        seed = derive(self.seed, "response", iteration, player)
        world = MultiAgentWorld(SeatTask(game, player, actors, mixtures), seed)
        settings = Settings(self.steps, seed, evaluation_episodes=0, sample_episodes=0)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
            for _ in range(self.steps):
                trainer.step()
        world.close()
        return NetworkActor(world.policy.frozen(), self.greedy)

    def made(self) -> Recipe:
        """The recipe as it is trained with. Raises :class:`InputError` as the class does."""
        from stratagem import catalogue

        recipe = catalogue.card(self.recipe).recipe()
        if recipe.architecture is None:
            raise InputError(
                f"oracle {self.part_name()}: recipe {self.recipe} names no policy of agents that act at once; "
                "ippo and qmix do"
            )
        discounts = [path for path in recipe.flat() if path.split(".")[-1] == "discount"]
        own = {"sampler.prompts_per_step": self.episodes, **dict.fromkeys(discounts, 1.0)}
        if recipe.flat().get("schedules.linear_ramp.knob") == "sampler.epsilon":
            own["schedules.linear_ramp.steps"] = max(1, self.steps // 2)
        return recipe.with_values({**own, **ADAPTED.get(self.recipe, {}), **self.settings})


def tabulated(actor: Actor, player: int, played: PlayedGame, game: FlatGame) -> Strategy:
    """An actor's probabilities in every information state of a player, as a strategy of the enumerated game."""
    tree, met = game.players[player], _met(played)[player]
    seen = Seen(played, player, [met[label] for label in tree.states])
    chances = actor(seen)
    # Sequences of a state are its legal actions in their order.
    return tree.normalized(np.concatenate([[1.0], chances[seen.legal]]))


@lru_cache(maxsize=2)
def _met(played: PlayedGame) -> tuple[Mapping[str, Any], ...]:
    """By player, a state of OpenSpiel for each information state; all histories of a game are walked for it."""
    met: tuple[dict[str, Any], ...] = tuple({} for _ in range(played.players))
    stack = [played.spiel.new_initial_state()]
    while stack:
        state = stack.pop()
        if state.is_terminal():
            continue
        if not state.is_chance_node():
            player = state.current_player()
            met[player].setdefault(state.information_state_string(player), state)
        stack += [state.child(action) for action in state.legal_actions()]
    return met
