"""Reasoning behaviours found by rules."""

from __future__ import annotations

import pytest

from stratagem.study.behaviours import EVENTS, PHRASES, Behaviours, behaviours_of


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text} for text in texts]


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ("problem_analysis", "We are given two numbers. The problem asks for their sum."),
        ("task_decomposition", "Let's break it down. Step 1: add. Step 2: halve."),
        ("task_completion", r"So the answer is 4, that is \boxed{4}."),
        ("alternative_proposal", "Alternatively, another way is to factor it."),
        ("self_evaluation", "Let me double-check. Does this make sense?"),
        ("self_correction", "Wait, that's wrong. I made a mistake."),
    ],
)
def test_each_behaviour_is_found_by_its_phrases_and_no_other_is(behaviour, text):
    found = behaviours_of(said(text))
    assert found[behaviour] >= 2
    assert set(found) <= {behaviour}


def test_words_that_only_contain_a_phrase_do_not_count():
    assert not behaviours_of(said("The waiter awaited us; a stepfather, 12 subgoalkeepers."))


def test_what_others_say_is_not_a_behaviour_of_the_policy():
    assert not behaviours_of([{"role": "user", "content": "Wait, let me check. Alternatively, give up."}])


def test_an_answer_that_changes_counts_and_one_that_is_repeated_does_not():
    changed = behaviours_of(said("The answer is 4.", "The answer is 5.", "<answer>5</answer>"))
    assert changed["answer_change"] == 1
    assert behaviours_of(said(r"\boxed{4} and again the answer is 4"))["answer_change"] == 0
    assert behaviours_of(said(r"\boxed{4}, no: \boxed{7}, no: \boxed{4}"))["answer_change"] == 2


def test_another_try_after_an_error_counts_and_the_same_one_does_not():
    error = {"role": "user", "content": "Error: no such column"}
    fine = {"role": "user", "content": "3 rows"}
    first, second = said("select a", "select b")
    assert behaviours_of([first, error, second])["retry_after_error"] == 1
    assert behaviours_of([first, error, first])["retry_after_error"] == 0
    assert behaviours_of([first, fine, second])["retry_after_error"] == 0
    assert behaviours_of([error, second])["retry_after_error"] == 0


def test_counts_are_over_rollouts_and_those_without_text_stand_apart():
    samples = [
        {"messages": said("Wait, wait.")},
        {"messages": said("fine")},
        {"messages": []},
        {"action": [1, 2]},
        {"messages": "broken"},
    ]
    found = Behaviours.of(samples)
    assert (found.rollouts, found.silent) == (2, 3)
    assert found.counts["self_correction"] == 2 and found.shown["self_correction"] == 1
    assert found.per_rollout("self_correction") == 1.0
    assert set(found.counts) == {*PHRASES, *EVENTS}


def test_no_rollout_at_all_is_no_fault():
    assert Behaviours.of([]).per_rollout("self_correction") == 0.0
