"""Resources on a ring that agents share with whoever else is there, for populations of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from jaxtyping import Bool, Float, Int64

from stratagem.errors import InputError
from stratagem.multiagent.game import MarkovGame, State
from stratagem.multiagent.games import configured, named
from stratagem.multiagent.pathfinding import own_chance


@dataclass(frozen=True)
class ResourcesGame(MarkovGame):
    """Agents on a ring move to landmarks, each of which pays its size every turn, shared by the agents that are there.

    Sizes are ``(l + 1) / landmarks`` for ``l`` from 0. Landmarks are on different cells, and an agent is anywhere; all
    are drawn for every episode. An action stays or goes a cell on or back; what is paid is what is there after the
    move. The game of "Learning Meta Representations for Agents" (arXiv 2108.12988) on a ring instead of a plane.

    An episode has as many agents as its seed decides, each of ``populations`` as likely; places of agents that are not
    there see zeros, are paid nothing, and do not count as alive. An agent sees the sizes of what lies 0, 1, ... cells
    further on; then, for every other agent in the order of their numbers, 1 and where it is in the same cells, and
    zeros for whoever is not there, up to ``places - 1`` others: so tasks of other populations have the same
    observations. The state is where all agents and resources are.

    populations: numbers of agents, each 1 to ``places``; on the command line ``agents=2+4``.  places: 1 to 64.
    cells: 2 to 64.  landmarks: 1 to ``cells``.  max_turns: 1 to 10,000.
    """

    populations: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (2, 4)
    cells: Annotated[int, Ge(2), Le(64)] = 12
    landmarks: Annotated[int, Ge(1)] = 3
    places: Annotated[int, Ge(1), Le(64)] = 8
    max_turns: Annotated[int, Gt(0), Le(10_000)] = 12

    actions: ClassVar[int] = 3
    shared_reward: ClassVar[bool] = False
    mortal: ClassVar[bool] = True
    moves: ClassVar[np.ndarray] = np.array([0, 1, -1])

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, value, most in (
            ("agents", max(self.populations), "places"),
            ("landmarks", self.landmarks, "cells"),
        ):
            if value > getattr(self, most):
                raise InputError(f"task resources: {what} = {value}: must be at most {most} = {getattr(self, most)}")
        if len(set(self.populations)) < len(self.populations):
            raise InputError(f"task resources: agents = {_listed(self.populations)}: each number only once")

    @property
    def name(self) -> str:
        # Asked for before the options are known to be right, too.
        default = type(self).populations
        start = "resources" if self.populations == default else f"resources:agents={_listed(self.populations)}"
        return named(start, self, ("cells", "landmarks", "places", "max_turns"))

    @property
    def description(self) -> str:
        return "agents on a ring share what landmarks pay; episodes have different numbers of them"

    @property
    def agents(self) -> int:
        return max(self.populations)

    @property
    def features(self) -> int:
        own, others, numbers = self.others
        return own + others * numbers

    @property
    def others(self) -> tuple[int, int, int]:
        """Numbers an agent sees of itself, other agents there may be, and numbers of each, the first one 1."""
        return self.cells, self.places - 1, 1 + self.cells

    @property
    def state_features(self) -> int:
        return (self.agents + 1) * self.cells

    @property
    def sizes(self) -> Float[np.ndarray, " landmarks"]:
        """What landmarks pay in a turn."""
        return (np.arange(self.landmarks) + 1) / self.landmarks

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        number = (own_chance(seeds, 0, 1)[:, 0] * len(self.populations)).astype(np.int64)
        return {
            "population": np.array(self.populations)[number],
            "cell": (own_chance(seeds, 1, self.agents) * self.cells).astype(np.int64),
            "site": own_chance(seeds, 2, self.cells).argsort(1)[:, : self.landmarks],
        }

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies agents"], Bool[np.ndarray, " copies"]]:
        cell = (state["cell"] + self.moves[action]) % self.cells
        changed = {**state, "cell": cell}
        return {"cell": cell}, self.paid(changed), np.full(len(cell), False)

    def paid(self, state: State) -> Float[np.ndarray, "copies agents"]:
        """What every agent gets for being where it is."""
        there = self._standing(state)
        worth = (self._offered(state) / np.maximum(there.sum(1), 1))[:, None]
        paid: np.ndarray = (worth * there).sum(2)
        return paid

    def alive(self, state: State) -> Bool[np.ndarray, "copies agents"]:
        return np.arange(self.agents) < state["population"][:, None]

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        agents, cells = self.agents, self.cells
        own, _, numbers = self.others
        cell, alive = state["cell"], self.alive(state)
        copies = len(cell)
        around = (cell[..., None] + np.arange(cells)) % cells
        seen = np.zeros((copies, agents, self.features))
        seen[..., :own] = self._offered(state)[np.arange(copies)[:, None, None], around]
        away = (cell[:, None] - cell[:, :, None]) % cells  # [copies, who looks, at whom]
        rows = np.concatenate([np.ones((copies, agents, agents, 1)), np.eye(cells)[away]], -1)
        rows *= alive[:, None, :, None]
        told = rows[:, ~np.eye(agents, dtype=bool)].reshape(copies, agents, (agents - 1) * numbers)
        seen[..., own : own + told.shape[2]] = told
        told_to: np.ndarray = seen * alive[..., None]
        return told_to

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        standing = self._standing(state).reshape(len(state["cell"]), -1)
        return np.concatenate([standing, self._offered(state)], 1)

    def _offered(self, state: State) -> Float[np.ndarray, "copies cells"]:
        """What each cell pays."""
        offered = np.zeros((len(state["site"]), self.cells))
        np.put_along_axis(offered, state["site"], self.sizes[None], 1)
        return offered

    def _standing(self, state: State) -> Float[np.ndarray, "copies agents cells"]:
        """1 for the cell of every agent that is there."""
        standing: np.ndarray = np.eye(self.cells)[state["cell"]] * self.alive(state)[..., None]
        return standing


Likelihoods = Callable[[State], Float[np.ndarray, "copies agents actions"]]


def deviation_gain(
    game: ResourcesGame, likelihoods: Likelihoods, population: int, site: Int64[np.ndarray, " landmarks"]
) -> float:
    """What an agent gains by its best response to the others, in total reward of an episode: exact, by enumeration.

    ``mean over i and starts of max_pi' V_i(pi', pi_-i) - V_i(pi)`` by backward induction over the ``cells ** n`` joint
    cells and ``max_turns`` turns, all starts as likely; 0 in a Nash equilibrium. The one who deviates sees the whole
    state and the turn.

    likelihoods: of every agent's actions in these states; agents choose independently.  population: ``n``.  site: cells
    of the landmarks.

    Raises :class:`InputError` where there are more than 200,000 joint cells.
    """
    cells, actions = game.cells, game.actions
    count = cells**population
    if count > 200_000:
        raise InputError(f"task {game.name}: {population} agents on {cells} cells: too many states to enumerate")
    cell = np.stack(np.unravel_index(np.arange(count), (cells,) * population), 1)
    padded = np.zeros((count, game.agents), dtype=np.int64)
    padded[:, :population] = cell
    state = {
        "seed": np.zeros(count, dtype=np.int64),
        "turn": np.zeros(count, dtype=np.int64),
        "population": np.full(count, population),
        "cell": padded,
        "site": np.broadcast_to(site, (count, len(site))),
    }
    likely = likelihoods(state)[:, :population]
    reward = game.paid(state)[:, :population]
    joint = np.array(list(product(range(actions), repeat=population)))
    # Where each joint action leads: [states, joint actions].
    reached = ((cell[:, None] + game.moves[joint]) % cells) @ cells ** np.arange(population)[::-1]
    each = likely[:, np.arange(population), joint]  # [states, joint actions, agents]
    gains = []
    for agent in range(population):
        others = np.delete(each, agent, 2).prod(2)
        own, best = np.zeros(count), np.zeros(count)
        for _ in range(game.max_turns):
            ahead = others * (reward[:, agent] + np.stack([own, best]))[:, reached]
            by_action = np.stack([ahead[:, :, joint[:, agent] == action].sum(2) for action in range(actions)], 2)
            own, best = (by_action[0] * likely[:, agent]).sum(1), by_action[1].max(1)
        gains.append(float((best - own).mean()))
    return sum(gains) / population


def _listed(populations: tuple[int, ...]) -> str:
    return "+".join(map(str, populations)) if isinstance(populations, tuple) else str(populations)


def from_spec(argument: str | None, options: Mapping[str, Any]) -> ResourcesGame:
    """The task ``resources[:agents=2+4,cells=12,...]``. Raises :class:`InputError` for a wrong option."""
    rest = {name: value for name, value in options.items() if name != "agents"}
    if "populations" in rest:
        raise InputError("task resources: write the numbers of agents as agents = 2+4")
    if "agents" in options:
        numbers = str(options["agents"]).split("+")
        if not all(number.strip().isdigit() for number in numbers):
            raise InputError(f"task resources: agents = {options['agents']}: must be whole numbers, as in 2+4")
        rest["populations"] = tuple(int(number) for number in numbers)
    return configured("resources", ResourcesGame, argument, rest)
