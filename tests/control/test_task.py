from __future__ import annotations

import numpy as np
import pytest

from stratagem.control import GymTask
from stratagem.control.task import from_spec
from stratagem.errors import InputError


def test_an_unknown_environment_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"unknown Gymnasium environment 'CartPol-v1'; did you mean 'CartPole-v1'\?"):
        from_spec("CartPol-v1", {})


def test_the_id_is_needed() -> None:
    with pytest.raises(InputError, match="needs the id"):
        from_spec(None, {})


def test_options_become_arguments_of_the_environment_and_part_of_the_name() -> None:
    task = from_spec("FrozenLake-v1", {"is_slippery": "false", "max_turns": "7"})
    assert task.arguments == {"is_slippery": False}
    assert task.name == "gym:FrozenLake-v1,max_turns=7,is_slippery=False"
    environment = task.make()
    environment.reset(seed=0)
    turns = 0
    over = False
    while not over:
        _, _, terminated, truncated, _ = environment.step(0)
        turns, over = turns + 1, terminated or truncated
    assert turns == 7


@pytest.mark.parametrize("turns", ["0", "many", "1.5"])
def test_a_turn_limit_below_one_or_no_integer_is_refused(turns: str) -> None:
    with pytest.raises(InputError, match="max_turns must be an integer of at least 1"):
        from_spec("CartPole-v1", {"max_turns": turns})


def test_an_argument_the_environment_does_not_take_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="the environment cannot be made") as caught:
        from_spec("CartPole-v1", {"gravitation": "3"})
    assert "\n" not in str(caught.value)


def test_actions_that_are_neither_discrete_nor_a_box_are_refused() -> None:
    with pytest.raises(InputError, match=r"actions are MultiDiscrete\(\[2 2\]\); supported are Discrete and Box"):
        GymTask("Countdown-v0", arguments={"actions": "multi"})


def test_discrete_observations_are_one_hot() -> None:
    task = from_spec("FrozenLake-v1", {})
    observation, _ = task.make().reset(seed=0)
    assert (task.features, task.actions, task.continuous) == (16, 4, False)
    assert observation.tolist() == [1] + [0] * 15


def test_discrete_actions_start_where_the_space_starts() -> None:
    assert GymTask("Countdown-v0").commands(np.array([0, 1])) == [5, 6]


def test_continuous_actions_are_clipped_and_shaped_only_for_the_environment() -> None:
    task = GymTask("Countdown-v0", arguments={"actions": "box"})
    first, second = task.commands(np.array([[0.25, 3.0], [-9.0, 0.0]], dtype=np.float32))
    assert first.tolist() == [[0.25], [0.5]] and second.tolist() == [[-0.5], [0.0]]
    assert first.dtype == np.float32


def test_training_and_held_out_episodes_never_share_a_seed() -> None:
    task = GymTask("CartPole-v1")
    train = {task.start_seed("train", number) for number in range(200)}
    test = {task.start_seed("test", number) for number in range(200)}
    assert len(train) == len(test) == 200 and not train & test


def test_an_environment_without_a_registered_limit_gets_one() -> None:
    environment = GymTask("Countdown-v0", arguments={"length": 2000}).make()
    environment.reset(seed=0)
    ended = [environment.step(5)[3] for _ in range(1000)]
    assert ended == [False] * 999 + [True]
