"""Ways to act in pathfinding that nothing is learned by: keeping to the plan, detours, and priorities (PIBT)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64

from stratagem.errors import InputError
from stratagem.multiagent.game import Frame, State
from stratagem.multiagent.grids import MOVES, costs_to_go

if TYPE_CHECKING:
    from stratagem.multiagent.pathfinding import PathfindingGame
    from stratagem.multiagent.policy import AgentsPolicy

Controller = Callable[[State, np.random.Generator], np.ndarray]
"""Moves [copies, agents] of all agents, given the state of a :class:`~stratagem.multiagent.PathfindingGame`."""


def planned(detour: float = 0.0) -> Controller:
    """Each agent moves to its waypoint, or, with probability ``detour``, by any move or none, each as likely.

    Raises :class:`InputError` for a probability outside [0, 1].
    """
    if not 0 <= detour <= 1:
        raise InputError(f"detour = {detour}: must be in [0, 1]")

    def act(state: State, noise: np.random.Generator) -> np.ndarray:
        action = moves_to(state["waypoint"], state["cell"], state["wall"].shape[2])
        away = noise.random(action.shape) < detour
        return np.where(away, noise.integers(len(MOVES), size=action.shape), action)

    return act


def moves_to(
    aim: Int64[np.ndarray, "copies agents"], cell: Int64[np.ndarray, "copies agents"], width: int
) -> Int64[np.ndarray, "copies agents"]:
    """The move that leads from each cell to one next to it; for another cell, none."""
    step = np.stack([aim // width - cell // width, aim % width - cell % width], -1)
    matches = (step[..., None, :] == MOVES).all(-1)
    action: np.ndarray = matches.argmax(-1)
    return action


def pibt(state: State, noise: np.random.Generator) -> np.ndarray:
    """Priority inheritance with backtracking (Okumura and others, 2022), by one mind that sees all agents.

    Agents choose in the order of how long they have had their goals, each the free cell next to it that is nearest to
    its goal; who stands there must choose at once, and may say that there is no way. Ties are broken at random.
    """
    wall, cell, goal = state["wall"], state["cell"], state["goal"]
    copies, height, width = wall.shape
    agents = cell.shape[1]
    plain = np.repeat(np.where(wall, np.inf, 1.0), agents, 0)
    go = costs_to_go(plain, goal.reshape(-1)).reshape(copies, agents, -1)
    priority = state["waited"] + noise.random(cell.shape)
    aims = [
        _inherited(go[copy], cell[copy].tolist(), priority[copy], noise.random((agents, len(MOVES))), height, width)
        for copy in range(copies)
    ]
    return moves_to(np.array(aims), cell, width)


def _inherited(
    go: Float[np.ndarray, "agents cells"],
    cell: list[int],
    priority: Float[np.ndarray, " agents"],
    ties: Float[np.ndarray, "agents moves"],
    height: int,
    width: int,
) -> list[int]:
    """The cells that agents of one copy go to."""
    occupant = {place: agent for agent, place in enumerate(cell)}
    aim: list[int | None] = [None] * len(cell)
    taken: set[int] = set()

    def choose(agent: int, pushed_from: int | None) -> bool:
        for place in _nearest(go[agent], cell[agent], ties[agent], height, width):
            if place in taken or place == pushed_from:
                continue
            taken.add(place)
            aim[agent] = place
            other = occupant.get(place)
            if other is None or other == agent or aim[other] is not None or choose(other, cell[agent]):
                return True
        aim[agent] = cell[agent]
        taken.add(cell[agent])
        return False

    for agent in np.argsort(-priority).tolist():
        if aim[agent] is None:
            choose(agent, None)
    return [place for place in aim if place is not None]


def _nearest(
    go: Float[np.ndarray, " cells"], cell: int, ties: Float[np.ndarray, " moves"], height: int, width: int
) -> list[int]:
    """The own cell and those next to it that are free, nearest to the goal first."""
    row, column = divmod(cell, width)
    reached = [(row + down, column + right) for down, right in MOVES.tolist()]
    places = [
        (r * width + c, tie) for (r, c), tie in zip(reached, ties, strict=True) if 0 <= r < height and 0 <= c < width
    ]
    ranked = sorted((go[place], tie, place) for place, tie in places if np.isfinite(go[place]))
    return [place for _, _, place in ranked]


def learned(game: PathfindingGame, policy: AgentsPolicy) -> Controller:
    """How a policy acts, drawn from what it says; what agents remember is carried from turn to turn of an episode."""
    act, memory = policy.acting(), None

    def move(state: State, noise: np.random.Generator) -> np.ndarray:
        nonlocal memory
        alive = np.ones(state["cell"].shape, dtype=bool)
        nothing = np.zeros((len(alive), 0), dtype=np.float32)
        frame = Frame(game.observe(state).astype(np.float32), nothing, game.legal(state), alive)
        # All copies begin at once.
        acted = act(frame, noise, memory if state["turn"].any() else None)
        memory = acted.memory
        return acted.action

    return move


def throughput(
    game: PathfindingGame, controller: Controller, seeds: Int64[np.ndarray, " episodes"], noise: np.random.Generator
) -> Float[np.ndarray, " episodes"]:
    """Goals that all agents together reached, per turn, in the episodes with these seeds, played side by side."""
    state = {"seed": seeds, "turn": np.zeros_like(seeds), **game.begin(seeds)}
    for _ in range(game.max_turns):
        changed, _, _ = game.transition(state, controller(state, noise))
        state = {**state, **changed, "turn": state["turn"] + 1}
    reached: np.ndarray = state["reached"].sum(1) / game.max_turns
    return reached
