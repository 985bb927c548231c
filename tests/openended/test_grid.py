"""The universe of tasks and its worlds in motion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import Goals, Grid, OpenEndedTask, Tasks
from stratagem.openended.task import ACTIONS, from_spec
from stratagem.seeding import generator
from stratagem.tasks import registry

UNIVERSE = OpenEndedTask(horizon=8)


def _world(options, universe: OpenEndedTask = UNIVERSE) -> Grid:
    """Agent in the corner; ball two steps south of it, box east of the ball, cone far away; the ball lies on red."""
    wall = torch.zeros(1, 7, 7, dtype=torch.bool)
    wall[0, 0, 1] = True
    floor = torch.full((1, 7, 7), -1)
    floor[0, 2, 0], floor[0, 5, 5] = 0, 2
    tasks = Tasks(
        torch.tensor([0]),
        wall,
        floor,
        torch.tensor([[0, 0]]),
        torch.tensor([[[2, 0], [2, 1], [6, 6]]]),
        Goals.single([*options, *[[]] * (2 - len(options))], universe.predicates),
    )
    return Grid(universe, tasks)


def _act(grid: Grid, *actions: str) -> list[float]:
    return [grid.step(torch.tensor([ACTIONS.index(action)])).item() for action in actions]


def _true(grid: Grid) -> set[str]:
    return {name for name, holds in zip(UNIVERSE.predicates, grid.truth[0].tolist(), strict=True) if holds}


def test_predicates_are_true_of_the_world_as_it_is():
    grid = _world([[("hold ball", True)]])
    assert _true(grid) == {"near ball box", "see ball", "see box", "on ball red"}
    _act(grid, "south")
    assert _true(grid) >= {"near agent ball", "see box"} and "near agent box" not in _true(grid)


def test_walls_and_edges_stop_the_agent():
    grid = _world([[("hold ball", True)]])
    _act(grid, "east", "north", "west")
    assert grid.agent.tolist() == [[0, 0]]
    _act(grid, "south", "east")
    assert grid.agent.tolist() == [[1, 1]]


def test_an_object_within_a_step_is_taken_and_goes_along_until_it_is_put_down():
    grid = _world([[("hold ball", True)], [("on ball blue", True)]])
    assert _act(grid, "hold") == [0], "too far away"
    assert _act(grid, "south", "hold") == [0, 1]
    assert grid.object[0, 0].tolist() == grid.agent[0].tolist() == [1, 0]
    assert _act(grid, "east", "hold") == [1, 0]
    assert grid.object[0, 0].tolist() == [1, 1] and grid.object[0, 1].tolist() == [2, 1]
    assert "on ball red" not in _true(grid)


def test_reward_is_paid_in_every_step_in_which_the_goal_holds_from_the_first_on():
    grid = _world([[("on ball red", True)]])
    assert _act(grid, *["stay"] * 8) == [1] * 8 and grid.done
    with pytest.raises(ValueError, match="over"):
        _act(grid, "stay")


def test_self_reward_play_pays_for_turning_the_goal_on_and_off():
    grid = _world([[("hold ball", True)]], replace(UNIVERSE, flips=True))
    assert _act(grid, "south", "hold", "stay", "hold", "stay", "hold") == [0, 1, 0, 1, 0, 1]


def test_the_observation_tells_where_things_are_and_what_is_wanted():
    grid = _world([[("hold ball", True)]])
    state = Grid.state_features(UNIVERSE)
    seen = grid.observation()[0]
    assert len(seen) == state + 2 * Grid.option_features(UNIVERSE)
    assert seen[2:4].tolist() == pytest.approx([2 / 7, 0])  # the ball
    floors = seen[2 + 9 : 2 + 9 + 9].view(3, 3)
    assert floors[0].tolist() == pytest.approx([2 / 7, 0, 1]) and floors[1].tolist() == [0, 0, 0]
    assert floors[2].tolist() == pytest.approx([5 / 7, 5 / 7, 1])
    assert seen[20:24].tolist() == [1, 0, 1, 1], "walls north, west and east"
    assert seen[state - 3 : state].tolist() == [0, 1, 1]
    options = seen[state:].view(2, -1)
    assert options[0].nonzero().flatten().tolist() == [UNIVERSE.predicates.index("hold ball"), options.shape[1] - 2]
    assert (options[1] == 0).all()
    _act(grid, "south", "hold")
    assert grid.observation()[0][state - 3 : state].tolist() == pytest.approx([1, 1, 0.75])


def test_tasks_of_a_number_are_the_same_in_any_company_and_splits_differ():
    alone, company = UNIVERSE.tasks("train", [5]), UNIVERSE.tasks("train", [9, 5, 2])
    for name in ("wall", "floor", "agent", "object"):
        assert torch.equal(getattr(alone, name)[0], getattr(company, name)[1])
    assert torch.equal(alone.goals.atom[0], company.goals.atom[1])
    assert not torch.equal(alone.object, UNIVERSE.tasks("test", [5]).object)


def test_nothing_starts_in_a_wall_or_on_something_else_and_goals_vary():
    tasks = UNIVERSE.tasks("train", range(300))
    cells = torch.cat([tasks.agent.unsqueeze(1), tasks.object], 1)
    assert not tasks.wall[torch.arange(300).unsqueeze(1), cells[..., 0], cells[..., 1]].any()
    assert all(len(row.unique()) == 4 for row in cells[..., 0] * 7 + cells[..., 1])
    assert 0.05 < tasks.wall.float().mean() < 0.12
    lengths = (tasks.goals.atom >= 0).sum(-1)
    assert set(lengths[:, 0].tolist()) == {1, 2} and set(lengths[:, 1].tolist()) == {0, 1, 2}
    assert 0.15 < tasks.goals.negated.float().mean() < 0.35


def test_worlds_side_by_side_move_as_they_do_alone():
    tasks, source = UNIVERSE.tasks("train", range(20)), generator(0)
    together, alone = Grid(UNIVERSE, tasks), Grid(UNIVERSE, tasks.at(torch.tensor([7])))
    while not together.done:
        action = torch.randint(len(ACTIONS), (20,), generator=source)
        assert together.step(action)[7] == alone.step(action[7:8])[0]
        assert torch.equal(together.observation()[7], alone.observation()[0])


def test_specifications_name_the_universe_and_its_options():
    task = registry.make("openended:grid,horizon=20,flips=true")
    assert task == OpenEndedTask(horizon=20, flips=True) and task.name == "openended:grid,horizon=20,flips=true"
    for argument, options, said in (
        (None, {}, "openended:grid"),
        ("grid", {"sides": "3"}, "side"),
        ("grid", {"objects": "9"}, "objects='9' is not allowed"),
    ):
        with pytest.raises(InputError, match=said):
            from_spec(argument, options)
