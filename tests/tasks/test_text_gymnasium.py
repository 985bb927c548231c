"""Gymnasium environments with text spaces, on a small one registered here."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.spaces import Discrete, Text

from stratagem.errors import InputError
from stratagem.tasks.text_gymnasium import from_spec


class Echo(gymnasium.Env[str, str]):
    """Say the digit shown, twice in a row: 0.5 for each right one; a third step truncates."""

    observation_space = Text(20, charset=frozenset("abcdefghijklmnopqrstuvwxyz 0123456789"))
    action_space = Text(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.digit, self.right, self.steps = str(self.np_random.integers(10)), 0, 0
        return f"say {self.digit}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.right += action == self.digit
        return f"said {action}", 0.5 * (action == self.digit), self.right == 2, self.steps == 3, {}


class Counter(Echo):
    """An environment whose actions are no text."""

    action_space = Discrete(2)  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("StratagemEcho-v0", entry_point=Echo)
    gymnasium.register("StratagemCounter-v0", entry_point=Counter)
    yield
    del gymnasium.registry["StratagemEcho-v0"], gymnasium.registry["StratagemCounter-v0"]


def test_rewards_are_the_environments_and_a_sufficient_return_is_success() -> None:
    environment = from_spec("StratagemEcho-v0", {}).environment("train", 0)
    digit = environment.reset().text.removeprefix("say ")
    first, second = environment.step(f" {digit}\n"), environment.step(digit)
    assert (first.reward, first.done, first.success) == (0.5, False, False)
    assert (second.reward, second.done, second.truncated, second.success) == (0.5, True, False, True)
    environment.close()


def test_a_time_limit_truncates_and_is_no_success() -> None:
    environment = from_spec("StratagemEcho-v0", {"success": "0"}).environment("train", 0)
    environment.reset()
    last = [environment.step("x") for _ in range(3)][-1]
    assert (last.done, last.truncated, last.success) == (True, True, False)


def test_text_outside_the_action_space_changes_nothing() -> None:
    environment = from_spec("StratagemEcho-v0", {}).environment("train", 0)
    start = environment.reset()
    for text in ("", "far too long", "ä"):
        step = environment.step(text)
        assert (step.observation, step.reward, step.done) == (start, 0.0, False)


def test_episodes_follow_from_their_number_and_differ_between_splits() -> None:
    task = from_spec("StratagemEcho-v0", {})
    train = [task.environment("train", index).reset().text for index in range(30)]
    assert train == [task.environment("train", index).reset().text for index in range(30)]
    assert train != [task.environment("test", index).reset().text for index in range(30)]
    assert len(set(train)) > 5


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        (None, {}, "needs the id"),
        ("StratagemEchoo-v0", {}, "did you mean 'StratagemEcho-v0'"),
        ("StratagemCounter-v0", {}, "needs a Text space"),
        ("StratagemEcho-v0", {"turns": "3"}, "unknown option"),
        ("StratagemEcho-v0", {"max_turns": "0"}, "max_turns='0'"),
    ],
)
def test_wrong_specifications_are_refused_with_one_line(
    argument: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(argument, options)
    assert "\n" not in str(refusal.value)
