"""How answers are compared, with cases worked by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks.answers import (
    ContainsText,
    ExactNumber,
    ExactText,
    Verifier,
    final_answer,
    last_number,
    normalised,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("84", Fraction(84)),
        ("the sum is 1,000.50 euros.", Fraction(2001, 2)),
        ("-3", Fraction(-3)),
        ("5-3", Fraction(3)),
        ("x = -3/4", Fraction(-3, 4)),
        ("1e3", Fraction(1000)),
        ("2.5E-1", Fraction(1, 4)),
        ("first 3, then 4", Fraction(4)),
        ("none", None),
        ("1/0", None),
        ("9" * 2000, None),
        ("1e9999", Fraction(9999)),
        ("٣", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: Fraction | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Paris", "Paris"),
        ("I think so. Answer: Paris ", "Paris"),
        ("answer: Lyon\nno, ANSWER : Paris", "Paris"),
        (r"so \boxed{1} and \boxed{2}", "2"),
        (r"\boxed{1} answer: 3", "3"),
        ("answer:", ""),
    ],
)
def test_the_final_answer_of_a_response(response: str, answer: str) -> None:
    assert final_answer(response) == answer


def test_normalisation_forgives_case_space_quotes_and_a_full_stop() -> None:
    assert normalised('  "New   YORK". ') == "new york"
    assert normalised("St. Louis") == "st. louis"
    assert normalised(".5") == ".5"
    assert normalised(" ... ") == "..."


@pytest.mark.parametrize(
    ("verifier", "response", "answer", "score"),
    [
        (ExactText(), "answer: paris.", "Paris", 1.0),
        (ExactText(), "Paris, France", "Paris", 0.0),
        (ExactText(), "", "Paris", 0.0),
        (ExactText(), "", ".", 0.0),
        (ExactText(), "3", r"\boxed{3}", 1.0),
        (ContainsText(), "It is Paris, France", "paris", 1.0),
        (ContainsText(), "12 apples", "1", 0.0),
        (ContainsText(), "a+b (c) d", "(c)", 1.0),
        (ExactNumber(), "12*7 = 84", "84.0", 1.0),
        (ExactNumber(), "84 or so, 85", "84", 0.0),
        (ExactNumber(), "0.333", "1/3", 0.0),
        (ExactNumber(), "no idea", "84", 0.0),
    ],
)
def test_scores(verifier: Verifier, response: str, answer: str, score: float) -> None:
    assert verifier.score(response, {"prompt": "?", "answer": answer}) == score


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 .,'-]{0,20}[A-Za-z0-9]|[A-Za-z0-9]", fullmatch=True))
def test_text_verifiers_accept_their_solution_and_reject_its_corruption(answer: str) -> None:
    record = {"prompt": "?", "answer": answer}
    for verifier in (ExactText(), ContainsText()):
        assert verifier.score(verifier.solution(record), record) == 1
        assert verifier.score(verifier.corrupted(record), record) == 0


@given(st.fractions() | st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_the_number_verifier_accepts_its_solution_and_rejects_its_corruption(number: float) -> None:
    record = {"prompt": "?", "answer": str(number)}
    assert ExactNumber().score(ExactNumber().solution(record), record) == 1
    assert ExactNumber().score(ExactNumber().corrupted(record), record) == 0
