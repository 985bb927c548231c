"""Mixtures: episodes in turn, each by the rules of its own task, and a demonstrator with a habit."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks.calculator import CalculatorTask
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.mixture import Mixture, owner
from stratagem.tasks.sokoban import SokobanTask


def first_text(task, index):
    return task.environment("train", index).reset().text


def test_episodes_come_from_the_tasks_in_turn():
    doors, sums = KeyDoorTask(), CalculatorTask()
    mixture = Mixture([doors, sums])
    expected = [first_text(doors, 0), first_text(sums, 0), first_text(doors, 1), first_text(sums, 1)]
    assert [first_text(mixture, index) for index in range(4)] == expected
    assert mixture.member(5) == (sums, 2)
    assert mixture.name == "key_door+calculator"


def test_a_mixture_proves_its_verifiers():
    assert Mixture([KeyDoorTask(), CalculatorTask()]).check(6).episodes == 6


def test_limits_are_the_widest_and_rules_those_of_the_owner():
    doors, sums = KeyDoorTask(max_turns=40), CalculatorTask()
    mixture = Mixture([doors, sums])
    assert (mixture.max_turns, mixture.max_new_tokens) == (40, 48)
    assert owner(mixture, 0) is doors and owner(mixture, 1) is sums
    assert owner(Mixture([mixture, doors]), 2) is sums
    assert owner(doors, 7) is doors


def test_reward_names_are_all_there_are(chatter):
    mixture = Mixture([chatter(reward_names=("reward", "style")), chatter(reward_names=("reward", "length", "style"))])
    assert mixture.reward_names == ("reward", "style", "length")


def test_a_habit_shows_in_its_share_of_the_episodes_and_only_where_there_is_one():
    doors = KeyDoorTask()
    mixture = Mixture([doors, CalculatorTask()], habit=0.5, seed=3)
    solved = [
        list(mixture.solution("train", index)) == list(doors.solution("train", index // 2))
        for index in range(0, 120, 2)
    ]
    assert 18 <= sum(solved) <= 42  # 30 in the mean, deviation 3.9
    assert list(mixture.solution("train", 1)) == list(CalculatorTask().solution("train", 0))
    assert list(mixture.solution("train", 0)) == list(mixture.solution("train", 0))


def test_without_a_habit_every_demonstration_solves():
    mixture = Mixture([KeyDoorTask(), SokobanTask()])
    for index in range(4):
        task, inner = mixture.member(index)
        assert list(mixture.solution("train", index)) == list(task.solution("train", inner))


def test_a_mixture_of_nothing_is_an_input_error():
    with pytest.raises(InputError, match="at least one task"):
        Mixture([])
