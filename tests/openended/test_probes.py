"""Games written by hand, played by scripts whose outcome is known exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import PROBES, Grid, OpenEndedTask, OpenEndedWorld, RandomPlayer, Tasks, played
from stratagem.openended.task import ACTIONS, from_spec
from stratagem.seeding import generator

OPEN = OpenEndedTask(horizon=20, players=2, walls=0.0, probe="chase")
OTHER = 2 + 9 + 9 + 4
"""Where in an observation the way to the other player begins; the way to the ball begins at 2."""


class Idle:
    """Stays where it is."""

    def draw(self, observation, source):
        return torch.zeros(len(observation), dtype=torch.int64)


class Walker:
    """Walks to the other player, or to the ball, along rows first; takes the ball when it is within a step."""

    def __init__(self, universe: OpenEndedTask, to_ball: bool = False) -> None:
        self.side, self.at = universe.side, 2 if to_ball else OTHER
        self.to_ball = to_ball

    def draw(self, observation, source):
        row, column = (observation[:, self.at : self.at + 2] * self.side).round().long().unbind(1)
        sideways = torch.where(column < 0, ACTIONS.index("west"), ACTIONS.index("east"))
        action = torch.where(row < 0, ACTIONS.index("north"), ACTIONS.index("south"))
        action = torch.where(row == 0, sideways, action)
        if not self.to_ball:
            return torch.where((row == 0) & (column == 0), 0, action)
        holds = observation[:, 2 + 6] > 0
        taken = torch.where(row.abs() + column.abs() <= 1, ACTIONS.index("hold"), action)
        return torch.where(holds, ACTIONS.index("stay"), taken)


def _seats(count: int) -> torch.Tensor:
    """The first player in the first seat, the second in the second."""
    return torch.arange(2).repeat(count, 1)


def _apart(tasks: Tasks) -> torch.Tensor:
    place = tasks.agent.view(len(tasks), 2, 2)
    return (place[:, 0] - place[:, 1]).abs()


def test_a_chaser_catches_who_stands_still_after_as_many_steps_as_they_are_apart():
    tasks = OPEN.tasks("test", range(100))
    payoffs = played(OPEN, tasks, [Walker(OPEN), Idle()], _seats(100), None)
    caught = (_apart(tasks).sum(1) - 1).clamp(min=1)  # the first step after which they are near
    torch.testing.assert_close(payoffs[:, 0], (21 - caught).double() / 20)
    torch.testing.assert_close(payoffs[:, 1], (caught - 1).double() / 20)


def test_fleeing_is_chasing_from_the_other_seat():
    tasks = OPEN.tasks("test", range(50))
    flee = replace(OPEN, probe="flee")
    chase = played(OPEN, tasks, [Walker(OPEN), Idle()], _seats(50), None)
    turned = flee.tasks("test", range(50))
    turn = (torch.arange(50).unsqueeze(1) * 2 + torch.tensor([1, 0])).flatten()
    turned = replace(turned, agent=turned.agent[turn])
    fled = played(flee, turned, [Idle(), Walker(flee)], _seats(50), None)
    assert torch.equal(fled.flip(1), chase)


def test_a_seeker_sees_who_does_not_hide_as_soon_as_it_is_within_sight():
    seek, hide = (replace(OPEN, probe=probe) for probe in ("seek", "hide"))
    tasks = seek.tasks("test", range(100))
    row, column = _apart(tasks).unbind(1)
    steps = torch.where(column > 2, row + column - 2, (row - 2).clamp(min=0)).clamp(min=1)
    payoffs = played(seek, tasks, [Walker(seek), Idle()], _seats(100), None)
    torch.testing.assert_close(payoffs[:, 0], (21 - steps).double() / 20)
    still = played(hide, hide.tasks("test", range(100)), [Idle(), Idle()], _seats(100), None)
    assert torch.equal(still[:, 0] == 1, (row > 2) | (column > 2)) and set(still[:, 0].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("players", "expected"),
    [
        ([(3, 1), (3, 6)], [0.95, 0.0]),  # two steps away: one to come near, held from the second on
        ([(3, 6), (3, 2)], [0.0, 1.0]),
        ([(3, 0), (0, 0)], [0.9, 0.0]),
        ([(3, 2), (3, 4)], [0.0, 0.0]),  # equally near, nobody ever gets it
        ([(3, 1), (3, 5)], [0.0, 0.0]),
    ],
)
def test_a_race_is_won_by_who_is_first(players, expected):
    race = replace(OPEN, probe="race")
    things = torch.tensor([[[3, 3], [6, 0], [0, 6]]])
    tasks = replace(race.tasks("test", [0]), agent=torch.tensor(players), object=things)
    found = played(race, tasks, [Walker(race, True), Walker(race, True)], _seats(1), None)[0]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("probe", [*PROBES])
def test_opponents_share_the_steps_and_partners_are_paid_together(probe):
    universe = OpenEndedTask(side=4, horizon=30, players=2, probe=probe)
    grid, source, both = Grid(universe, universe.tasks("test", range(60))), generator(0), []
    while not grid.done:
        both.append(grid.step(torch.randint(len(ACTIONS), (120,), generator=source)).view(60, 2))
    paid = torch.stack(both)
    assert 0 < paid[..., 0].mean() < 1
    if probe == "gather":
        assert torch.equal(paid[..., 0], paid[..., 1])
    elif probe == "race":
        assert (paid.sum(-1) <= 1).all()
    else:
        assert (paid.sum(-1) == 1).all()


def test_the_learner_has_the_first_seat_and_meets_the_pool():
    world = OpenEndedWorld(OPEN, 0)
    world.coplayers.players = lambda split: [Idle()]  # type: ignore[method-assign]
    scores = world.scores("test", range(40), 1, None, Walker(OPEN))  # type: ignore[arg-type]
    caught = (_apart(OPEN.tasks("test", range(40))).sum(1) - 1).clamp(min=1)
    torch.testing.assert_close(scores[:, 0], (21 - caught).double() / 20)
    world.coplayers.players = lambda split: [RandomPlayer()]  # type: ignore[method-assign]
    again = world.scores("test", range(40), 1, None, Walker(OPEN))  # type: ignore[arg-type]
    assert (again != scores).any()


def test_probes_are_named_in_the_task_and_wrong_ones_are_refused_in_one_line():
    task = from_spec("grid", {"players": "2", "probe": "chase"})
    assert task.name == "openended:grid,players=2,probe=chase" and task.probe == "chase"
    goals = task.tasks("test", [3]).goals
    assert [goals.text(seat, task.predicates) for seat in (0, 1)] == ["near agent player1", "not near agent player1"]
    for options, said in (
        ({"probe": "chase"}, "add players=2"),
        ({"players": "3", "probe": "chase"}, "probe is for two players"),
        ({"players": "2", "probe": "chess"}, "unknown probe"),
        ({"players": "2", "probe": "gather", "objects": "1"}, "is about 'near ball box'; set objects=2"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            from_spec("grid", options)
        assert "\n" not in str(refused.value)
