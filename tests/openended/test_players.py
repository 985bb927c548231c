"""Worlds with several players: what is true, who walks where, who holds what, and that seats do not matter."""

from __future__ import annotations

import pytest
import torch

from stratagem.openended import Goals, Grid, OpenEndedTask, Tasks
from stratagem.openended.task import ACTIONS
from stratagem.seeding import generator

STATE_BEFORE_OTHERS = 2 + 9 + 9 + 4
"""Features of an observation of three objects that come before where the co-players are."""


def _world(players: list[tuple[int, int]], things: list[tuple[int, int]], *goals: str) -> Grid:
    """An open world of side 7, with red floor in row 2, column 2; each goal is one predicate."""
    universe = OpenEndedTask(horizon=8, players=len(players))
    floor = torch.full((1, 7, 7), -1)
    floor[0, 2, 2] = 0
    wanted = [*goals, *["hold ball"] * (len(players) - len(goals))]
    each = [Goals.single([[(name, True)], []], universe.predicates) for name in wanted]
    tasks = Tasks(
        torch.tensor([0]),
        torch.zeros(1, 7, 7, dtype=torch.bool),
        floor,
        torch.tensor(players),
        torch.tensor([things]),
        Goals(torch.cat([goal.atom for goal in each]), torch.cat([goal.negated for goal in each])),
    )
    return Grid(universe, tasks)


def _act(grid: Grid, *actions: str) -> list[float]:
    return grid.step(torch.tensor([ACTIONS.index(action) for action in actions])).tolist()


def _true(grid: Grid, seat: int) -> set[str]:
    return {name for name, holds in zip(grid.universe.predicates, grid.truth[seat].tolist(), strict=True) if holds}


THINGS = [(0, 1), (2, 3), (6, 6)]


def test_predicates_are_true_as_each_player_means_them():
    grid = _world([(0, 0), (2, 2)], THINGS)
    assert _true(grid, 0) == {
        *("near agent ball", "see ball", "see player1", "see player1 ball", "see player1 box"),
        *("near player1 box", "on player1 red"),
    }
    assert _true(grid, 1) == {
        *("near agent box", "see box", "see ball", "on agent red", "see player1", "see player1 ball"),
        "near player1 ball",
    }
    _act(grid, "hold", "hold")
    assert {"hold ball", "hold player1 box"} <= _true(grid, 0) and {"hold box", "hold player1 ball"} <= _true(grid, 1)
    assert grid.object[0, :2].tolist() == [[0, 0], [2, 2]], "what is held is where its holder is"
    _act(grid, "south", "stay"), _act(grid, "east", "stay")
    assert "near agent player1" not in _true(grid, 0), "two steps away"
    _act(grid, "south", "stay")
    assert "near agent player1" in _true(grid, 0) & _true(grid, 1)


@pytest.mark.parametrize(
    ("distance", "near", "seen"), [((0, 1), 1, 1), ((1, 1), 0, 1), ((2, 2), 0, 1), ((0, 3), 0, 0), ((3, 0), 0, 0)]
)
def test_near_is_one_step_and_seen_is_two_rows_and_columns(distance, near, seen):
    grid = _world([(3, 3), (3 + distance[0], 3 + distance[1])], [(6, 6), (0, 6), (6, 0)])
    for seat in (0, 1):
        true = _true(grid, seat)
        assert ("near agent player1" in true, "see player1" in true) == (bool(near), bool(seen))


def test_predicates_between_two_others_are_told_to_the_third():
    grid = _world([(0, 0), (5, 5), (5, 6)], [(0, 6), (6, 0), (3, 0)])
    assert _true(grid, 0) >= {"near player1 player2", "see player1 player2"}
    assert "near agent player1" in _true(grid, 1) and "near agent player2" not in _true(grid, 1)
    assert "near agent player2" in _true(grid, 2) and "near agent player1" not in _true(grid, 2)


@pytest.mark.parametrize(
    ("players", "actions", "after"),
    [
        ([(0, 0), (0, 1)], ("east", "stay"), [(0, 0), (0, 1)]),  # into one that stays
        ([(0, 0), (0, 1)], ("east", "east"), [(0, 1), (0, 2)]),  # behind one that leaves
        ([(0, 0), (0, 1)], ("east", "west"), [(0, 0), (0, 1)]),  # through each other
        ([(0, 0), (0, 2)], ("east", "west"), [(0, 0), (0, 2)]),  # into one cell
        ([(0, 0), (0, 1)], ("east", "north"), [(0, 0), (0, 1)]),  # into one whom the edge stops
        ([(0, 0), (0, 1), (0, 2)], ("east", "east", "stay"), [(0, 0), (0, 1), (0, 2)]),  # in a row that stops
        ([(0, 0), (0, 1), (0, 2)], ("east", "east", "east"), [(0, 1), (0, 2), (0, 3)]),  # in a row that goes on
        ([(0, 0), (0, 1), (0, 3)], ("east", "east", "west"), [(0, 0), (0, 1), (0, 3)]),  # behind one who meets a third
    ],
)
def test_players_are_solid(players, actions, after):
    grid = _world(players, [(6, 6), (6, 0), (3, 0)])
    _act(grid, *actions)
    assert [tuple(cell) for cell in grid.agent.tolist()] == after


def test_an_object_is_held_by_one_player_who_keeps_it_until_it_is_put_down():
    grid = _world([(0, 0), (0, 2)], [(0, 1), (6, 0), (6, 6)])
    assert _act(grid, "hold", "hold") == [0, 0], "equally near: nobody gets it"
    assert _act(grid, "east", "stay") == [0, 0]
    assert _act(grid, "hold", "hold") == [1, 0], "the nearer one gets it"
    assert _act(grid, "stay", "hold") == [1, 0], "and keeps it"
    assert _act(grid, "hold", "hold") == [0, 0], "put down in this step, it is free in the next"
    assert _act(grid, "stay", "hold") == [0, 1]


def test_who_cannot_reach_what_is_held_takes_the_next_object():
    grid = _world([(0, 0), (0, 2)], [(0, 1), (1, 2), (6, 6)])
    _act(grid, "hold", "stay")
    _act(grid, "stay", "hold")
    assert grid.held.tolist() == [0, 1]


def test_each_player_is_paid_for_its_own_goal():
    grid = _world([(0, 0), (2, 2)], THINGS, "near agent ball", "hold player1 ball")
    assert _act(grid, "stay", "stay") == [1, 0]
    assert _act(grid, "hold", "stay") == [1, 1]


def test_an_observation_tells_where_co_players_are_and_only_the_own_goal():
    grid = _world([(0, 0), (2, 2), (5, 1)], THINGS, "near agent ball", "hold player1 ball", "see player1")
    seen, state = grid.observation(), Grid.state_features(grid.universe)
    assert seen.shape == (3, state + 2 * Grid.option_features(grid.universe))
    others = seen[:, STATE_BEFORE_OTHERS : STATE_BEFORE_OTHERS + 4] * 7
    expected = [[2, 2, 5, 1], [3, -1, -2, -2], [-5, -1, -3, 1]]
    torch.testing.assert_close(others, torch.tensor(expected, dtype=torch.float32))
    count = len(grid.universe.predicates)
    told = seen[:, state : state + 2 * count]
    named = [grid.universe.predicates[int(number)] for number in told.argmax(1)]
    assert named == ["near agent ball", "hold player1 ball", "see player1"] and (told.sum(1) == 1).all()
    changed = _world([(0, 0), (2, 2), (5, 1)], THINGS, "near agent ball", "on agent red", "hold box")
    assert torch.equal(changed.observation()[0], seen[0]), "what others want is not seen"


@pytest.mark.parametrize("players", [2, 3])
@pytest.mark.parametrize("flips", [False, True])
def test_turning_the_seats_turns_observations_and_rewards(players, flips):
    """Of two players that is to exchange them."""
    universe = OpenEndedTask(side=4, horizon=30, players=players, flips=flips)
    count, source = 100, generator(players)
    tasks = universe.tasks("train", range(count))
    turn = (torch.arange(count).unsqueeze(1) * players + (torch.arange(players) + 1) % players).flatten()
    turned = Tasks(tasks.number, tasks.wall, tasks.floor, tasks.agent[turn], tasks.object, tasks.goals.at(turn))
    one, other = Grid(universe, tasks), Grid(universe, turned)
    held, paid = 0, 0.0
    while not one.done:
        assert torch.equal(one.observation()[turn], other.observation())
        action = torch.randint(len(ACTIONS), (count * players,), generator=source)
        reward = one.step(action)
        assert torch.equal(reward[turn], other.step(action[turn]))
        held, paid = held + int((one.held >= 0).sum()), paid + float(reward.sum())
        seats, cells = one.held.view(count, players), one.agent.view(count, players, 2)
        for first in range(players):
            for second in range(first):
                assert not ((seats[:, first] == seats[:, second]) & (seats[:, first] >= 0)).any()
                assert (cells[:, first] != cells[:, second]).any(1).all()
    assert held > 100 and paid > 100


def test_worlds_side_by_side_move_as_they_do_alone():
    universe = OpenEndedTask(side=4, horizon=20, players=2)
    tasks, source = universe.tasks("train", range(20)), generator(0)
    together, alone = Grid(universe, tasks), Grid(universe, tasks.at(torch.tensor([7])))
    while not together.done:
        action = torch.randint(len(ACTIONS), (40,), generator=source)
        assert torch.equal(together.step(action)[14:16], alone.step(action[14:16]))
        assert torch.equal(together.observation()[14:16], alone.observation())
