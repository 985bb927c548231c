"""Goals of several players: alike, opposed or unrelated, by stated chances."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import Grid, OpenEndedTask, Tasks
from stratagem.openended.task import ACTIONS
from stratagem.seeding import generator


def _rewards(universe: OpenEndedTask, count: int = 200) -> torch.Tensor:
    """``[steps, tasks, players]`` of players that act at random."""
    grid, source, paid = Grid(universe, universe.tasks("train", range(count))), generator(0), []
    while not grid.done:
        action = torch.randint(len(ACTIONS), (count * universe.players,), generator=source)
        paid.append(grid.step(action).view(count, -1))
    return torch.stack(paid)


@pytest.mark.parametrize("players", [2, 3])
def test_the_same_goal_pays_all_whenever_it_pays_one(players):
    paid = _rewards(OpenEndedTask(side=5, horizon=20, players=players, same=1, opposite=0))
    assert (paid == paid[..., :1]).all() and 0.1 < paid.mean() < 0.9


@pytest.mark.parametrize(("options", "atoms"), [(2, 2), (1, 2), (3, 1), (2, 4)])
def test_opposite_goals_pay_one_of_two_players_in_every_step(options, atoms):
    universe = OpenEndedTask(side=5, horizon=20, players=2, same=0, opposite=1, options=options, atoms=atoms)
    paid = _rewards(universe, 100)
    assert (paid.sum(-1) == 1).all()


def test_of_three_players_each_is_with_or_against_another():
    paid = _rewards(OpenEndedTask(side=5, horizon=20, players=3, same=0.5, opposite=0.5))
    first, *others = paid.unbind(-1)
    for other in others:
        equal, opposed = (other == first).all(0), (other != first).all(0)
        assert (equal | opposed).all() and 0.3 < equal.float().mean() < 0.7


def test_goals_are_related_as_often_as_is_stated_and_seats_are_alike():
    universe = OpenEndedTask(players=2, same=0.3, opposite=0.2)
    tasks = universe.tasks("train", range(2000))
    mine, theirs = (tasks.goals.at(torch.arange(2000) * 2 + seat) for seat in (0, 1))
    moved = theirs.renamed(universe.perspectives[1])
    same = ((moved.atom == mine.atom) & (moved.negated == mine.negated)).flatten(1).all(1)
    assert 0.27 < same.float().mean() < 0.33
    # One option of one atom is the shape that an opposite keeps.
    ones = [(goals.present.sum(1) == 1) & ((goals.atom >= 0).sum((1, 2)) == 1) for goals in (mine, theirs)]
    opposed = ones[0] & ones[1] & (moved.atom[:, 0, 0] == mine.atom[:, 0, 0])
    assert (opposed & (moved.negated[:, 0, 0] != mine.negated[:, 0, 0])).any()
    sizes = [(goals.atom >= 0).sum((1, 2)).float().mean() for goals in (mine, theirs)]
    assert abs(sizes[0] - sizes[1]) < 0.1, "neither seat is always the one whose goal is drawn first"
    alone = OpenEndedTask(players=2, same=0, opposite=0).tasks("train", range(2000))
    moved = alone.goals.at(torch.arange(2000) * 2 + 1).renamed(universe.perspectives[1])
    same = (moved.atom == alone.goals.at(torch.arange(2000) * 2).atom).flatten(1).all(1)
    assert same.float().mean() < 0.02


def test_tasks_of_a_number_are_the_same_in_any_company():
    universe = OpenEndedTask(players=3)
    alone, company = universe.tasks("train", [5]), universe.tasks("train", [9, 5, 2])
    picked = company.at(torch.tensor([1]))
    masked = company.at(torch.tensor([False, True, False]))
    for found in (picked, masked):
        assert found.players == 3 and len(found) == 1
        for name in ("number", "wall", "floor", "agent", "object"):
            assert torch.equal(getattr(alone, name), getattr(found, name))
        assert torch.equal(alone.goals.atom, found.goals.atom)
        assert torch.equal(alone.goals.negated, found.goals.negated)
    assert not torch.equal(alone.agent, universe.tasks("test", [5]).agent)


def test_nobody_starts_in_a_wall_or_on_something_else():
    tasks: Tasks = OpenEndedTask(players=3, side=5, walls=0.5).tasks("train", range(200))
    cells = torch.cat([tasks.agent.view(200, 3, 2), tasks.object], 1)
    assert not tasks.wall[torch.arange(200).unsqueeze(1), cells[..., 0], cells[..., 1]].any()
    assert all(len(row.unique()) == 6 for row in cells[..., 0] * 5 + cells[..., 1])


def test_what_does_not_fit_together_is_refused_in_one_line():
    for values, said in (
        ({"players": 4}, "players=4"),
        ({"players": 2, "same": 0.7, "opposite": 0.7}, "at most 1 together"),
        ({"same": 0.5}, "same is for several players; add players=2"),
        ({"coplayers": "somewhere"}, "coplayers is for several players"),
    ):
        with pytest.raises(InputError, match=said):
            OpenEndedTask(**values)
    named = OpenEndedTask(players=2, same=0.5, snapshot_every=3).name
    assert named == "openended:grid,players=2,same=0.5,snapshot_every=3"
