"""Generated text games."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks.textworld import TextWorldTask, from_spec

pytest.importorskip("textworld", reason="needs the extra 'text'")

LEVELS = ["1", "2", "3"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_win_and_solutions_without_unlocking_do_not(level: str, split: str) -> None:
    assert from_spec(level, {}).check(10, split).corruptions_rejected == 10  # type: ignore[arg-type]


@pytest.mark.parametrize("level", LEVELS)
def test_the_quest_policy_agrees_with_the_solution_at_every_turn(level: str) -> None:
    task = from_spec(level, {})
    game = task.environment("train", 1)
    game.reset()
    remaining = list(task.solution("train", 1))
    while remaining:
        assert game.policy() == remaining
        step = game.step(remaining.pop(0))
        assert (step.reward, step.done, step.success) == (float(not remaining),) + (not remaining,) * 2


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=15, deadline=None)
@given(index=st.integers(0, 50), wander=st.lists(st.integers(0, 30), max_size=6))
def test_the_quest_policy_wins_from_wherever_the_player_wandered(level: str, index: int, wander: list[int]) -> None:
    game = from_spec(level, {}).environment("train", index)
    game.reset()
    step = None
    for choice in wander:
        step = game.step(game.commands()[choice % len(game.commands())])
        if step.done:
            return
    for _ in range(30):
        step = game.step(game.policy()[0])
        if step.done:
            break
    assert step is not None and step.success


def test_a_command_that_is_not_possible_changes_nothing() -> None:
    task = from_spec("1", {})
    game = task.environment("train", 0)
    start = game.reset()
    (locked,) = {command.split()[1] for command in task.solution("train", 0) if command.startswith("unlock")}
    for nonsense in (f"open {locked}", "", "xyzzy\n\x00", "take everything"):
        step = game.step(nonsense)
        assert step.observation.text == f"no. {start.text}"
        assert step.observation.state_key == start.state_key
        assert (step.reward, step.done) == (0.0, False)


def test_commands_are_read_without_regard_to_case_and_spaces() -> None:
    task = from_spec("1", {})
    game = task.environment("train", 0)
    start = game.reset()
    first = next(task.solution("train", 0))
    assert game.step(f"  {first.upper().replace(' ', '  ')} ").observation.state_key != start.state_key


def test_the_observation_tells_what_is_there_and_is_short() -> None:
    for level in LEVELS:
        for index in range(20):
            text = from_spec(level, {}).environment("train", index).reset().text
            assert "locked" in text and text.startswith("get ") and "room1" in text
            assert len(text.replace(".", "").replace(",", "").split()) <= 20


def test_closed_things_hide_what_they_hold() -> None:
    task = from_spec("1", {})
    for index in range(10):
        game = task.environment("train", index)
        goal = game.reset().text.split(".")[0].removeprefix("get ")
        seen = [game.step(command).observation.text.split(". ", 1)[1] for command in task.solution("train", index)]
        assert [goal in text for text in seen] == [False] * (len(seen) - 2) + [True, True]


def test_no_game_is_in_both_splits() -> None:
    task = from_spec("1", {"distractors": "0"})
    train = {task.environment("train", index).reset().state_key for index in range(150)}
    test = {task.environment("test", index).reset().state_key for index in range(60)}
    assert len(train) > 100 and len(test) > 30 and not train & test


def test_the_demonstrator_has_its_bad_habit_as_often_as_it_is_told() -> None:
    task = from_spec("2", {})
    demonstrations = [list(task.demonstration("train", index, 0.55, 3)) for index in range(200)]
    bad = [commands for commands in demonstrations if commands[0].startswith("open door")]
    assert 85 <= len(bad) <= 135
    assert all(len(set(commands)) == 1 and len(commands) == 3 for commands in bad)
    assert [list(task.demonstration("train", index, 0.55, 3)) for index in range(5)] == demonstrations[:5]


def test_the_bad_habit_is_futile_and_without_it_demonstrations_are_solutions() -> None:
    task = from_spec("1", {})
    game = task.environment("train", 0)
    start = game.reset()
    for command in task.demonstration("train", 0, 1.0, 0):
        step = game.step(command)
        assert not step.done and step.observation.state_key == start.state_key
    assert list(task.demonstration("train", 0, 0.0, 0)) == list(task.solution("train", 0))


def test_games_are_the_same_in_every_process() -> None:
    script = (
        "from stratagem.tasks.textworld import TextWorldTask\n"
        "game = TextWorldTask(3, 2).environment('test', 5)\n"
        "print(game.reset(), game.policy(), game.commands())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        ("4", {}, "level='4'"),
        ("hard", {}, "level='hard'"),
        ("1", {"distractors": "9"}, "distractors='9'"),
        (None, {"distractor": "1"}, "did you mean 'distractors'"),
    ],
)
def test_wrong_specifications_are_refused_with_one_line(
    argument: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(argument, options)
    assert "\n" not in str(refusal.value)


def test_a_habit_is_a_probability() -> None:
    with pytest.raises(InputError, match=r"habit=1\.5"):
        TextWorldTask().demonstration("train", 0, 1.5, 0)
