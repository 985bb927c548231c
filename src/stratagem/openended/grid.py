"""Worlds in motion: many grids stepped at once, the truth of predicates, what is paid and what is seen."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from stratagem.openended.predicates import FLOORS, SIGHT
from stratagem.openended.task import ACTIONS, OpenEndedTask, Tasks

NOTHING = -1
"""Held by an agent with empty hands."""

_MOVES = torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])


class Grid:
    """The worlds of ``n`` tasks, all at the same step of their episodes.

    What is of a player has a row for every seat, those of a world side by side; what an object is has one for every
    world. With one player they are the same.
    """

    def __init__(self, universe: OpenEndedTask, tasks: Tasks) -> None:
        self.universe, self.tasks = universe, tasks
        self.agent, self.object = tasks.agent.clone(), tasks.object.clone()
        self.held = torch.full((len(self.agent),), NOTHING)
        self.step_number = 0
        self.wanted = torch.ones(len(self.agent), dtype=torch.bool)
        self._rows = torch.arange(len(tasks))
        self._world = self._rows.repeat_interleave(universe.players)
        self._nearest_floor = _offsets_to_floors(tasks)
        self._goal = tasks.goals.encoded(len(universe.predicates))
        self.truth = self._truth()

    @property
    def done(self) -> bool:
        """Whether the episodes are over."""
        return self.step_number >= self.universe.horizon

    def step(self, action: Int64[Tensor, " seats"]) -> Float32[Tensor, " seats"]:
        """Act everywhere; returns the reward of the state that follows. Raises ``ValueError`` after the last step."""
        if self.done:
            raise ValueError("the episodes are over")
        side = self.universe.side
        ahead = self.agent + _MOVES[action]
        inside = ((ahead >= 0) & (ahead < side)).all(-1)
        cell = ahead.clamp(0, side - 1)
        free = inside & ~self.tasks.wall[self._world, cell[:, 0], cell[:, 1]]
        ahead = torch.where(free.unsqueeze(-1), ahead, self.agent)
        self.agent = ahead if self._alone else self._walked(ahead)
        self._take_or_put(action == ACTIONS.index("hold"))
        holds, place = self._seated(self._holds), self._seated(self.agent)
        for seat in range(self.universe.players):
            self.object = torch.where(holds[:, seat].unsqueeze(-1), place[:, seat : seat + 1], self.object)
        self.step_number += 1
        self.truth = self._truth()
        return self._paid()

    def _seated(self, rows: Tensor) -> Tensor:
        """``[worlds, seats, ...]`` of what has a row for every seat."""
        return rows.view(len(self.tasks), self.universe.players, *rows.shape[1:])

    @property
    def _holds(self) -> Bool[Tensor, "seats objects"]:
        """Whether each object is held in a seat."""
        return torch.arange(self.universe.objects) == self.held.unsqueeze(-1)

    @property
    def _alone(self) -> bool:
        """Whether there are no co-players, who take time."""
        return self.universe.players == 1

    def _walked(self, ahead: Int64[Tensor, "seats 2"]) -> Int64[Tensor, "seats 2"]:
        """These cells; the old one for who would walk into a player that stays, where another goes, or through one."""
        place, wish = self._seated(self.agent), self._seated(ahead)
        moves = (wish != place).any(-1)
        through = _meet(wish, place) & _meet(place, wish)
        # Who is stopped may stop another one, so that as many rounds as players settle everything.
        for _ in range(self.universe.players):
            now = torch.where(moves.unsqueeze(-1), wish, place)
            moves = moves & ~(_meet(now, now) | through).any(-1)
        return torch.where(moves.unsqueeze(-1), wish, place).flatten(0, 1)

    def _take_or_put(self, uses: Bool[Tensor, " seats"]) -> None:
        apart = (self.object.unsqueeze(1) - self._seated(self.agent).unsqueeze(2)).abs().sum(-1)
        taken = self._seated(self._holds).any(1, keepdim=True)
        # What somebody holds is out of reach.
        distance, nearest = apart.masked_fill(taken, 2 * self.universe.side).min(-1)
        empty = self.held == NOTHING
        gets = self._seated(uses & empty) & (distance <= 1)
        if not self._alone:
            gets = gets & ~self._outdone(gets, nearest, distance)
        found = torch.where(gets, nearest, NOTHING).flatten()
        self.held = torch.where(uses, torch.where(empty, found, NOTHING), self.held)

    def _outdone(
        self,
        reaches: Bool[Tensor, "n players"],
        nearest: Int64[Tensor, "n players"],
        distance: Int64[Tensor, "n players"],
    ) -> Bool[Tensor, "n players"]:
        """Whether somebody else reaches for the same object from no further away."""
        same = (nearest.unsqueeze(2) == nearest.unsqueeze(1)) & reaches.unsqueeze(1)
        closer = distance.unsqueeze(1) <= distance.unsqueeze(2)
        return (same & closer & ~torch.eye(self.universe.players, dtype=torch.bool)).any(-1)

    def _paid(self) -> Float32[Tensor, " seats"]:
        holds = self.tasks.goals.truth(self.truth)
        if not self.universe.flips:
            return holds.float()
        reached = holds == self.wanted
        self.wanted = self.wanted ^ reached
        return reached.float()

    def _truth(self) -> Bool[Tensor, "seats predicates"]:
        """Of every predicate of the universe, as each player means it."""
        place, held = self._seated(self.agent), self._seated(self._holds)
        apart = (self.object.unsqueeze(1) - place.unsqueeze(2)).abs()
        near, see = apart.sum(-1) <= 1, apart.amax(-1) <= SIGHT
        cells = torch.cat([place, self.object], 1)
        floor = self.tasks.floor[self._rows.unsqueeze(1), cells[..., 0], cells[..., 1]]
        on = floor.unsqueeze(-1) == torch.arange(len(FLOORS))
        on_players, on_objects = on.split([self.universe.players, self.universe.objects], 1)
        between = _apart(self.object).sum(-1) <= 1
        of_one = (near[:, 0], between, held[:, 0], see[:, 0], on_players[:, 0], on_objects.flatten(1))
        if self._alone:
            return torch.cat(of_one, 1)
        players = _apart(place)
        of_others = (
            players.sum(-1) <= 1,
            near[:, 1:].flatten(1),
            held[:, 1:].flatten(1),
            players.amax(-1) <= SIGHT,
            see[:, 1:].flatten(1),
            on_players[:, 1:].flatten(1),
        )
        truth = torch.cat([*of_one, *of_others], 1)
        return truth[:, self.universe.perspectives].flatten(0, 1)

    # ---- what is seen ----------------------------------------------------------------------------------------------

    @staticmethod
    def state_features(universe: OpenEndedTask) -> int:
        """Numbers that tell the state, which come first in an observation."""
        others = 2 * (universe.players - 1)
        return 2 + 3 * universe.objects + 3 * len(FLOORS) + 4 + others + len(universe.predicates) + 3

    @staticmethod
    def option_features(universe: OpenEndedTask) -> int:
        """Numbers that tell an option of the goal: its literals, whether it is there, and whether it holds."""
        return 2 * len(universe.predicates) + 2

    def observation(self) -> Float32[Tensor, "seats features"]:
        """State, then option after option of the player's own goal.

        The state: where the player is; of every object where it lies from here and whether it is held by the player;
        where the nearest floor of each colour lies, and whether there is one; walls around; where the co-players are
        from here, the next seat first; the truth of all predicates; whether the goal holds, whether it is to, and the
        share of the episode that is left.
        """
        side = self.universe.side
        apart = (self.object[self._world] - self.agent.unsqueeze(1)) / side
        floors = self._nearest_floor[self._world, self.agent[:, 0], self.agent[:, 1]]
        around = self.agent.unsqueeze(1) + _MOVES[1:5]
        outside = ((around < 0) | (around >= side)).any(-1)
        cell = around.clamp(0, side - 1)
        walls = outside | self.tasks.wall[self._world.unsqueeze(1), cell[..., 0], cell[..., 1]]
        place = self._seated(self.agent)
        others = [(place.roll(-seat, 1) - place).flatten(0, 1) / side for seat in range(1, self.universe.players)]
        options = self.tasks.goals.option_truth(self.truth)
        left = torch.full((len(self.agent), 1), 1 - self.step_number / self.universe.horizon)
        goal = torch.cat([self._goal, self.tasks.goals.present.unsqueeze(-1), options.unsqueeze(-1)], -1)
        parts = (
            self.agent / side - 0.5,
            apart.flatten(1),
            self._holds,
            floors.flatten(1),
            walls,
            *others,
            self.truth,
            options.any(-1, keepdim=True),
            self.wanted.unsqueeze(-1),
            left,
            goal.flatten(1),
        )
        return torch.cat([part.float() for part in parts], 1)


def _meet(one: Int64[Tensor, "n players 2"], other: Int64[Tensor, "n players 2"]) -> Bool[Tensor, "n players players"]:
    """Which cell of the first is which cell of the second, except a player's own."""
    same: Tensor = (one.unsqueeze(2) == other.unsqueeze(1)).all(-1)
    return same & ~torch.eye(one.shape[1], dtype=torch.bool)


def _apart(cells: Int64[Tensor, "n things 2"]) -> Int64[Tensor, "n pairs 2"]:
    """Rows and columns between the things of each pair."""
    one, other = torch.triu_indices(cells.shape[1], cells.shape[1], 1)
    return (cells[:, one] - cells[:, other]).abs()


def _offsets_to_floors(tasks: Tasks) -> Float32[Tensor, "n side side floors 3"]:
    """From every cell to the nearest one of each colour: rows and columns as shares of the side, and whether there is
    one."""
    count, side, _ = tasks.floor.shape
    line = torch.arange(side)
    cells = torch.cartesian_prod(line, line)
    steps = (cells.unsqueeze(1) - cells.unsqueeze(0)).abs().sum(-1)
    coloured = tasks.floor.view(count, 1, -1) == torch.arange(len(FLOORS)).view(1, -1, 1)
    # [n, colours, from, to]: as far as anything where the cell has another colour.
    far = torch.where(coloured.unsqueeze(2), steps.view(1, 1, side**2, side**2), 2 * side)
    nearest = far.argmin(-1)
    there = coloured.any(-1).view(count, -1, 1, 1).expand(-1, -1, side**2, 1)
    offset = (cells[nearest] - cells) / side
    told = torch.cat([torch.where(there, offset, 0.0), there.float()], -1)
    return told.permute(0, 2, 1, 3).reshape(count, side, side, len(FLOORS), 3).float()
