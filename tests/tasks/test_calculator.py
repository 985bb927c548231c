"""The calculator computes exactly, refuses everything that is not arithmetic, and answers are checked."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks import CalculatorTask
from stratagem.tasks.calculator import CalculatorEnvironment, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*7", "84"),
        ("2 + 3 * 4", "14"),
        ("(2+3)*4", "20"),
        ("-7+2", "-5"),
        ("7//2", "3"),
        ("-7%3", "2"),
        ("1/4", "0.25"),
        ("-1/3", "-0.3333333333"),
        ("2/3", "0.6666666667"),
        ("0.1+0.2", "0.3"),
        ("2**10", "1024"),
        ("2**-1", "0.5"),
        ("10**30/10**29", "10"),
        ("1/10**20", "0"),
        ("-1/10**20", "0"),
    ],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "only numbers"),
        ("__import__('os').getcwd()", "only numbers"),
        ("1e5", "only numbers"),
        ("1_000", "only numbers"),
        ("٣+٤", "only numbers"),
        ("1+", "cannot be read"),
        ("()", "cannot be read"),
        ("1(2)", "cannot be read"),
        ("1 2", "cannot be read"),
        ("(" * 50, "cannot be read"),
        ("1/0", "division by zero"),
        ("1%(2-2)", "division by zero"),
        ("0**-1", "division by zero"),
        ("9**9**9", "too large"),
        ("2**(1/2)", "whole numbers"),
        ("9" * 90, "too large"),
        ("1+" * 60 + "1", "longer than 100"),
    ],
)
def test_what_is_not_arithmetic_is_refused_with_a_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        calculate(expression)


@given(st.text("0123456789+-*/%(). ", max_size=100))
def test_no_expression_takes_long_or_fails_in_another_way(expression: str) -> None:
    started = time.perf_counter()
    with suppress(ValueError):
        float(calculate(expression))
    assert time.perf_counter() - started < 1


def test_an_episode_with_a_call_a_mistake_and_an_answer() -> None:
    environment = CalculatorEnvironment("12*7", max_turns=4)
    assert environment.reset().text == "What is 12*7?"
    assert environment.step("calc: 12*").observation.text == "error: cannot be read"
    assert environment.step("let me think").observation.text == "error: write calc: or answer:"
    assert environment.step("calc: 12*7").observation.text == "= 84"
    last = environment.step("Answer: 84")
    assert (last.reward, last.done, last.success, last.truncated) == (1.0, True, True, False)


@pytest.mark.parametrize("text", ["answer: 85", "answer:", "answer: eighty-four", "answer: -84", "answer: 84 or 85"])
def test_a_wrong_answer_ends_the_episode_without_reward(text: str) -> None:
    last = CalculatorEnvironment("12*7", max_turns=4).step(text)
    assert (last.reward, last.done, last.success) == (0.0, True, False)


def test_turns_run_out() -> None:
    environment = CalculatorEnvironment("12*7", max_turns=2)
    assert not environment.step("calc: 1").done
    last = environment.step("calc: 1")
    assert last.done
    assert last.truncated
    assert not last.success


@pytest.mark.parametrize("options", [{}, {"terms": 2, "largest": 9}, {"terms": 8}, {"max_turns": 1}], ids=str)
def test_check_passes(options: dict[str, int]) -> None:
    task = CalculatorTask(**options)
    assert task.check(20, "train").solutions_accepted == 20
    assert task.check(20, "test").corruptions_rejected == 20


def test_questions_have_the_asked_number_of_terms() -> None:
    question = CalculatorTask(terms=3, largest=99).environment("train", 0).reset().text
    expression = question.removeprefix("What is ").removesuffix("?")
    numbers = expression.replace("-", "+").replace("*", "+").split("+")
    assert len(numbers) == 3
    assert all(1 <= int(number) <= 99 for number in numbers)


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_text_is_a_legal_action(actions: list[str]) -> None:
    environment = CalculatorEnvironment("12*7", max_turns=4)
    environment.reset()
    assert any([environment.step(action).done for action in actions])
