from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from stratagem.multiagent.grids import (
    GRAIN,
    MOVES,
    costs_to_go,
    free_cell,
    largest_rooms,
    mean_distances,
    moved,
    plan,
    static_costs,
)

STAY, UP, DOWN, LEFT, RIGHT = range(5)


def walls(*rows: str) -> np.ndarray:
    return np.array([[[cell == "#" for cell in row] for row in rows]])


def neighbours(cell: int, height: int, width: int) -> list[int]:
    row, column = divmod(cell, width)
    around = [(row + down, column + right) for down, right in MOVES[1:].tolist()]
    return [r * width + c for r, c in around if 0 <= r < height and 0 <= c < width]


def a_star(cost: np.ndarray, start: int, goal: int, guess: np.ndarray) -> tuple[float, list[int]]:
    """The cheapest path; of equal estimates the smaller cost so far is looked at first."""
    height, width = cost.shape
    flat, known, parent = cost.reshape(-1), {start: 0.0}, {start: start}
    queue, closed = [(guess[start], 0.0, start)], set()
    while queue:
        _, so_far, cell = heapq.heappop(queue)
        if cell == goal:
            path = [cell]
            while path[-1] != start:
                path.append(parent[path[-1]])
            return so_far, path[::-1]
        if cell in closed:
            continue
        closed.add(cell)
        for near in neighbours(cell, height, width):
            reached = so_far + flat[near]
            if np.isfinite(reached) and reached < known.get(near, np.inf):
                known[near], parent[near] = reached, cell
                heapq.heappush(queue, (reached + guess[near], reached, near))
    return np.inf, []


def remaining(cost: np.ndarray, goal: int) -> np.ndarray:
    """By scipy: what the way from each cell to the goal costs."""
    height, width = cost.shape
    edges = [(cell, near) for cell in range(height * width) for near in neighbours(cell, height, width)]
    flat = cost.reshape(-1)
    edges = [(a, b) for a, b in edges if np.isfinite(flat[a]) and np.isfinite(flat[b])]
    ends = np.array(edges).reshape(-1, 2)
    graph = csr_array((flat[ends[:, 1]], (ends[:, 1], ends[:, 0])), shape=(flat.size, flat.size))
    return np.asarray(dijkstra(graph, indices=goal))


def random_maps(count: int, size: int = 8, density: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs without and with crowds, and goals that are free."""
    rng = np.random.default_rng(7)
    wall = largest_rooms(rng.random((count, size, size)) < density)
    still = static_costs(wall)
    crowd = rng.integers(0, 4, wall.shape) * (rng.random(wall.shape) < 0.3)
    goal = np.array([rng.choice(np.flatnonzero(~one.reshape(-1))) for one in wall])
    return still, still + crowd, goal


def test_mean_distances_and_static_costs_of_an_open_square() -> None:
    wall = walls("...", "...", "...")
    assert mean_distances(wall)[0].tolist() == [[2.25, 1.875, 2.25], [1.875, 1.5, 1.875], [2.25, 1.875, 2.25]]
    assert static_costs(wall)[0] == pytest.approx(np.array([[1, 1.2, 1], [1.2, 1.5, 1.2], [1, 1.2, 1]]), abs=GRAIN)


def test_the_way_along_the_rim_is_cheaper_than_through_the_middle() -> None:
    cost = static_costs(walls("...", "...", "..."))
    go = costs_to_go(cost, np.array([8]))[0]
    assert min(go[0, 1], go[1, 0]) == pytest.approx(4.4, abs=5 * GRAIN)
    assert cost[0, 0, 1] + go[1, 1] == pytest.approx(4.9, abs=5 * GRAIN)
    made = plan(cost, np.array([0]), np.array([8]), 2)
    assert not made.path[0, 3, 3] and made.path[0].sum() == 5


def test_mean_distances_and_static_costs_of_a_corridor() -> None:
    wall = walls(".....")
    assert mean_distances(wall)[0, 0].tolist() == [2.5, 1.75, 1.5, 1.75, 2.5]
    expected = [1, 1.428571, 1.666667, 1.428571, 1]
    assert static_costs(wall)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_a_cell_from_which_nothing_can_be_reached_is_no_free_cell() -> None:
    wall = walls(".#..", "##..", "....")
    assert np.isnan(mean_distances(wall)[0, 0, 0]) and np.isinf(static_costs(wall)[0, 0, 0])
    assert largest_rooms(wall)[0, 0, 0] and largest_rooms(wall).sum() == 4


def test_mean_distances_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = largest_rooms(np.random.default_rng(0).random((3, 6, 7)) < 0.3)
    whole = mean_distances(wall)
    monkeypatch.setattr("stratagem.multiagent.grids.CHUNK", 100)
    assert np.array_equal(mean_distances(wall), whole, equal_nan=True)


def test_costs_to_go_are_those_of_dijkstra_and_a_star_on_a_hundred_maps() -> None:
    still, cost, goal = random_maps(100)
    go = costs_to_go(cost, goal)
    for number in range(100):
        left = remaining(cost[number], int(goal[number]))
        guess = remaining(still[number], int(goal[number]))
        assert np.array_equal(
            go[number].reshape(-1), np.where(np.isfinite(left), left + cost[number].reshape(-1), np.inf)
        )
        assert (guess <= left).all()  # The static cost never overestimates.
        start = int(np.flatnonzero(np.isfinite(left))[0])
        assert a_star(cost[number], start, int(goal[number]), guess)[0] == left[start]


def test_the_waypoint_is_the_second_cell_of_a_path_that_costs_what_a_star_finds() -> None:
    still, cost, goal = random_maps(60)
    rng = np.random.default_rng(1)
    cell = np.array([rng.choice(np.flatnonzero(np.isfinite(one.reshape(-1)))) for one in cost])
    made = plan(cost, cell, goal, 9)
    for number in range(60):
        left = remaining(cost[number], int(goal[number]))
        best, path = a_star(cost[number], int(cell[number]), int(goal[number]), remaining(still[number], goal[number]))
        step = int(made.waypoint[number])
        assert best == left[cell[number]]
        if cell[number] != goal[number]:
            assert cost[number].reshape(-1)[step] + left[step] == best
            marked = np.argwhere(made.path[number]) - 9 + np.divmod(cell[number], 8)
            entered = [cost[number][row, column] for row, column in marked.tolist() if row * 8 + column != cell[number]]
            assert sum(entered) == best and len(path) >= 2


def test_a_plan_made_anew_along_a_path_is_the_rest_of_it() -> None:
    _, cost, goal = random_maps(40)
    cell = np.array([np.flatnonzero(np.isfinite(one.reshape(-1)))[-1] for one in cost])
    for _ in range(6):
        made = plan(cost, cell, goal, 8)
        after = plan(cost, made.waypoint, goal, 8)
        away = made.path.sum((1, 2)) - after.path.sum((1, 2))
        assert np.array_equal(away, (cell != goal).astype(int))
        cell = made.waypoint


def test_where_no_path_leads_the_goal_is_the_waypoint_and_no_cell_is_marked() -> None:
    cost = np.where(walls("..#.", "..#.", "..#."), np.inf, 1.0)
    made = plan(cost, np.array([0]), np.array([3]), 2)
    assert made.waypoint.tolist() == [3] and not made.path.any()
    walled = plan(cost, np.array([0]), np.array([2]), 2)
    assert walled.waypoint.tolist() == [2] and not walled.path.any()


def test_on_its_goal_an_agent_plans_to_stay() -> None:
    made = plan(np.ones((1, 3, 3)), np.array([4]), np.array([4]), 1)
    assert made.waypoint.tolist() == [4] and made.path[0].sum() == 1 and made.path[0, 1, 1]


def test_marking_stops_at_the_first_cell_outside_the_window() -> None:
    wall = walls("#.###", "..#..", ".###.", ".....")
    cost = np.where(wall, np.inf, 1.0)
    made = plan(cost, np.array([5 + 1]), np.array([5 + 3]), 2)  # Leaves the window and comes back into it.
    side = np.argwhere(made.path[0]) - 2
    assert sorted(map(tuple, side.tolist())) == [(0, -1), (0, 0), (1, -1), (2, -1), (2, 0), (2, 1), (2, 2)]
    near = plan(cost, np.array([5 + 1]), np.array([5 + 3]), 1)
    assert sorted(map(tuple, (np.argwhere(near.path[0]) - 1).tolist())) == [(0, -1), (0, 0), (1, -1)]


# ---- moves ----------------------------------------------------------------------------------------------------------


def after(rows: tuple[str, ...], cell: list[int], action: list[int]) -> list[int]:
    return list(moved(walls(*rows), np.array([cell]), np.array([action]))[0].tolist())


@pytest.mark.parametrize(
    ("cell", "action", "expected"),
    [
        ([0, 2], [RIGHT, LEFT], [1, 2]),  # One cell is wanted by both: the lower number has it.
        ([2, 0], [LEFT, RIGHT], [1, 0]),
        ([0, 1], [RIGHT, LEFT], [0, 1]),  # They would change places.
        ([0, 1], [RIGHT, STAY], [0, 1]),  # Somebody stays there.
        ([1, 0], [STAY, RIGHT], [1, 0]),
        ([0, 1], [RIGHT, RIGHT], [1, 2]),  # One follows the other.
        ([1, 2, 0], [RIGHT, RIGHT, RIGHT], [1, 2, 0]),  # The first of the line is stopped by the edge, so all are.
        ([0, 1, 4, 3], [RIGHT, DOWN, LEFT, UP], [1, 4, 3, 0]),  # A ring turns.
        ([0, 1, 4, 3], [RIGHT, DOWN, LEFT, STAY], [0, 1, 4, 3]),
        ([0, 2, 1], [UP, DOWN, LEFT], [0, 5, 1]),
    ],
)
def test_moves_that_collide_are_cancelled(cell: list[int], action: list[int], expected: list[int]) -> None:
    assert after(("...", "..."), cell, action) == expected


def test_walls_stop_moves() -> None:
    assert after((".#.",), [0, 2], [RIGHT, LEFT]) == [0, 2]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_agents_are_never_in_one_cell_in_a_wall_or_further_than_a_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wall = largest_rooms(rng.random((3, 4, 5)) < 0.2)
    agents = min(6, int((~wall).sum((1, 2)).min()))
    cell = np.array([rng.permutation(np.flatnonzero(~one.reshape(-1)))[:agents] for one in wall])
    action = rng.integers(0, 5, cell.shape)
    there = moved(wall, cell, action)
    for copy in range(3):
        assert len(set(there[copy].tolist())) == agents and not wall[copy].reshape(-1)[there[copy]].any()
        for agent in range(agents):
            was, now = (np.array(divmod(int(one[copy, agent]), 5)) for one in (cell, there))
            assert (now == was).all() or (now == was + MOVES[action[copy, agent]]).all()
            assert not any(
                there[copy, other] == cell[copy, agent] != cell[copy, other] and there[copy, agent] == cell[copy, other]
                for other in range(agents)
            )


def test_free_cells_are_all_drawn_but_the_one_that_is_left_out() -> None:
    free = np.repeat([[True, False, True, True]], 300, 0)
    drawn = free_cell(free, np.linspace(0, 1, 300, endpoint=False), np.full(300, 2))
    assert np.bincount(drawn).tolist() == [150, 0, 0, 150]
