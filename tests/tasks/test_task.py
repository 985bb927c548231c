"""A task's check convicts a verifier that accepts wrong answers, rejects right ones or pays without looking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stratagem.tasks import CalculatorTask, KeyDoorTask, Split, Step, state_key
from stratagem.tasks.calculator import CalculatorEnvironment
from stratagem.tasks.grid import GridEnvironment
from stratagem.tasks.key_door import KeyDoorState, KeyDoorWorld


class Gullible(CalculatorEnvironment):
    def step(self, action: str) -> Step:
        step = super().step(action)
        return Step(step.observation, 1.0, done=step.done, success=True)


class Stubborn(CalculatorEnvironment):
    def step(self, action: str) -> Step:
        step = super().step(action)
        return Step(step.observation, 0.0, done=step.done)


class GullibleTask(CalculatorTask):
    def environment(self, split: Split, index: int) -> CalculatorEnvironment:
        return Gullible(super().environment(split, index).expression, self.max_turns)


class StubbornTask(CalculatorTask):
    def environment(self, split: Split, index: int) -> CalculatorEnvironment:
        return Stubborn(super().environment(split, index).expression, self.max_turns)


class DoorWithoutLock(KeyDoorWorld):
    def after(self, state: KeyDoorState, action: str) -> KeyDoorState:
        return super().after(state._replace(carrying=True), action)


class UnlockedTask(KeyDoorTask):
    def environment(self, split: Split, index: int) -> GridEnvironment[KeyDoorState]:
        return GridEnvironment(DoorWithoutLock(self.world(split, index).layout), self.max_turns)


class Pointless(CalculatorTask):
    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(())


def test_a_verifier_that_accepts_everything_is_caught() -> None:
    with pytest.raises(AssertionError, match="calculator: train episode 0: a corrupted solution was accepted"):
        GullibleTask().check()


def test_a_verifier_that_rejects_everything_is_caught() -> None:
    with pytest.raises(AssertionError, match="the task's own solution was rejected"):
        StubbornTask().check()


def test_a_world_whose_lock_does_not_lock_is_caught() -> None:
    with pytest.raises(AssertionError, match="a corrupted solution was accepted"):
        UnlockedTask().check()


def test_a_solution_that_never_ends_the_episode_is_caught() -> None:
    with pytest.raises(AssertionError, match="the task's own solution was rejected"):
        Pointless().check()


def test_state_keys_are_stable_signed_64_bit_numbers() -> None:
    assert state_key("a", 1) == state_key("a", 1)
    assert state_key("a", 1) != state_key("a1")
    assert all(-(2**63) <= state_key(number) < 2**63 for number in range(100))
