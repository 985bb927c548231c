"""Grids of four-connected cells: rooms drawn at random, exact costs to a goal, plans, and moves that collide.

A cell is its number, ``row * width + column``. Everything is for many grids or many goals at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
"""Stay, up, down, left, right."""

GRAIN = 2.0**-20
"""Costs of cells are multiples of this, so that sums of them in any order are the same number and ties are exact."""

CHUNK = 2**22
"""Numbers of a temporary array."""


def costs_to_go(
    cost: Float[np.ndarray, "rows height width"], goal: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows height width"]:
    """``E(v) = c(v) + min over neighbours w of E(w)``, and ``E(goal) = c(goal)``: entering v and going on to the goal.

    cost: of entering each cell, above 0, infinite for a wall. What cannot reach the goal costs infinity.

    Cells are relaxed along columns down and up and along rows right and left until nothing changes, all rows of the
    batch in each step; a grid takes about as many rounds as its longest best path has bends.
    """
    rows, height, width = cost.shape
    entering = np.ascontiguousarray(cost.transpose(1, 2, 0))
    best = np.full(entering.shape, np.inf)
    place = (goal // width, goal % width, np.arange(rows))
    best[place] = entering[place]
    done = np.empty_like(best)
    left, out = np.arange(rows), best
    while len(left):
        before = best.copy()
        for row in range(1, height):
            np.minimum(best[row], best[row - 1] + entering[row], out=best[row])
        for row in range(height - 2, -1, -1):
            np.minimum(best[row], best[row + 1] + entering[row], out=best[row])
        for column in range(1, width):
            np.minimum(best[:, column], best[:, column - 1] + entering[:, column], out=best[:, column])
        for column in range(width - 2, -1, -1):
            np.minimum(best[:, column], best[:, column + 1] + entering[:, column], out=best[:, column])
        moving = (best != before).any((0, 1))
        if moving.mean() > 0.5:
            continue
        done[:, :, left[~moving]] = best[:, :, ~moving]
        left, best, entering = left[moving], best[:, :, moving], entering[:, :, moving]
    out = done.transpose(2, 0, 1)
    return out


def mean_distances(wall: Bool[np.ndarray, "maps height width"]) -> Float[np.ndarray, "maps height width"]:
    """Of every free cell the mean length of shortest paths to all other cells that can be reached.

    Not a number for walls, and for a cell from which no other can be reached.
    """
    _, height, width = wall.shape
    mean = np.full(wall.shape, np.nan)
    plain = np.where(wall, np.inf, 1.0)
    number, row, column = np.nonzero(~wall)
    size = max(1, CHUNK // (height * width))
    for first in range(0, len(number), size):
        some = slice(first, first + size)
        goal = row[some] * width + column[some]
        distance = costs_to_go(plain[number[some]], goal) - 1.0
        reached = np.isfinite(distance)
        others = reached.sum((1, 2)) - 1
        total = np.where(reached, distance, 0.0).sum((1, 2))
        mean[number[some], row[some], column[some]] = np.where(others > 0, total / np.maximum(others, 1), np.nan)
    return mean


def static_costs(wall: Bool[np.ndarray, "maps height width"]) -> Float[np.ndarray, "maps height width"]:
    """``c_s(v) = max_w d(w) / d(v)`` with ``d`` the mean distance: 1 at the most remote cell, more in the middle.

    Rounded to multiples of :data:`GRAIN`. Infinite for walls and cells from which no other can be reached. Cost of
    arXiv 2310.01207.
    """
    mean = mean_distances(wall)
    usable = ~np.isnan(mean)
    most = np.where(usable, mean, 0.0).max((1, 2), keepdims=True)
    ratio = np.divide(most, mean, out=np.full(mean.shape, np.inf), where=usable)
    rounded: np.ndarray = np.where(usable, np.round(np.where(usable, ratio, 1.0) / GRAIN) * GRAIN, np.inf)
    return rounded


class Plan(NamedTuple):
    """What an agent plans. waypoint: the next cell; the goal where no path leads there.

    path: cells of its path, the own one among them, in a window around it, up to the first one outside.
    """

    waypoint: Int64[np.ndarray, " rows"]
    path: Bool[np.ndarray, "rows side side"]


def plan(
    cost: Float[np.ndarray, "rows height width"],
    cell: Int64[np.ndarray, " rows"],
    goal: Int64[np.ndarray, " rows"],
    radius: int,
) -> Plan:
    """A cheapest path from each cell to its goal, seen in a window of ``2 * radius + 1`` cells a side.

    Of moves that cost the same the first in the order of :data:`MOVES` is taken, so a plan made anew along a path is
    the rest of it.
    """
    rows, _, width = cost.shape
    go = np.pad(costs_to_go(cost, goal), ((0, 0), (1, 1), (1, 1)), constant_values=np.inf)
    side = 2 * radius + 1
    path = np.zeros((rows, side, side), dtype=bool)
    row, column = cell // width, cell % width
    waypoint = np.where(cell == goal, cell, -1)
    on = np.flatnonzero((cell == goal) | np.isfinite(_around(go, np.arange(rows), row, column)).any(1))
    at_row, at_column = row[on], column[on]
    first = True
    while len(on):
        away_row, away_column = at_row - row[on], at_column - column[on]
        path[on, away_row + radius, away_column + radius] = True
        there = at_row * width + at_column == goal[on]
        on, at_row, at_column = on[~there], at_row[~there], at_column[~there]
        move = MOVES[1 + _around(go, on, at_row, at_column).argmin(1)]
        at_row, at_column = at_row + move[:, 0], at_column + move[:, 1]
        if first:
            waypoint[on] = at_row * width + at_column
            first = False
        inside = np.maximum(np.abs(at_row - row[on]), np.abs(at_column - column[on])) <= radius
        on, at_row, at_column = on[inside], at_row[inside], at_column[inside]
    return Plan(np.where(waypoint < 0, goal, waypoint), path)


def _around(go: np.ndarray, which: np.ndarray, row: np.ndarray, column: np.ndarray) -> Float[np.ndarray, "rows 4"]:
    """What it costs to go on by each move, of padded costs."""
    around: np.ndarray = go[which[:, None], row[:, None] + 1 + MOVES[1:, 0], column[:, None] + 1 + MOVES[1:, 1]]
    return around


def moved(
    wall: Bool[np.ndarray, "copies height width"],
    cell: Int64[np.ndarray, "copies agents"],
    action: Int64[np.ndarray, "copies agents"],
) -> Int64[np.ndarray, "copies agents"]:
    """Where agents are who all move at once by :data:`MOVES`.

    Moves into walls, out of the grid, and of two who would change places are cancelled. Of several who want one cell
    the one who stays there has it, else the lowest number, and a cancelled move cancels those that counted on it. Who
    follows another, also around a ring, moves. These are POGEMA's soft collisions.
    """
    copies, height, width = wall.shape
    own, (down, right) = np.arange(copies)[:, None], MOVES[action].transpose(2, 0, 1)
    row, column = cell // width + down, cell % width + right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    aim = np.where(inside, row * width + column, cell)
    aim = np.where(wall.reshape(copies, -1)[own, aim], cell, aim)
    occupant = np.full((copies, height * width), -1)
    occupant[own, cell] = np.arange(cell.shape[1])
    met = occupant[own, aim]
    swap = (met >= 0) & (aim != cell) & (aim[own, met] == cell)
    aim = np.where(swap, cell, aim)
    while True:
        owner = np.full((copies, height * width), cell.shape[1])
        np.minimum.at(owner, (own, aim), np.where(aim == cell, -1, np.arange(cell.shape[1])))
        mine = owner[own, aim]
        lost = (aim != cell) & (mine != np.arange(cell.shape[1]))
        if not lost.any():
            return aim
        aim = np.where(lost, cell, aim)


def largest_rooms(wall: Bool[np.ndarray, "maps height width"]) -> Bool[np.ndarray, "maps height width"]:
    """Walls such that only the largest connected part of each map is free; of equal ones, the first."""
    from scipy import ndimage

    cross = np.zeros((3, 3, 3), dtype=bool)
    cross[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(~wall, cross)
    maps = len(wall)
    size = np.zeros((maps, count + 1), dtype=np.int64)
    np.add.at(size, (np.arange(maps)[:, None], labels.reshape(maps, -1)), 1)
    size[:, 0] = 0
    kept: np.ndarray = (labels != size.argmax(1)[:, None, None]) | wall
    return kept


def free_cell(
    free: Bool[np.ndarray, "rows cells"], chance: Float[np.ndarray, " rows"], other: Int64[np.ndarray, " rows"]
) -> Int64[np.ndarray, " rows"]:
    """A free cell other than ``other``, each as likely. Every row needs one; ``chance`` is in [0, 1)."""
    free = free.copy()
    free[np.arange(len(free)), other] = False
    rank = free.cumsum(1)
    wanted = np.floor(chance * rank[:, -1]).astype(np.int64)
    chosen: np.ndarray = (rank > wanted[:, None]).argmax(1)
    return chosen
