"""The Python task: programs run on their own, answers are checked, and what goes wrong takes a turn and is told."""

from __future__ import annotations

import contextlib
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.sandbox import Limits
from stratagem.tasks import PythonTask
from stratagem.tasks.python import Problem, PythonEnvironment, program

PROBLEM = Problem("What is 2**10?", "print(2**10)", "1024")
FAST = Limits(seconds=2, memory_bytes=128 * 2**20, processes=4, output_bytes=4_000)
pytestmark = pytest.mark.filterwarnings("ignore:programs a policy writes")


@pytest.fixture
def episode() -> PythonEnvironment:
    return PythonEnvironment(PROBLEM, max_turns=4, limits=FAST)


def test_an_episode_with_a_program_and_an_answer(episode: PythonEnvironment) -> None:
    first = episode.reset()
    assert first.text == "What is 2**10?"
    ran = episode.step("run:\nx = 2\nfor _ in range(9):\n    x *= 2\nprint(x)")
    assert (ran.observation.text, ran.reward, ran.done) == ("1024", 0.0, False)
    assert ran.observation.state_key != first.state_key
    last = episode.step("answer: 1,024")
    assert (last.reward, last.done, last.success, last.truncated) == (1.0, True, True, False)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("run: print(1/0)", "error: ZeroDivisionError: division by zero"),
        ("run: print(", "error: SyntaxError: '(' was never closed"),
        ("run: import torch", "error: ModuleNotFoundError: No module named 'torch'"),
        ("run: x = 1", "nothing was printed"),
        ("run: raise SystemExit(3)", "error: exit status 3"),
        ("run: print('y' * 999)", "y" * 300 + "..."),
        ("run: print('y' * 99999)", "error: too much output"),
        ("run: x = bytearray(10**9)", "error: too much memory"),
        ("run:", "error: no program"),
        ("print(1024)", "error: write run: or answer:"),
        ("", "error: write run: or answer:"),
    ],
)
def test_what_goes_wrong_takes_a_turn_is_told_and_earns_nothing(
    episode: PythonEnvironment, action: str, told: str
) -> None:
    step = episode.step(action)
    assert (step.observation.text, step.reward, step.done, step.success) == (told, 0.0, False, False)


def test_a_program_that_hangs_is_a_failed_call_of_bounded_time() -> None:
    environment = PythonEnvironment(PROBLEM, 4, Limits(seconds=0.3))
    started = time.monotonic()
    step = environment.step("run:\nwhile True:\n    pass")
    assert (step.observation.text, step.done) == ("error: took longer than 0.3 s", False)
    assert time.monotonic() - started < 3
    assert environment.step("run: print('on')").observation.text == "on"


def test_nothing_is_left_from_one_program_to_the_next(episode: PythonEnvironment) -> None:
    episode.step("run:\nx = 1\nopen('a', 'w').write('1')")
    assert "NameError" in episode.step("run: print(x)").observation.text
    assert "FileNotFoundError" in episode.step("run: print(open('a').read())").observation.text


@pytest.mark.parametrize("text", ["answer: 1025", "answer:", "answer: a lot", "answer: 1024 or 5"])
def test_a_wrong_answer_ends_the_episode_without_reward(episode: PythonEnvironment, text: str) -> None:
    last = episode.step(text)
    assert (last.reward, last.done, last.success) == (0.0, True, False)


def test_turns_run_out() -> None:
    environment = PythonEnvironment(PROBLEM, 2, FAST)
    assert not environment.step("run: print(1)").done
    last = environment.step("run: print(1024)")
    assert (last.done, last.truncated, last.success, last.reward) == (True, True, False, 0.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (" print(1)", "print(1)"),
        ("\nfor x in (1,):\n    print(x)\n", "for x in (1,):\n    print(x)"),
        ("\n  a = 1\n  print(a)\n", "a = 1\nprint(a)"),
        (" a = 1\nprint(a)", "a = 1\nprint(a)"),
        ("\n```python\nprint(1)\n```\nThis prints 1.", "print(1)"),
        ("\n```\nprint(1)", "print(1)"),
        ("  \n \n", ""),
    ],
)
def test_programs_are_found_in_what_was_written(text: str, code: str) -> None:
    assert program(text) == code


@pytest.mark.parametrize("options", [{}, {"max_turns": 1}], ids=str)
def test_check_passes(options: dict[str, int]) -> None:
    task = PythonTask(**options)
    assert task.check(8, "train").solutions_accepted == 8
    assert task.check(8, "test").corruptions_rejected == 8


def test_answers_worked_out_here_are_what_the_programs_print() -> None:
    kinds = set()
    for index in range(150):
        problem = PythonTask().problem("train", index)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(problem.program, {})
        assert said.getvalue() == problem.answer + "\n"
        kinds.add(" ".join(problem.question.split()[:2]))
    assert len(kinds) >= 6


@pytest.mark.parametrize("options", [{"seconds": 0}, {"max_turns": 0}, {"max_new_tokens": 0}], ids=str)
def test_options_out_of_range_are_the_users_mistake(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"task 'python': {next(iter(options))}="):
        PythonTask(**options)


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_text_is_a_legal_action(actions: list[str]) -> None:
    environment = PythonEnvironment(PROBLEM, max_turns=4, limits=FAST)
    environment.reset()
    assert any([environment.step(action).done for action in actions])
