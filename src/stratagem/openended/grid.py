"""Worlds in motion: many grids stepped at once, the truth of predicates, what is paid and what is seen."""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from stratagem.openended.task import ACTIONS, FLOORS, SIGHT, OpenEndedTask, Tasks

NOTHING = -1
"""Held by an agent with empty hands."""

_MOVES = torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])


class Grid:
    """The worlds of ``n`` tasks, all at the same step of their episodes."""

    def __init__(self, universe: OpenEndedTask, tasks: Tasks) -> None:
        self.universe, self.tasks = universe, tasks
        self.agent, self.object = tasks.agent.clone(), tasks.object.clone()
        self.held = torch.full((len(tasks),), NOTHING)
        self.step_number = 0
        self.wanted = torch.ones(len(tasks), dtype=torch.bool)
        self._rows = torch.arange(len(tasks))
        self._nearest_floor = _offsets_to_floors(tasks)
        self._goal = tasks.goals.encoded(len(universe.predicates))
        self.truth = self._truth()

    @property
    def done(self) -> bool:
        """Whether the episodes are over."""
        return self.step_number >= self.universe.horizon

    def step(self, action: Int64[Tensor, " n"]) -> Float32[Tensor, " n"]:
        """Act everywhere; returns the reward of the state that follows. Raises ``ValueError`` after the last step."""
        if self.done:
            raise ValueError("the episodes are over")
        side = self.universe.side
        ahead = self.agent + _MOVES[action]
        inside = ((ahead >= 0) & (ahead < side)).all(-1)
        cell = ahead.clamp(0, side - 1)
        free = inside & ~self.tasks.wall[self._rows, cell[:, 0], cell[:, 1]]
        self.agent = torch.where(free.unsqueeze(-1), ahead, self.agent)
        self._take_or_put(action == ACTIONS.index("hold"))
        carried = torch.arange(self.universe.objects) == self.held.unsqueeze(-1)
        self.object = torch.where(carried.unsqueeze(-1), self.agent.unsqueeze(1), self.object)
        self.step_number += 1
        self.truth = self._truth()
        return self._paid()

    def _take_or_put(self, uses: Bool[Tensor, " n"]) -> None:
        apart = (self.object - self.agent.unsqueeze(1)).abs().sum(-1)
        nearest = apart.argmin(-1)
        within = apart.gather(1, nearest.unsqueeze(-1)).squeeze(-1) <= 1
        taken = torch.where(within, nearest, NOTHING)
        self.held = torch.where(uses, torch.where(self.held == NOTHING, taken, NOTHING), self.held)

    def _paid(self) -> Float32[Tensor, " n"]:
        holds = self.tasks.goals.truth(self.truth)
        if not self.universe.flips:
            return holds.float()
        reached = holds == self.wanted
        self.wanted = self.wanted ^ reached
        return reached.float()

    def _truth(self) -> Bool[Tensor, "n predicates"]:
        """Of every predicate of the universe."""
        apart = (self.object - self.agent.unsqueeze(1)).abs()
        pairs = list(combinations(range(self.universe.objects), 2))
        steps = [(self.object[:, one] - self.object[:, other]).abs().sum(-1, keepdim=True) for one, other in pairs]
        cells = torch.cat([self.agent.unsqueeze(1), self.object], 1)
        floor = self.tasks.floor[self._rows.unsqueeze(1), cells[..., 0], cells[..., 1]]
        on = (floor.unsqueeze(-1) == torch.arange(len(FLOORS))).flatten(1)
        held = torch.arange(self.universe.objects) == self.held.unsqueeze(-1)
        return torch.cat([apart.sum(-1) <= 1, *(step <= 1 for step in steps), held, apart.amax(-1) <= SIGHT, on], 1)

    # ---- what is seen ----------------------------------------------------------------------------------------------

    @staticmethod
    def state_features(universe: OpenEndedTask) -> int:
        """Numbers that tell the state, which come first in an observation."""
        return 2 + 3 * universe.objects + 3 * len(FLOORS) + 4 + len(universe.predicates) + 3

    @staticmethod
    def option_features(universe: OpenEndedTask) -> int:
        """Numbers that tell an option of the goal: its literals, whether it is there, and whether it holds."""
        return 2 * len(universe.predicates) + 2

    def observation(self) -> Float32[Tensor, "n features"]:
        """State, then option after option of the goal.

        The state: where the agent is; of every object where it lies from here and whether it is held; where the nearest
        floor of each colour lies, and whether there is one; walls around; the truth of all predicates; whether the
        goal holds, whether it is to, and the share of the episode that is left.
        """
        side = self.universe.side
        apart = (self.object - self.agent.unsqueeze(1)) / side
        held = torch.arange(self.universe.objects) == self.held.unsqueeze(-1)
        floors = self._nearest_floor[self._rows, self.agent[:, 0], self.agent[:, 1]]
        around = self.agent.unsqueeze(1) + _MOVES[1:5]
        outside = ((around < 0) | (around >= side)).any(-1)
        cell = around.clamp(0, side - 1)
        walls = outside | self.tasks.wall[self._rows.unsqueeze(1), cell[..., 0], cell[..., 1]]
        options = self.tasks.goals.option_truth(self.truth)
        left = torch.full((len(self.tasks), 1), 1 - self.step_number / self.universe.horizon)
        goal = torch.cat([self._goal, self.tasks.goals.present.unsqueeze(-1), options.unsqueeze(-1)], -1)
        parts = (
            self.agent / side - 0.5,
            apart.flatten(1),
            held,
            floors.flatten(1),
            walls,
            self.truth,
            options.any(-1, keepdim=True),
            self.wanted.unsqueeze(-1),
            left,
            goal.flatten(1),
        )
        return torch.cat([part.float() for part in parts], 1)


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
