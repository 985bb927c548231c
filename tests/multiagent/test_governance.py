"""The sentinel by hand, what a governed player does, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.multiagent.governance import (
    BodyGovernance,
    Sentinel,
    complexity,
    neighbour_divergence,
    smoothing_bound,
)
from stratagem.multiagent.repeated import Constant, Phase, Schedule, TitForTat, interrupted, play_repeated
from stratagem.multiagent.reservoir import Reservoir

SMALL = Reservoir(size=10, rounds=2, drive=50, samples=200, burn_in=50)
NOISY = Schedule((Phase(400, 0.1),))


def settled(discomfort):
    alpha = np.array([0.85])
    for _ in range(2000):
        alpha = Sentinel().governed(alpha, np.array([discomfort]))
    return float(alpha[0])


@pytest.mark.parametrize(("discomfort", "alpha"), [(0.0, 0.85), (0.1, 0.85), (0.13, 0.55), (0.18, 0.05), (0.3, 0.05)])
def test_alpha_comes_to_rest_where_it_should(discomfort, alpha):
    assert settled(discomfort) == pytest.approx(alpha, abs=1e-6)


def test_two_steps_of_alpha_by_hand():
    first = Sentinel().governed(np.array([0.85]), np.array([0.5]))
    assert first[0] == pytest.approx(0.65)
    assert Sentinel().governed(first, np.array([0.5]))[0] == pytest.approx(0.46)


def test_discomfort_is_a_weighted_sum_of_three():
    found = Sentinel().discomfort(
        np.array([[3.0, 0.0, 0.0, 4.0]]), np.zeros((1, 4)), np.array([0.9]), np.array([0.7]), np.array([0.0])
    )
    assert found[0] == pytest.approx(0.3 * 2.5 + 0.3 * 0.2 + 0.4 * 0.9)


def test_with_alpha_zero_it_is_tit_for_tat_exactly():
    ours, tit = (play_repeated(who, interrupted(), 3, 1000) for who in (BodyGovernance(SMALL, alpha=0.0), TitForTat()))
    np.testing.assert_array_equal(ours.mine, tit.mine)


def test_with_alpha_one_it_is_the_body():
    match = play_repeated(BodyGovernance(SMALL, alpha=1.0), NOISY, 3, 1000)
    np.testing.assert_array_equal(match.mine, match.figures["body"])


def test_the_action_is_the_mixture_of_body_and_thought():
    match = play_repeated(BodyGovernance(SMALL), NOISY, 3, 1000)
    alpha, body = match.figures["alpha"][1:], match.figures["body"][1:]
    np.testing.assert_allclose(match.mine[1:], alpha * body + (1 - alpha) * match.theirs[:-1])


def test_alpha_counts_in_the_round_of_its_discomfort():
    match = play_repeated(BodyGovernance(SMALL), NOISY, 3, 1000)
    alpha, sentinel = np.full(3, 0.85), Sentinel()
    for said, discomfort in zip(match.figures["alpha"], match.figures["discomfort"], strict=True):
        alpha = sentinel.governed(alpha, discomfort)
        np.testing.assert_allclose(said, alpha)


def test_means_are_moved_after_the_discomfort_of_a_round():
    match = play_repeated(BodyGovernance(SMALL, Sentinel(state=0.0, action=1.0, conflict=0.0)), NOISY, 1, 1000)
    body, discomfort = match.figures["body"][:, 0], match.figures["discomfort"][:, 0]
    # |a(t) - m(t)| with m(t + 1) = m(t) + .02 (a(t) - m(t)): the sign is the only thing the figures do not tell.
    customs = [[body[0] - discomfort[0]], [body[0] + discomfort[0]]]
    matched = []
    for (custom,) in customs:
        found = []
        for now in body:
            found.append(abs(now - custom))
            custom += 0.02 * (now - custom)
        matched.append(np.allclose(found, discomfort))
    assert any(matched)


def test_the_body_hears_what_was_done_and_not_what_it_proposed():
    # At alpha .05 the body proposes what is hardly done. A body that heard itself would go the way of alpha 1.
    governed, alone = (
        play_repeated(BodyGovernance(SMALL, alpha=alpha), Schedule((Phase(60, 0.5),)), 2, 1000) for alpha in (0.05, 1.0)
    )
    bodies = SMALL.grow(2, 1000)
    assert np.abs(governed.figures["state"][1:] - alone.figures["state"][1:]).max() > 1e-3
    noise = governed.figures["state"][1:] - np.stack(
        [
            bodies.step(state, bodies.driven(mine, theirs))
            for state, mine, theirs in zip(
                governed.figures["state"][:-1], governed.mine[:-1], governed.theirs[:-1], strict=True
            )
        ]
    )
    assert noise.std() == pytest.approx(0.15, rel=0.1)
    first = alone.figures["state"][1] - bodies.step(
        alone.figures["state"][0], bodies.driven(alone.mine[0], alone.theirs[0])
    )
    np.testing.assert_allclose(noise[0], first)


def test_thought_may_be_any_player():
    match = play_repeated(BodyGovernance(SMALL, alpha=0.0, thought=Constant(0.25)), NOISY, 2, 0)
    assert (match.mine == 0.25).all()


def test_defection_takes_alpha_down_and_cooperation_brings_it_back():
    match = play_repeated(BodyGovernance(Reservoir(rounds=10)), interrupted(), 2, 1000)
    alpha = match.figures["alpha"].mean(1)
    assert alpha[520:550].mean() < 0.3 < 0.7 < alpha[900:1050].mean()


def test_a_seed_decides_all_of_it():
    first, again, other = (play_repeated(BodyGovernance(SMALL), NOISY, 2, seed).mine for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_the_divergence_of_a_distribution_from_itself_is_small():
    rng = np.random.default_rng(0)
    assert neighbour_divergence(rng.standard_normal((2000, 3)), rng.standard_normal((2000, 3))) < 0.1


def test_the_divergence_of_shifted_normals_is_half_the_squared_shift():
    rng = np.random.default_rng(1)
    shift = np.array([2.0, 0, 0])
    found = neighbour_divergence(rng.standard_normal((2000, 3)) + shift, rng.standard_normal((2000, 3)))
    assert found == pytest.approx(2.0, abs=0.4)


def test_points_that_coincide_have_a_divergence():
    rng = np.random.default_rng(2)
    found = neighbour_divergence(np.zeros((10, 2)), rng.standard_normal((10, 2)))
    assert np.isfinite(found) and found > 100
    assert neighbour_divergence(np.zeros((10, 2)), np.zeros((10, 2))) < 1


@pytest.mark.parametrize(("n", "m", "sizes"), [(5, 100, (2, 2)), (100, 5, (2, 2)), (100, 100, (2, 3))])
def test_samples_too_small_or_of_two_sizes_are_refused(n, m, sizes):
    with pytest.raises(InputError, match="needs more than 5 points each, of one size"):
        neighbour_divergence(np.zeros((n, sizes[0])), np.zeros((m, sizes[1])))


def test_overruling_a_body_costs_more_than_leaving_it_alone():
    alone, overruled = (
        complexity(BodyGovernance(SMALL, alpha=alpha), Schedule((Phase(600, 0.5),)), 2, 1000).mean()
        for alpha in (1.0, 0.0)
    )
    habit = complexity(BodyGovernance(SMALL, alpha=1.0), Schedule((Phase(600),)), 2, 1000)
    assert overruled > alone and habit.tolist() == [0.0, 0.0]


def test_the_bound_holds_for_small_slips_of_a_body_without_noise():
    quiet = Reservoir(size=10, radius=0.3, rounds=0, noise=0.0, samples=200, burn_in=50, ridge=0.3)
    bound = smoothing_bound(quiet.grow(4, 1000), 0.1)
    assert np.isfinite(bound).any()
    variance = play_repeated(BodyGovernance(quiet, alpha=1.0), NOISY, 4, 1000).mine.var(0)
    assert (variance <= bound).all()


def test_the_bound_by_hand():
    bodies = SMALL.newborn(1, 0)
    jacobian = bodies.jacobian(bodies.settled(1.0))[0]
    norm = np.linalg.svd(jacobian)[1][0]
    expected = np.inf
    if norm < 1:
        heard = (bodies.readout[0] ** 2).sum() * (bodies.inputs[0, :, 1] ** 2).sum()
        expected = heard / 16 * 0.09 / (1 - norm) ** 2
    assert smoothing_bound(bodies, 0.1)[0] == pytest.approx(expected)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_published_constants_are_the_defaults():
    player = catalogue.card("brg").build()
    assert player.alpha is None and player.thought == TitForTat() and player.sentinel == Sentinel()
    body = player.reservoir
    assert (body.size, body.radius, body.noise, body.input_scale, body.bias_scale) == (30, 0.9, 0.15, 0.5, 0.3)
    assert (body.rounds, body.drive, body.rate, body.burn_in, body.samples) == (200, 500, 0.01, 500, 2000)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: BodyGovernance(alpha=1.2), "brg: alpha=1.2"),
        (lambda: BodyGovernance(thought=3), "brg: thought=3"),
        (lambda: Sentinel(threshold=-0.1), "sentinel: threshold=-0.1"),
        (lambda: Sentinel(recovery=0.0), "sentinel: recovery=0.0"),
        (lambda: Sentinel(default=0.3, least=0.5), "least=0.5 is not allowed; at most default=0.3"),
    ],
)
def test_wrong_values_are_refused(make, expected):
    with pytest.raises(InputError, match=expected):
        make()
