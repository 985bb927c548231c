"""Feasible actions: what programs see is what counting says, and wrong input."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from stratagem.bandits import Capacities, Interventions, LinearConstraints, Slots, Walk, drawn_problem
from stratagem.errors import InputError


def _everything(entries):
    return np.array(list(product((False, True), repeat=entries)))


def _fulfils(feasible, action):
    """Whether there are helpers for an action, asked of a solver of its own."""
    limits = feasible.constraints()
    found = milp(
        np.zeros(limits.rows.shape[1]),
        integrality=np.concatenate([np.ones(len(action)), limits.whole]),
        bounds=Bounds(np.concatenate([action, np.zeros(limits.helpers)]), np.concatenate([action, limits.largest])),
        constraints=LinearConstraint(limits.rows, limits.lower, limits.upper),
    )
    return found.status == 0


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["interventions", "walk", "slots", "capacities"]))
def test_the_constraints_hold_for_the_actions_that_counting_finds_and_no_others(seed, kind):
    feasible = drawn_problem(kind, seed, arms=3 if kind == "interventions" else 4).feasible
    everything = _everything(feasible.entries)
    assert [_fulfils(feasible, action) for action in everything] == feasible.contains(everything).tolist()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["interventions", "walk", "slots", "capacities"]))
def test_drawn_actions_are_feasible_and_reach_more_than_one(seed, kind):
    feasible = drawn_problem(kind, seed).feasible
    drawn = feasible.draw(np.random.default_rng(seed), 100)
    assert drawn.shape == (100, feasible.entries) and feasible.contains(drawn).all()
    assert len(np.unique(drawn, axis=0)) > 1 or len(feasible.every) <= 4


def test_a_walk_visits_what_it_can_reach_and_return_from():
    """A path 0 - 1 - 2 - 3 with budget 2: four steps from node 0 reach node 2 and no further."""
    walk = Walk(4, [(0, 1), (1, 2), (2, 3)], source=0, budget=2)
    pulled = {tuple(np.flatnonzero(action)) for action in walk.every}
    assert pulled == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}
    assert {tuple(np.flatnonzero(one)) for one in Walk(3, [], 1, 2).every} == {(), (1,)}


def test_two_workers_may_share_a_slot_of_an_arm():
    available = np.array([[1, 0], [0, 1]], dtype=bool)
    assert Slots(available, np.array([[1, 0], [1, 0]]), 2).every.tolist() == [[False, False], [True, False]]
    assert Slots(available, np.array([[1, 1]]), 2).every.sum() == 0
    assert len(Slots(np.ones((2, 2)), np.array([[1, 1], [1, 1]]), 2).every) == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.lists(st.integers(0, 7), min_size=1, max_size=3))
def test_arms_fit_when_some_order_of_filling_does(costs, capacities):
    feasible = Capacities(costs, capacities)

    def fits(chosen):
        places = product(range(len(capacities)), repeat=len(chosen))
        return any(
            all(sum(c for c, p in zip(chosen, place, strict=True) if p == w) <= r for w, r in enumerate(capacities))
            for place in places
        )

    everything = _everything(len(costs))
    expected = [fits([cost for cost, one in zip(costs, action, strict=True) if one]) for action in everything]
    assert feasible.contains(everything).tolist() == expected
    for order in permutations(capacities):
        assert Capacities(costs, order).contains(everything).tolist() == expected


def test_budgets_may_be_larger_than_there_are_arms_or_zero():
    assert Interventions(3, 7).every.tolist() == [[True] * 3]
    assert Interventions(3, 0).every.tolist() == [[False] * 3]
    assert len(Walk(3, [(0, 1), (1, 2)], 0, 9).every) == 8
    assert Walk(3, [(0, 1)], 0, 0).every.sum() == 0
    assert Capacities([1, 2], []).every.sum() == 0


def test_any_linear_constraints_can_be_given():
    feasible = LinearConstraints([[1, 1, 1], [1, -1, 0]], [2, 0], [2, np.inf])
    assert feasible.every.tolist() == [[True, False, True], [True, True, False]]
    assert feasible.extendable(np.array([[True, False, False], [False, True, True]])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: LinearConstraints([[1, 1]], [3], [3]).every, "LinearConstraints: no action fulfils the constraints"),
        (
            lambda: LinearConstraints([[1, 1]], [3], [3]).draw(np.random.default_rng(0)),
            "LinearConstraints: no action fulfils",
        ),
        (lambda: Interventions(20, 2).every, "actions of 20 entries: more than 16 are not counted"),
        (lambda: LinearConstraints([1, 1], [3], [3]), "rows: must be a table"),
        (lambda: LinearConstraints([[1, 1]], [3, 1], [3, 4]), "one number for each of the 1 rows"),
        (lambda: LinearConstraints([[1, np.nan]], [3], [3]), "rows must be finite"),
        (lambda: Walk(3, [(0, 3)], 0, 1), "nodes must be from 0 to 2"),
        (lambda: Walk(3, [], 3, 1), "source = 3: must be from 0 to 2"),
        (lambda: Walk(3, [], 0, -1), "budget = -1: must be at least 0"),
        (lambda: Slots(np.ones((2, 3)), np.ones((2, 2)), 1), "the same slots"),
        (lambda: Capacities([1, -1], [2]), "must be at least 0"),
        (lambda: Capacities([], [2]), "arms = 0"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
