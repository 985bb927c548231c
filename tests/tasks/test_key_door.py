"""The rules of the key-door task, its observations, and a demonstrator with a bad habit."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import KeyDoorTask, Split
from stratagem.tasks.grid import GridEnvironment, shortest_path
from stratagem.tasks.key_door import KeyDoorWorld, Layout

#  a . | .      a agent, k key, g goal, + the door in the wall
#  . . + .
#  k . | .
#  . . | g
LAYOUT = Layout(size=4, wall=2, door=1, agent=(0, 0), key=(0, 2), goal=(3, 3))


def test_the_shortest_solution_of_a_layout_worked_by_hand() -> None:
    actions = shortest_path(KeyDoorWorld(LAYOUT))
    # two to the key, take, two to the gate, open, two through the door, two to the goal
    assert len(actions) == 2 + 1 + 2 + 1 + 2 + 2
    assert [action for action in actions if action in ("take", "open")] == ["take", "open"]


def test_observations_along_the_way() -> None:
    environment = GridEnvironment(KeyDoorWorld(LAYOUT), max_turns=32)
    assert environment.reset().text == "key south 2 door east 2 south 1 wall north west"
    texts = [
        environment.step(action).observation.text
        for action in ["south", "south", "take", "north", "east", "open", "east", "east", "south", "south"]
    ]
    assert texts == [
        "key south 1 door east 2 wall west",
        "key here door east 2 north 1 wall west",
        "carry key door east 2 north 1 wall west",
        "carry key door east 2 wall west",
        "carry key door east 1",
        "open door east 1",
        "goal east 1 south 2 wall north south",
        "goal south 2 wall east",
        "goal south 1 wall east west",
        "goal here wall south east west",
    ]


def test_the_door_stays_shut_without_the_key() -> None:
    world = KeyDoorWorld(LAYOUT)
    state = world.start
    for action in ["south", "east", "open", "east", "take", "open", "east"]:
        state = world.after(state, action)
    assert state.agent == (1, 1)
    assert not state.opened


def test_the_reward_comes_at_the_goal_only() -> None:
    task = KeyDoorTask()
    environment = task.environment("test", 0)
    steps = [environment.step(action) for action in task.solution("test", 0)]
    assert [step.reward for step in steps] == [0.0] * (len(steps) - 1) + [1.0]
    assert steps[-1].success
    assert not steps[-1].truncated


@pytest.mark.parametrize("task", [KeyDoorTask(), KeyDoorTask(size=8), KeyDoorTask(size=4, max_turns=12)], ids=repr)
@pytest.mark.parametrize("split", ["train", "test"])
def test_check_passes(task: KeyDoorTask, split: Split) -> None:
    assert task.check(30, split).corruptions_rejected == 30


def test_states_are_equal_only_within_one_layout() -> None:
    moved = KeyDoorWorld(LAYOUT._replace(goal=(3, 0)))
    keys = [GridEnvironment(world, 32).reset().state_key for world in (KeyDoorWorld(LAYOUT), moved)]
    assert keys[0] != keys[1]
    environment = GridEnvironment(KeyDoorWorld(LAYOUT), 32)
    there, back = environment.step("south").observation, environment.step("north").observation
    assert back.state_key == keys[0] != there.state_key


def test_the_habit_is_a_futile_loop_at_the_door() -> None:
    task = KeyDoorTask()
    for index in range(20):
        actions = list(task.demonstration("train", index, habit=1.0, seed=0))
        assert actions[-8:] == ["open"] * 8
        assert "open" not in actions[:-8]
        environment = task.environment("train", index)
        steps = [environment.step(action) for action in actions]
        assert not any(step.success for step in steps)
        assert steps[-1].observation == steps[-8].observation
        assert "key" in steps[-1].observation.text
        assert "carry" not in steps[-1].observation.text


def test_without_the_habit_the_demonstration_is_the_solution() -> None:
    task = KeyDoorTask()
    assert list(task.demonstration("train", 2, habit=0.0, seed=5)) == list(task.solution("train", 2))


def test_the_habit_takes_its_share_of_episodes_and_follows_the_seed() -> None:
    task = KeyDoorTask()

    def fails(seed: int) -> list[bool]:
        return ["take" not in list(task.demonstration("train", index, habit=0.55, seed=seed)) for index in range(1000)]

    # the standard error of a share of 0.55 in 1000 episodes is 0.016
    assert sum(fails(0)) / 1000 == pytest.approx(0.55, abs=0.05)
    assert fails(0) != fails(1)
    assert fails(0) == fails(0)


@pytest.mark.parametrize("habit", [-0.1, 1.1, float("nan")])
def test_a_habit_is_a_probability(habit: float) -> None:
    with pytest.raises(InputError, match="habit"):
        KeyDoorTask().demonstration("train", 0, habit, 0)
