from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from stratagem.multiagent.barriers import barrier_constraints, box_constraints, nearest, signed_power


def filtered(zeta: float, eta: float = 1.0, place: float = 0.0, share: float = 1.0) -> np.ndarray:
    """A point that wants to go right at speed 1, and an obstacle of radius 1 at (2, 0)."""
    row = np.array([[[place - 2.0, 0.0]]]), np.array([[1.0]]), np.array([[share]]), np.array([[True]])
    made = barrier_constraints(*row, np.array([zeta]), np.array([eta]))
    return nearest(np.array([[1.0, 0.0]]), *made).velocity[0]


@pytest.mark.parametrize(("zeta", "expected"), [(1.0, 0.75), (2.0, 1.0), (0.1, 0.075)])
def test_one_barrier_slows_what_heads_for_it(zeta: float, expected: float) -> None:
    assert filtered(zeta) == pytest.approx([expected, 0.0])


def test_the_exponent_binds_less_far_away_and_more_close_by() -> None:
    assert filtered(1.0, eta=2.0) == pytest.approx([1.0, 0.0])
    near = 2.0 - np.sqrt(1.5)  # Where h is a half.
    assert filtered(1.0, eta=1.0, place=near) == pytest.approx([0.2041, 0.0], abs=1e-4)
    assert filtered(1.0, eta=2.0, place=near) == pytest.approx([0.1021, 0.0], abs=1e-4)


def test_half_the_responsibility_is_half_the_bound() -> None:
    assert filtered(1.0, share=0.5) == pytest.approx([0.375, 0.0])


def test_the_unit_of_length_does_not_change_what_an_exponent_of_one_allows() -> None:
    row = np.array([[[-2.0, 0.0]]]), np.array([[1.0]]), np.array([[1.0]]), np.array([[True]])
    for unit in (0.3, 1.0, 2.0):
        made = barrier_constraints(*row, np.array([0.5]), np.array([1.0]), unit)
        assert made.bound[0, 0] == pytest.approx(-1.5)
    doubled = barrier_constraints(*(2 * part for part in row[:2]), *row[2:], np.array([0.5]), np.array([2.0]), 2.0)
    plain = barrier_constraints(*row, np.array([0.5]), np.array([2.0]), 1.0)
    assert doubled.bound[0, 0] == pytest.approx(4 * plain.bound[0, 0])


def test_below_the_barrier_it_must_grow_whatever_the_exponent() -> None:
    assert signed_power(np.array([-0.25]), np.array([0.5])) == pytest.approx([-0.5])
    assert filtered(1.0, eta=1.5, place=1.5)[0] < 0


def test_who_stands_in_another_exactly_has_no_allowed_velocity_and_stops() -> None:
    row = np.zeros((1, 1, 2)), np.array([[0.5]]), np.array([[1.0]]), np.array([[True]])
    found = nearest(np.array([[1.0, 0.0]]), *barrier_constraints(*row, np.ones(1), np.ones(1)))
    assert not found.feasible[0] and found.velocity.tolist() == [[0.0, 0.0]]


def test_who_has_no_neighbour_does_what_it_wants() -> None:
    row = np.ones((1, 3, 2)), np.full((1, 3), 9.0), np.ones((1, 3)), np.zeros((1, 3), dtype=bool)
    found = nearest(np.array([[0.3, -0.2]]), *barrier_constraints(*row, np.ones(1), np.ones(1)))
    assert found.feasible[0] and found.velocity.tolist() == [[0.3, -0.2]]
    alone = nearest(np.array([[0.3, -0.2]]), np.zeros((1, 0, 2)), np.zeros((1, 0)))
    assert alone.velocity.tolist() == [[0.3, -0.2]]


def test_a_box_clips_each_axis() -> None:
    found = nearest(np.array([[3.0, -0.5], [0.2, -4.0]]), *box_constraints(2, 1.0))
    assert found.velocity == pytest.approx(np.array([[1.0, -0.5], [0.2, -1.0]]))


def test_two_opposite_constraints_without_room_are_not_feasible() -> None:
    normal = np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    assert not nearest(np.zeros((1, 2)), normal, np.array([[1.0, 0.0]])).feasible[0]
    assert nearest(np.zeros((1, 2)), normal, np.array([[1.0, -1.0]])).velocity[0] == pytest.approx([1.0, 0.0])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_nearest_velocity_is_that_of_a_numerical_solver(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    normal, wanted = rng.normal(size=(1, count, 2)), rng.normal(size=(1, 2))
    inside = rng.normal(size=2)
    bound = (normal[0] @ inside - rng.random(count) * 2)[None]
    found = nearest(wanted, normal, bound)
    assert found.feasible[0]
    solved = minimize(
        lambda u: ((u - wanted[0]) ** 2).sum(),
        inside,
        jac=lambda u: 2 * (u - wanted[0]),
        constraints={"type": "ineq", "fun": lambda u: normal[0] @ u - bound[0], "jac": lambda u: normal[0]},
        method="SLSQP",
    )
    assert (normal[0] @ found.velocity[0] >= bound[0] - 1e-6).all()
    assert ((found.velocity[0] - wanted[0]) ** 2).sum() <= solved.fun + 1e-5


def test_rows_do_not_know_of_each_other() -> None:
    rng = np.random.default_rng(0)
    wanted, normal, bound = rng.normal(size=(20, 2)), rng.normal(size=(20, 5, 2)), rng.normal(size=(20, 5)) - 0.5
    together = nearest(wanted, normal, bound)
    for row in range(20):
        alone = nearest(wanted[row : row + 1], normal[row : row + 1], bound[row : row + 1])
        assert np.array_equal(alone.velocity[0], together.velocity[row])
        assert alone.feasible[0] == together.feasible[row]


def test_barriers_with_parameters_drawn_anew_keep_two_who_meet_apart() -> None:
    rng = np.random.default_rng(0)
    place, least = np.array([[-0.5, 0.0], [0.5, 0.0]]), np.inf
    for _ in range(1000):
        away = (place - place[::-1])[:, None]
        zeta, eta = np.exp(rng.uniform(np.log(0.1), np.log(10), 2)), rng.uniform(1, 3, 2)
        row = np.full((2, 1), 0.4), np.full((2, 1), 0.5), np.ones((2, 1), dtype=bool)
        made = barrier_constraints(away, *row, zeta, eta, 0.4)
        place = place + 0.001 * nearest(np.array([[1.0, 0.0], [-1.0, 0.0]]), *made).velocity
        least = min(least, float(((place[0] - place[1]) ** 2).sum() - 0.16))
    assert -1e-3 <= least < 0.2


def head_on(zeta: tuple[float, float], bias: float) -> tuple[np.ndarray, float]:
    """Two who change places: where they come to, and how fast they are in the end."""
    place, goal = np.array([[-1.0, bias], [1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]])
    speed = 0.0
    for _ in range(2000):
        away = (place - place[::-1])[:, None]
        row = np.full((2, 1), 0.4), np.full((2, 1), 0.5), np.ones((2, 1), dtype=bool)
        made = barrier_constraints(away, *row, np.array(zeta), np.ones(2), 0.4)
        want = goal - place
        length = np.linalg.norm(want, axis=1, keepdims=True)
        velocity = nearest(want / np.maximum(length, 1e-9) * np.minimum(1.0, length / 0.02), *made).velocity
        place, speed = place + 0.02 * velocity, float(np.abs(velocity).max())
    return np.linalg.norm(place - goal, axis=1), speed


def test_equal_barriers_stall_head_on_and_a_lateral_bias_resolves_it() -> None:
    left, speed = head_on((1.0, 1.0), 0.0)
    assert (left > 1.0).all() and speed < 1e-6
    left, _ = head_on((1.0, 1.0), 0.02)
    assert (left < 0.05).all()
