"""Echo state networks: growth, teaching, habituation, and where they settle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.multiagent.reservoir import Reservoir, bounded_radius, spectral_radius
from stratagem.seeding import numpy_generator

SHORT = Reservoir(rounds=3, drive=50, samples=300, burn_in=50)
ONES = np.ones(4)


@pytest.fixture(scope="module")
def newborn():
    return SHORT.newborn(4, 1000)


def test_a_complex_pair_of_eigenvalues_is_measured_by_its_modulus():
    turn = np.array([[0.0, -2.0], [2.0, 0.0]])
    assert spectral_radius(turn) == pytest.approx(2.0)
    assert spectral_radius(np.stack([turn, np.diag([0.5, -3.0])])).tolist() == pytest.approx([2.0, 3.0])


def test_a_matrix_without_radius_is_not_scaled():
    nilpotent = np.array([[0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(bounded_radius(nilpotent, 0.9, 0.9), nilpotent)


def test_radii_are_brought_within_bounds_and_left_alone_inside():
    matrices = np.stack([np.diag([2.0, 1.0]), np.diag([0.01, 0.0]), np.diag([0.5, 0.2])])
    found = bounded_radius(matrices, 0.05, 0.99)
    assert spectral_radius(found).tolist() == pytest.approx([0.99, 0.05, 0.5])
    np.testing.assert_array_equal(found[2], matrices[2])


def test_newborn_bodies_have_the_radius_asked_for(newborn):
    np.testing.assert_allclose(spectral_radius(newborn.recurrent), 0.9)
    assert newborn.inputs.std() == pytest.approx(0.5, rel=0.2) and newborn.bias.std() == pytest.approx(0.3, rel=0.3)


def test_the_readout_is_the_ridge_regression_of_the_logits():
    born = Reservoir(size=4, samples=200, burn_in=20, ridge=0.05).newborn(3, 5)
    inputs = np.array([[1.0] * 3, [0.0] * 3])
    rng = numpy_generator(5, "reservoir", "teaching")
    states = born.wander(np.zeros((2, 3, 4)), born.driven(inputs, inputs), 220, rng)[20:]
    targets = np.repeat([np.log(19), -np.log(19)], 200)
    for body in range(3):
        design = np.column_stack([np.concatenate([states[:, 0, body], states[:, 1, body]]), np.ones(400)])
        penalty = np.diag([*[0.05 * 400] * 4, 0.0])
        expected = np.linalg.solve(design.T @ design + penalty, design.T @ targets)
        np.testing.assert_allclose([*born.readout[body], born.offset[body]], expected)


def test_taught_bodies_tell_cooperation_from_defection(newborn):
    rng = np.random.default_rng(1)
    for drive, bounds in ((1.0, (0.85, 1.0)), (0.0, (0.0, 0.15))):
        inputs = np.full(4, drive)
        visited = newborn.wander(np.zeros((4, 30)), newborn.driven(inputs, inputs), 300, rng)[100:]
        acts = newborn.act(visited).mean(0)
        assert ((acts > bounds[0]) & (acts < bounds[1])).all()


def test_habituation_moves_recurrent_weights_alone(newborn):
    grown = SHORT.grow(4, 1000)
    for name in ("inputs", "bias", "readout", "offset"):
        np.testing.assert_array_equal(getattr(grown, name), getattr(newborn, name))
    assert not np.allclose(grown.recurrent, newborn.recurrent)
    radius = spectral_radius(grown.recurrent)
    assert ((radius >= 0.05 - 1e-9) & (radius <= 0.99 + 1e-9)).all()


def test_one_round_of_habituation_by_hand(newborn):
    how = replace(SHORT, rounds=1, drive=2, noise=0.0, radius=0.5)
    born, grown = how.newborn(2, 7), how.grow(2, 7)
    drive = born.driven(np.ones(2), np.ones(2))
    first = np.tanh(drive)
    second = np.tanh(np.einsum("bij,bj->bi", born.recurrent, first) + drive)
    together = (np.einsum("bi,bj->bij", first, first) + np.einsum("bi,bj->bij", second, second)) / 2
    squares = np.stack([np.diag(one) for one in together])[..., None]
    moved = born.recurrent + 0.01 * (together - squares * born.recurrent)
    np.testing.assert_allclose(grown.recurrent, bounded_radius(moved, 0.05, 0.99), atol=1e-12)


def test_without_noise_contracting_bodies_forget_where_they_began():
    born = Reservoir(radius=0.5, samples=50, burn_in=10).newborn(1, 3)
    weak = replace(born, readout=0.01 * born.readout)
    starts = np.random.default_rng(0).uniform(-1, 1, (20, 1, 30))
    ends = weak.settled(1.0, starts, steps=200)
    assert np.abs(ends - ends[0]).max() < 1e-8


def test_where_a_body_settles_is_a_fixed_point_and_its_jacobian_is_the_derivative():
    born = Reservoir(size=6, radius=0.5, samples=50, burn_in=10).newborn(2, 3)
    bodies = replace(born, readout=0.3 * born.readout)
    point = bodies.settled(1.0)

    def once(state):
        mine = bodies.act(state)
        return bodies.step(state, bodies.driven(mine, np.ones_like(mine)))

    np.testing.assert_allclose(once(point), point, atol=1e-10)
    jacobian = bodies.jacobian(point)
    for unit in range(6):
        nudge = np.zeros((2, 6))
        nudge[:, unit] = 1e-6
        slope = (once(point + nudge) - once(point - nudge)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, unit], slope, atol=1e-8)
    assert (spectral_radius(jacobian) < 1).all()


def test_bodies_are_the_same_for_one_seed_and_no_other():
    small = Reservoir(size=5, rounds=1, drive=5, samples=20, burn_in=5)
    assert small.grow(2, 1) is small.grow(2, 1)
    np.testing.assert_array_equal(small.newborn(2, 1).recurrent, small.newborn(2, 1).recurrent)
    assert not np.array_equal(small.grow(2, 1).recurrent, small.grow(2, 2).recurrent)


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"radius": 0.0}, {"noise": -0.1}, {"cooperative": 0.5}, {"ridge": 0.0}, {"samples": 0}]
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(InputError, match="reservoir: "):
        Reservoir(**wrong)


def test_at_least_one_body():
    with pytest.raises(InputError, match="bodies = 0"):
        SHORT.grow(0, 0)
