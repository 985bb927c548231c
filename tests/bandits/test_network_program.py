"""ReLU networks inside mixed-integer programs: the optimum is what enumeration finds."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.bandits import Counted, Interventions, LinearConstraints, MixedInteger, ReluNetwork, drawn_problem
from stratagem.errors import InputError

ANY = LinearConstraints(np.zeros((1, 4)), [0], [0])
AT_MOST_TWO = LinearConstraints(np.ones((1, 4)), [-np.inf], [2])


def _network(source, sizes, scale=1.0):
    shapes = list(zip(sizes[1:], sizes, strict=False))
    return ReluNetwork(
        tuple(scale * source.standard_normal(shape) for shape in shapes),
        tuple(scale * source.standard_normal(shape[0]) for shape in shapes),
    )


def _brute(network, state, allowed):
    """The least output over 0/1 vectors, layer by layer in plain Python."""
    found = []
    for action in product((0.0, 1.0), repeat=network.weights[0].shape[1] - len(state)):
        if allowed(action):
            values = np.array([*action, *state])
            for number, (layer, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
                values = layer @ (np.maximum(values, 0) if number else values) + bias
            found.append(float(values[0]))
    return min(found)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([(4, 3, 1), (6, 3, 2, 1), (5, 1)]), st.sampled_from([0.3, 1.0, 4.0]))
def test_the_programs_optimum_is_that_of_brute_force(seed, sizes, scale):
    source = np.random.default_rng(seed)
    network = _network(source, sizes, scale)
    states = source.integers(4, size=(1, sizes[0] - 4)).astype(float)
    solver = MixedInteger()
    actions, values = solver.least(network, states, AT_MOST_TWO)
    assert values[0] == pytest.approx(_brute(network, states[0], lambda action: sum(action) <= 2), abs=1e-6)
    assert actions.sum() <= 2 and (solver.solved, solver.fallbacks) == (1, 0)
    assert Counted().least(network, states, AT_MOST_TWO)[1] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("kind", ["interventions", "walk", "slots", "capacities"])
def test_the_program_is_as_good_as_counting_in_all_four_problems(kind):
    bandit = drawn_problem(kind, 7)
    source = np.random.default_rng(3)
    network = _network(source, (12, 6, 5, 1), 0.7)
    states = source.integers(4, size=(4, 6)).astype(float)
    actions, values = MixedInteger().least(network, states, bandit.feasible)
    assert bandit.feasible.contains(actions).all()
    np.testing.assert_allclose(values, Counted().least(network, states, bandit.feasible)[1], atol=1e-6)


def test_units_that_are_always_on_or_off_are_solved_too():
    weights = (np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]), np.array([[1.0, 1.0, -5.0]]))
    for biases in ([5.0, 5.0, -5.0], [-5.0, -5.0, -5.0]):
        network = ReluNetwork(weights, (np.array(biases), np.array([0.5])))
        both = LinearConstraints(np.zeros((1, 2)), [0], [0])
        _, value = MixedInteger().least(network, np.empty((1, 0)), both)
        assert value[0] == pytest.approx(_brute(network, [], lambda action: True), abs=1e-9)


def test_a_state_only_moves_the_first_biases():
    source = np.random.default_rng(0)
    network = _network(source, (6, 4, 1))
    states, actions = source.integers(3, size=(5, 2)).astype(float), ANY.every
    table = network.each(states, actions)
    for number, state in enumerate(states):
        alone = network.given(state).each(np.empty((1, 0)), actions)[0]
        np.testing.assert_allclose(alone, table[number], atol=1e-12)
        np.testing.assert_allclose(network.pairs(np.tile(state, (16, 1)), actions), table[number], atol=1e-12)


def test_a_program_out_of_time_falls_back_on_a_random_feasible_action_and_says_so():
    solver = MixedInteger(time_limit=1e-9)
    network = _network(np.random.default_rng(0), (16, 16, 16, 1))
    actions, values = solver.least(network, np.zeros((2, 4)), Interventions(12, 5))
    assert solver.fallbacks == 2 and actions.sum(-1).tolist() == [5, 5] and np.isfinite(values).all()


def test_a_set_without_actions_is_refused_in_one_line():
    network = _network(np.random.default_rng(0), (4, 3, 1))
    for minimizer in (MixedInteger(), Counted()):
        with pytest.raises(InputError, match="LinearConstraints: no action fulfils the constraints"):
            minimizer.least(network, np.empty((1, 0)), LinearConstraints(np.ones((1, 4)), [5], [5]))


def test_a_missing_solver_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(InputError, match=r"needs highspy: pip install 'stratagem\[bandits\]'"):
        MixedInteger().least(_network(np.random.default_rng(0), (4, 1)), np.empty((1, 0)), ANY)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: MixedInteger(time_limit=0), "mixed_integer: time_limit=0"),
        (lambda: ReluNetwork((np.ones((2, 3)), np.ones((1, 3))), (np.ones(2), np.ones(1))), "do not fit each other"),
        (lambda: ReluNetwork((np.ones((2, 3)),), (np.ones(2),)), "has 2 outputs"),
        (lambda: ReluNetwork((np.array([[np.nan]]),), (np.ones(1),)), "must be finite"),
        (lambda: ReluNetwork((), ()), "do not fit"),
    ],
)
def test_wrong_networks_are_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
