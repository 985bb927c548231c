"""How answers are compared, with cases worked by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks.answers import (
    CloseNumber,
    ContainsText,
    ExactNumber,
    ExactText,
    NearNumber,
    SimilarText,
    Verifier,
    edit_distance,
    final_answer,
    last_number,
    normalised,
    token_f1,
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


# ---- scores between right and wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [
        ("Paris, France", "Paris", 1),
        ("pariz", "paris", 0.8),
        ("rome", "paris", 0),
        ("ab", "abcd", 0),
        ("abc", "abcd", 0.75),
        ("anything", "", 0),
        ("", "paris", 0),
        ("answer: Paris", "PARIS", 1),
    ],
)
def test_similar_text_is_scored_by_containment_and_then_by_letters(response, answer, score):
    assert SimilarText().score(response, {"answer": answer}) == pytest.approx(score)


@pytest.mark.parametrize(
    ("verifier", "response", "answer", "score"),
    [
        (CloseNumber(), "84.0009", "84", 1),
        (CloseNumber(), "84.001", "84", 0),
        (CloseNumber(), "no number", "84", 0),
        (CloseNumber(), "84", "no number", 0),
        (CloseNumber(), "1,000", "1000", 1),
        (NearNumber(), "104.9", "100", 1),
        (NearNumber(), "-104.9", "-100", 1),
        (NearNumber(), "105", "100", 0),
        (NearNumber(), "-100", "100", 0),
        (NearNumber(), "0.0005", "0", 1),
        (NearNumber(), "0.01", "0", 0),
        (NearNumber(), "1/0", "0", 0),
    ],
)
def test_numbers_are_scored_within_a_tolerance(verifier, response, answer, score):
    assert verifier.score(response, {"answer": answer}) == score


def test_of_several_right_answers_the_best_counts():
    record = {"answer": "New York", "aliases": ["NYC", "the big apple"]}
    assert SimilarText().score("nyc", record) == SimilarText().score("the Big Apple", record) == 1
    assert CloseNumber().score("3", {"answer": "2", "aliases": ["3"]}) == 1


@given(st.sampled_from([SimilarText(), CloseNumber(), NearNumber()]), st.integers(-1000, 1000))
def test_what_a_graded_verifier_calls_right_passes_and_what_it_corrupts_does_not(verifier, number):
    record = {"answer": str(number)}
    assert verifier.score(verifier.solution(record), record) == 1
    assert verifier.score(verifier.corrupted(record), record) < 1


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("kitten", "sitting", 3), ("rome", "paris", 5), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2)],
)
def test_edit_distance(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edit_distance_is_a_metric(first, second, third):
    assert (edit_distance(first, second) == 0) == (first == second)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)


@pytest.mark.parametrize(
    ("response", "reference", "score"),
    [
        ("The Eiffel Tower!", "eiffel tower", 0.8),
        ("tower tower", "tower", 1),
        ("rome", "paris", 0),
        ("", "paris", 0),
        ("...", "", 0),
    ],
)
def test_f1_of_the_sets_of_words(response, reference, score):
    assert token_f1(response, reference) == pytest.approx(score)
