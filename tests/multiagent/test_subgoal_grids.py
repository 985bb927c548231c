"""The grids with subgoals, step by step: doors, keys, trash and what is paid for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.multiagent import DoorKeyGrid, TrashGrid
from stratagem.multiagent.subgoals import NONE
from stratagem.tasks import make

STAY, UP, RIGHT, DOWN, LEFT, WORK = range(6)
TAKE, OPEN = 5, 6


def walked(game: Any, state: Any, *actions: Any) -> tuple[Any, list[float], list[bool]]:
    """The state after these actions of all agents, what was paid, and when it was over."""
    paid, over = [], []
    for action in actions:
        changed, reward, ended = game.transition(state, np.atleast_2d(action))
        state = {**state, **changed, "turn": state["turn"] + 1}
        paid.append(float(reward[0, 0]))
        over.append(bool(ended[0]))
    return state, paid, over


def door_key(**changed: Any) -> Any:
    places = {"cell": (0, 0), "key": (0, 1), "door": (0, 2), "goal": (0, 4)}
    state = {name: np.array([place]) for name, place in places.items()}
    return {"seed": np.array([0]), "turn": np.array([0]), "stage": np.array([0]), **state, **changed}


def trash(game: TrashGrid, cells: Any, pieces: Any) -> Any:
    state = {"seed": np.array([0]), "turn": np.array([0]), **game.begin(np.array([0]))}
    return {**state, "cell": np.array([cells]), "trash": np.array([pieces])}


def test_key_door_and_goal_are_reached_in_their_order() -> None:
    game = DoorKeyGrid()
    actions = [[RIGHT], [TAKE], [OPEN], [RIGHT], [RIGHT], [RIGHT]]
    state, stages = door_key(), []
    for count in range(1, len(actions) + 1):
        state, paid, over = walked(game, door_key(), *actions[:count])
        stages.append(int(state["stage"][0]))
    assert stages == [0, 1, 2, 2, 2, 3]
    assert over == [False] * 5 + [True] and paid == [0] * 5 + [pytest.approx(1 - 0.9 * 6 / 100)]


def test_a_door_needs_its_key_and_a_wall_lets_nobody_through() -> None:
    game = DoorKeyGrid()
    state, *_ = walked(game, door_key(cell=np.array([[0, 1]])), [OPEN], [RIGHT])
    assert state["stage"][0] == 0 and state["cell"].tolist() == [[0, 1]]
    state, *_ = walked(game, door_key(cell=np.array([[1, 1]]), stage=np.array([2])), [RIGHT], [LEFT])
    assert state["cell"].tolist() == [[1, 0]]


def test_every_episode_and_every_practice_of_the_key_and_the_door_can_be_solved() -> None:
    game, seeds = DoorKeyGrid(size=4), np.arange(2000)
    for state in (game.begin(seeds), game.practice(seeds)):
        wall = state["door"][:, 1]
        assert ((wall >= 1) & (wall < game.size - 1)).all()
        left, right = (state[name][:, 1] < wall for name in ("key", "goal"))
        assert left.all() and not right.any() and (state["goal"][:, 1] > wall).all()
        on_wall = state["cell"][:, 1] == wall
        assert (state["cell"][~on_wall, 1] < wall[~on_wall]).all()
        assert (state["stage"][on_wall] == 2).all() and (state["cell"][on_wall] == state["door"][on_wall]).all()
    assert set(game.practice(seeds)["stage"]) == {0, 1, 2}


def test_small_trash_is_taken_as_it_is_and_large_trash_must_be_crushed_first() -> None:
    game = TrashGrid(size=3, agents=1, small=1, large=1)
    state = trash(game, [(0, 1)], [(0, 1), (0, 1)])
    state, _, _ = walked(game, state, [WORK])
    assert state["taker"].tolist() == [[0, NONE]] and state["crusher"].tolist() == [[NONE]]
    state, _, _ = walked(game, state, [WORK])
    assert state["taker"].tolist() == [[0, NONE]] and state["crusher"].tolist() == [[0]]
    state, paid, over = walked(game, state, [WORK], [LEFT], [WORK])
    assert state["taker"].tolist() == [[0, 0]] and state["putter"].tolist() == [[0, 0]]
    assert paid == [0, 0, 1.0] and over == [False, False, True]


def test_nobody_carries_more_than_there_is_room_for() -> None:
    game = TrashGrid(size=3, agents=1, small=2, large=0, capacity=1)
    state, _, _ = walked(game, trash(game, [(1, 1)], [(1, 1), (1, 1)]), [WORK], [WORK])
    assert state["taker"].tolist() == [[0, NONE]]
    names = game.tree.names
    opened = dict(zip(names, game.open(state)[0, 0].tolist(), strict=True))
    assert opened == {"take0": False, "take1": False, "put0": True, "put1": False}


def test_two_agents_never_take_one_piece() -> None:
    game = TrashGrid(size=3, agents=2, small=1, large=0)
    state, _, _ = walked(game, trash(game, [(1, 1), (1, 1)], [(1, 1)]), [WORK, WORK])
    assert state["taker"].tolist() == [[0]]
    assert game.open(state)[0].tolist() == [[False, True], [False, False]]
    assert not walked(game, state, [STAY, UP], [STAY, LEFT], [STAY, WORK])[1][-1]


def test_the_subgoals_of_trash_follow_its_pieces() -> None:
    tree = TrashGrid(small=1, large=1).tree
    assert [(subgoal.name, subgoal.after) for subgoal in tree.subgoals] == [
        ("crush1", ()),
        ("take0", ()),
        ("take1", ("crush1",)),
        ("put0", ("take0",)),
        ("put1", ("take1",)),
    ]


@pytest.mark.parametrize(
    "game", [DoorKeyGrid(), TrashGrid(), TrashGrid(agents=1, small=0), TrashGrid(agents=3, large=0)]
)
def test_what_is_seen_has_the_sizes_that_were_said(game: Any) -> None:
    seeds = np.arange(300)
    for begun in (game.begin(seeds), game.practice(seeds)):
        state = {"seed": seeds, "turn": 0 * seeds, **begun}
        assert game.observe(state).shape == (300, game.agents, game.features)
        assert game.whole(state).shape == (300, game.state_features)
        assert game.achiever(state).shape == (300, len(game.tree))
        assert game.open(state).any((1, 2)).all()
        for parent, child in np.argwhere(game.tree.parents)[:, ::-1]:
            by = game.achiever(state)
            assert (by[by[:, child] != NONE, parent] != NONE).all()


def test_practice_with_trash_loads_nobody_beyond_the_capacity() -> None:
    game = TrashGrid(small=4, large=0, capacity=1)
    state = game.practice(np.arange(3000))
    held = (state["taker"] != NONE) & (state["putter"] == NONE)
    for agent in range(2):
        assert (held & (state["taker"] == agent)).sum(1).max() == 1


def test_tasks_are_made_by_name_and_tell_their_options() -> None:
    for spec in ("door_key_grid:size=6", "trash_grid:size=4,large=0", "followers:trash_grid:agents=3"):
        assert make(spec).name == spec
    for spec in (
        "trash_grid:small=0,large=0",
        "trash_grid:small=9,large=9",
        "door_key_grid:size=2",
        "trash_grid:bin=1",
    ):
        with pytest.raises(InputError):
            make(spec)
