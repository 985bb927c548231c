"""Training and test episodes never share an instance, and a number is the same episode in every process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks import (
    CalculatorTask,
    HouseholdTask,
    KeyDoorTask,
    ProofTask,
    PythonTask,
    SokobanTask,
    Split,
    SqlTask,
    Task,
    TMazeTask,
)
from stratagem.tasks.splits import draw, seeded, split_of

PROCEDURAL = [
    KeyDoorTask(),
    SokobanTask(),
    SokobanTask(boxes=2),
    CalculatorTask(),
    ProofTask(),
    SqlTask(),
    PythonTask(),
    HouseholdTask(),
    TMazeTask(aliased=False),
]


def starts(task: Task, split: Split, count: int) -> set[int]:
    return {task.environment(split, index).reset().state_key for index in range(count)}


@pytest.mark.parametrize("task", PROCEDURAL, ids=repr)
def test_no_test_episode_is_a_train_episode(task: Task) -> None:
    train, test = starts(task, "train", 500), starts(task, "test", 500)
    assert train.isdisjoint(test)
    assert len(train) > 400
    assert len(test) > 400


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_key_belongs_to_one_split_at_the_extremes_of_the_share(key: int) -> None:
    assert split_of(key, test_share=0.0) == "train"
    assert split_of(key, test_share=1.0) == "test"


def test_a_fifth_of_the_instances_are_test_instances() -> None:
    assert sum(split_of(key) == "test" for key in range(1_000_000)) == 200_000


def test_options_that_leave_no_instance_of_a_split_are_the_users_mistake() -> None:
    with pytest.raises(InputError, match="task 'toy': 1000 draws gave no test episode"):
        draw("test", 0, ("toy",), lambda random: 0, lambda instance: 999_999)


def test_seeds_depend_on_every_part() -> None:
    assert seeded("a", 1).random() == seeded("a", 1).random()
    assert len({seeded(*parts).random() for parts in [("a", 1), ("a", 2), ("b", 1), ("a", -1)]}) == 4


def test_equal_arguments_give_equal_episodes_in_another_process() -> None:
    script = (
        "from stratagem.tasks import make\n"
        "specs = 'key_door sokoban:boxes=2 calculator proof sql python shop household t_maze'.split()\n"
        "for spec in specs:\n"
        "    task = make(spec)\n"
        "    for index in range(5):\n"
        "        first = task.environment('test', index).reset()\n"
        "        print(first.text, first.state_key, *task.solution('test', index))\n"
        "print(*make('key_door').demonstration('train', 3, 0.5, 7))\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], env=_environment(seed), capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].count(b"\n") > 15


def _environment(hash_seed: str) -> dict[str, str]:
    return {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
