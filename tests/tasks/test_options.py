"""A wrong option is refused in one line that names task, option, value and what is allowed."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import CalculatorTask, KeyDoorTask, SokobanTask
from stratagem.tasks.options import configure


def test_strings_become_the_types_of_the_fields() -> None:
    task = configure(KeyDoorTask, None, {"size": "8", "step_cost": "0.01"})
    assert (task.size, task.step_cost, task.max_turns) == (8, 0.01, 32)
    assert task == KeyDoorTask(size=8, step_cost=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "3"}, "task 'key_door': size='3' is not allowed; it should be greater than or equal to 4"),
        ({"size": "17"}, "size='17' is not allowed; it should be less than or equal to 16"),
        ({"size": "big"}, "size='big' is not allowed; it should be a valid integer"),
        ({"size": "6.5"}, "size='6.5' is not allowed; it should be a valid integer"),
        ({"step_cost": "nan"}, "step_cost='nan' is not allowed"),
        ({"step_cost": "-1"}, "step_cost='-1' is not allowed; it should be greater than or equal to 0"),
        ({"sise": "6"}, "unknown option of task 'key_door' 'sise'; did you mean 'size'?"),
        ({"name": "x"}, "unknown option of task 'key_door' 'name'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        configure(KeyDoorTask, None, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_where_none_is_taken_is_refused() -> None:
    with pytest.raises(InputError, match="task 'key_door' takes no argument, got 'big'; its options: size, max_turns"):
        configure(KeyDoorTask, "big", {})


def test_values_given_in_python_are_checked_as_well() -> None:
    with pytest.raises(InputError, match="boxes=0"):
        SokobanTask(boxes=0)
    with pytest.raises(InputError, match="view='map' is not allowed; it should be 'grid' or 'relative'"):
        SokobanTask(view="map")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="terms=9"):
        CalculatorTask(terms=9)
