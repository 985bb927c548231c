"""The solver finds shortest solutions, and whatever is said in a grid world is a legal action."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks import KeyDoorTask, SokobanTask, Task
from stratagem.tasks.grid import GridTask, GridWorld, relative, shortest_path, walk
from stratagem.tasks.sokoban import SokobanWorld


def breadth_first(world: GridWorld[Hashable]) -> int:
    """The length of a shortest solution, found without the world's lower bound."""
    frontier, seen, moves = {world.start}, {world.start}, 0
    while not any(world.solved(state) for state in frontier):
        frontier = {world.after(state, action) for state in frontier for action in world.actions} - seen
        seen |= frontier
        moves += 1
    return moves


@pytest.mark.parametrize("task", [KeyDoorTask(), SokobanTask(), SokobanTask(size=5, boxes=2)], ids=repr)
def test_solutions_are_as_short_as_an_exhaustive_search_finds(task: GridTask[Hashable]) -> None:
    for index in range(15):
        world = task.world("train", index)
        assert len(shortest_path(world)) == breadth_first(world)


@pytest.mark.parametrize("task", [KeyDoorTask(), SokobanTask(size=5, boxes=2)], ids=repr)
def test_the_lower_bound_never_exceeds_what_remains_along_a_solution(task: GridTask[Hashable]) -> None:
    for index in range(15):
        world = task.world("train", index)
        states = [world.start]
        for action in shortest_path(world):
            states.append(world.after(states[-1], action))
        assert world.solved(states[-1])
        assert all(world.remaining(state) <= len(states) - 1 - at for at, state in enumerate(states))
        assert all(before != after for before, after in pairwise(states))


def test_a_world_without_a_solution_is_told_apart() -> None:
    with pytest.raises(ValueError, match="no solved state"):
        shortest_path(SokobanWorld.parse("#### #$-# #@.# ####"))


@pytest.mark.parametrize("task", [KeyDoorTask(max_turns=8), SokobanTask(max_turns=8)], ids=repr)
@given(actions=st.lists(st.text(), min_size=8, max_size=8))
def test_any_text_is_a_legal_action_and_the_episode_ends_in_time(task: Task, actions: list[str]) -> None:
    environment = task.environment("train", 0)
    environment.reset()
    steps = [environment.step(action) for action in actions]
    assert steps[-1].done
    assert steps[-1].truncated != steps[-1].success


@pytest.mark.parametrize("task", [KeyDoorTask(), SokobanTask()], ids=repr)
@pytest.mark.parametrize("text", ["", "jump", "north north", "go east", "\0", "ñorth"])
def test_unintelligible_text_takes_a_turn_and_changes_nothing(task: Task, text: str) -> None:
    environment = task.environment("train", 1)
    assert environment.step(text).observation == environment.reset()


def test_only_what_changed_something_was_executed() -> None:
    task = KeyDoorTask()
    environment = task.environment("train", 0)
    environment.reset()
    assert not environment.step("dance").executed and not environment.step("open").executed
    assert all(environment.step(action).executed for action in task.solution("train", 0))


def test_words_are_understood_with_space_and_capitals() -> None:
    world = SokobanWorld.parse("##### #@$.# #####")
    assert SokobanTask().environment("train", 0).reset()
    assert world.solved(world.after(world.start, "east"))
    environment = KeyDoorTask().environment("train", 0)
    first = next(KeyDoorTask().solution("train", 0))
    assert environment.step(f" {first.upper()}\n").observation.state_key != environment.reset().state_key


def test_reset_starts_the_same_episode_again() -> None:
    task = KeyDoorTask()
    environment = task.environment("train", 4)
    first = environment.reset()
    for action in task.solution("train", 4):
        environment.step(action)
    assert environment.reset() == first
    assert not environment.step("nothing").done


def test_a_step_cost_is_paid_at_every_action() -> None:
    task = KeyDoorTask(step_cost=0.01)
    environment = task.environment("train", 0)
    rewards = [environment.step(action).reward for action in task.solution("train", 0)]
    assert rewards == pytest.approx([-0.01] * (len(rewards) - 1) + [0.99])


def test_directions_are_told_from_where_the_agent_stands() -> None:
    assert relative((2, 2), (4, 1)) == "east 2 north 1"
    assert relative((2, 2), (0, 5)) == "west 2 south 3"
    assert relative((2, 2), (2, 2)) == "here"
    assert walk((2, 2), (4, 1)) == ["east", "east", "north"]
