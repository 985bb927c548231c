"""Likeness of tool calls and what matching makes of it: numbers worked by hand, limits and properties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stratagem.tasks.tool_calls import ToolCall, matched, read_call, similarity, transport, turn_worth

REFERENCE = ToolCall("f", {"a": 1, "b": 2})
TABLES = arrays.arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(0, 1, width=16))


# ---- likeness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "reference", "likeness"),
    [
        (ToolCall("f", {"a": 1, "b": 2}), REFERENCE, 1.0),
        (ToolCall("f", {"a": 1, "b": 3}), REFERENCE, 0.75),
        (ToolCall("f", {"a": 1}), REFERENCE, 0.625),
        (ToolCall("F", {"a": 1}), REFERENCE, 0.625),
        (ToolCall("g", {"a": 1, "b": 2}), REFERENCE, 0.0),
        (ToolCall("f", {}), REFERENCE, 0.25),
        (ToolCall("f", {}), ToolCall("f", {}), 1.0),
        (ToolCall("f", {"a": 1}), ToolCall("f", {}), 0.5),
        (ToolCall("f", {"a": {"x": [1, 2]}}), ToolCall("f", {"a": {"x": [1, 2]}}), 1.0),
    ],
)
def test_likeness_worked_by_hand(predicted, reference, likeness):
    assert similarity(predicted, reference) == likeness


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('price {"item": "lamp", "n": 2}', ToolCall("price", {"item": "lamp", "n": 2})),
        ("  price  ", ToolCall("price", {})),
        ('price {"item": ', ToolCall("price", {})),
        ('price {"item": 1} and more', ToolCall("price", {})),
        ('price ["lamp"]', ToolCall('price ["lamp"]', {})),
        ("", ToolCall("", {})),
    ],
)
def test_a_call_is_read_and_what_is_no_object_is_no_arguments(text, call):
    assert read_call(text) == call


@given(st.text(max_size=40))
def test_no_text_fails_to_be_read_as_a_call(text):
    read_call("f {" + text)
    assert read_call(text).arguments is not None


# ---- one to one -----------------------------------------------------------------------------------------------------


def test_greedy_takes_the_best_pair_and_loses_the_best_sum():
    table = np.array([[0.9, 0.8], [0.8, 0.1]])
    assert matched(table, "greedy").tolist() == [0.9, 0.1]
    assert matched(table).tolist() == [0.8, 0.8]


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_the_hard_assignment_has_the_largest_sum_there_is(table):
    calls, references = table.shape
    wide = table if calls <= references else table.T
    best = max(sum(wide[i, j] for i, j in enumerate(order)) for order in permutations(range(wide.shape[1]), len(wide)))
    assert matched(table).sum() == pytest.approx(best, abs=1e-6)
    assert matched(table, "greedy").sum() <= best + 1e-6


def test_of_equal_calls_the_first_is_matched_and_the_others_are_left_over():
    for assignment in ("hard", "greedy"):
        assert matched(np.ones((3, 1)), assignment).tolist() == [1, 0, 0]
        assert matched(np.ones((3, 2)), assignment, unmatched=-0.5).tolist() == [1, 1, -0.5]


def test_a_likeness_of_nothing_is_no_match():
    for assignment in ("hard", "greedy"):
        assert matched(np.array([[0.0, 0.5], [0.0, 0.25]]), assignment, unmatched=-0.5).tolist() == [0.5, -0.5]


def test_without_calls_or_references_nothing_is_matched():
    for assignment in ("hard", "greedy", "soft"):
        assert matched(np.zeros((0, 3)), assignment).tolist() == []
        assert matched(np.zeros((2, 0)), assignment).tolist() == [0, 0]
    assert matched(np.zeros((2, 0)), "hard", unmatched=-0.5).tolist() == [-0.5, -0.5]


@given(st.permutations(range(3)))
@settings(deadline=None)
def test_permuted_calls_have_permuted_worths(order):
    table = np.array([[0.9, 0.3, 0.05], [0.8, 0.1, 0.2], [0.15, 0.6, 0.4]])
    for assignment in ("hard", "greedy", "soft"):
        assert matched(table[order], assignment) == pytest.approx(matched(table, assignment)[order], abs=1e-9)


# ---- transport ------------------------------------------------------------------------------------------------------


def test_transport_between_one_and_one_or_two_leaves_no_choice():
    assert matched(np.array([[0.7]]), "soft").tolist() == pytest.approx([0.7])
    assert matched(np.array([[0.9], [0.5]]), "soft").tolist() == pytest.approx([0.45, 0.25])


def test_a_large_regularization_spreads_evenly_and_a_small_one_assigns():
    table = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.7]])
    assert matched(table, "soft", regularization=1e6) == pytest.approx(table.mean(1) / 3, abs=1e-6)
    square = np.array([[0.9, 0.8], [0.8, 0.1]])
    assert matched(square, "soft", regularization=0.02) == pytest.approx(matched(square) / 2, abs=1e-4)


@given(TABLES, st.floats(0.05, 10))
@settings(max_examples=40, deadline=None)
def test_the_plan_has_uniform_marginals_and_pays_at_most_one(table, regularization):
    plan = transport(-table, regularization)
    assert plan.sum(1) == pytest.approx(np.full(len(table), 1 / len(table)), abs=1e-8)
    # Rows are normalised last; columns come near as far as the rounds go, which are few where little is regularised.
    assert plan.sum(0) == pytest.approx(np.full(table.shape[1], 1 / table.shape[1]), abs=1e-3)
    assert matched(table, "soft", regularization=regularization).sum() <= 1 + 1e-6


def test_the_plan_obeys_the_form_of_the_optimum():
    # T_ij = a_i b_j exp(-C_ij / reg): cross ratios are those of the kernel.
    cost = np.array([[0.1, 0.5], [0.4, 0.2]])
    plan = transport(cost, 0.1)
    kernel = np.exp(-cost / 0.1)
    cross = [m[0, 0] * m[1, 1] / (m[0, 1] * m[1, 0]) for m in (plan, kernel)]
    assert cross[0] == pytest.approx(cross[1])


# ---- turns ----------------------------------------------------------------------------------------------------------


def test_a_turn_is_worth_the_mean_of_its_calls_and_nothing_without_one():
    right, wrong = ToolCall("f", {}), ToolCall("g", {})
    assert turn_worth([[right, wrong], [], [right]], [right, right]) == [0.5, 0.0, 1.0]
    assert turn_worth([[right], [right]], [right]) == [1.0, 0.0]
    assert turn_worth([], [right]) == []


def test_a_later_call_that_fits_better_takes_the_match():
    poor, good = ToolCall("f", {"a": 2}), ToolCall("f", {"a": 1})
    wanted = [ToolCall("f", {"a": 1})]
    assert turn_worth([[poor]], wanted) == [pytest.approx(2 / 3)]
    assert turn_worth([[poor], [good]], wanted) == [0.0, 1.0]
