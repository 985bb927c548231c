"""The repeated dilemma: payoffs, players in closed form, schedules, and opponents who react."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent.repeated import (
    Constant,
    ContinuousDilemma,
    Phase,
    Schedule,
    SmoothedTitForTat,
    TitForTat,
    interrupted,
    play_repeated,
)

NOISY = Schedule((Phase(4000, 0.1),))


@pytest.mark.parametrize(("mine", "theirs", "earned"), [(1, 1, 3), (1, 0, 0), (0, 1, 5), (0, 0, 1), (0.5, 0.5, 2.25)])
def test_payoffs_at_the_corners_and_in_the_middle(mine, theirs, earned):
    found = ContinuousDilemma().payoff(np.array([mine], dtype=float), np.array([theirs], dtype=float))
    assert found.tolist() == [earned]


@given(*[st.floats(0, 1)] * 2)
def test_a_payoff_is_that_of_cooperating_with_these_probabilities(mine, theirs):
    corners = np.array([[1.0, 5.0], [0.0, 3.0]])  # mine by theirs, defecting first
    expected = np.array([1 - mine, mine]) @ corners @ np.array([1 - theirs, theirs])
    found = ContinuousDilemma().payoff(np.array([mine]), np.array([theirs]))[0]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("mine", "theirs", "who"), [(1.1, 0.5, "mine"), (0.5, -0.1, "theirs"), (np.nan, 0, "mine")])
def test_actions_outside_the_range_are_refused(mine, theirs, who):
    with pytest.raises(InputError, match=f"an action of {who} is not in"):
        ContinuousDilemma().payoff(np.array([mine]), np.array([theirs]))


def test_tit_for_tat_does_what_was_done():
    match = play_repeated(TitForTat(), Schedule((Phase(50, 0.5),)), 4, 0)
    np.testing.assert_array_equal(match.mine[1:], match.theirs[:-1])
    np.testing.assert_array_equal(match.mine[0], match.theirs[0])


@pytest.mark.parametrize(("memory", "variance"), [(0.0, 0.09), (0.9, 0.004737), (0.95, 0.002308), (0.99, 0.000452)])
def test_the_variance_of_smoothed_tit_for_tat_is_known(memory, variance):
    assert 0.09 * (1 - memory) / (1 + memory) == pytest.approx(variance, abs=1e-6)
    found = ((play_repeated(SmoothedTitForTat(memory), NOISY, 300, 3).mine[1000:] - 0.9) ** 2).mean()
    assert found == pytest.approx(variance, rel=0.05)


def test_without_memory_smoothed_tit_for_tat_is_tit_for_tat():
    smooth, plain = (play_repeated(who, interrupted(), 3, 5) for who in (SmoothedTitForTat(0.0), TitForTat()))
    np.testing.assert_array_equal(smooth.mine, plain.mine)


def test_the_interrupted_schedule():
    schedule = interrupted()
    theirs = schedule.draw(200, 0)
    assert schedule.rounds == 1750 and schedule.edges == [0, 500, 550, 1050, 1250, 1750]
    assert theirs[:500].all() and not theirs[500:550].any() and theirs[550:1050].all() and theirs[1250:].all()
    assert theirs[1050:1250].mean() == pytest.approx(0.7, abs=0.01)
    assert interrupted(200, 0.0).rounds == 1900


def test_defecting_always_earns_five_a_round_of_cooperation():
    match = play_repeated(Constant(0.0), interrupted(noisy=0.0), 2, 0)
    assert match.payoffs.mean() == pytest.approx((1700 * 5 + 50) / 1750)


def test_all_players_meet_the_same_actions():
    first, second = (play_repeated(who, interrupted(), 5, 9) for who in (TitForTat(), Constant(0.3)))
    np.testing.assert_array_equal(first.theirs, second.theirs)
    assert not np.array_equal(first.theirs, play_repeated(TitForTat(), interrupted(), 5, 10).theirs)


def test_against_one_who_reacts_defecting_pays_once():
    match = play_repeated(Constant(0.0), TitForTat(), 2, 0, rounds=10)
    assert match.payoffs[:, 0].tolist() == [5.0] + [1.0] * 9
    assert play_repeated(TitForTat(), TitForTat(), 1, 0, rounds=10).payoffs.mean() == 3


def test_an_opponent_who_reacts_sees_what_was_done_and_not_what_will_be():
    match = play_repeated(SmoothedTitForTat(0.5), Constant(0.2), 1, 0, rounds=4)
    np.testing.assert_allclose(match.mine[:, 0], [1, 0.6, 0.4, 0.3])
    other = play_repeated(Constant(0.2), SmoothedTitForTat(0.5), 1, 0, rounds=4)
    np.testing.assert_allclose(other.theirs[:, 0], [1, 0.6, 0.4, 0.3])


def test_fewer_rounds_are_the_beginning_of_the_schedule():
    short, whole = (play_repeated(TitForTat(), interrupted(), 2, 1, rounds=rounds) for rounds in (1100, None))
    np.testing.assert_array_equal(short.payoffs, whole.payoffs[:1100])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: play_repeated(TitForTat(), NOISY, 0, 0), "runs = 0, rounds = 4000"),
        (lambda: play_repeated(TitForTat(), NOISY, 1, 0, rounds=0), "rounds = 0"),
        (lambda: play_repeated(TitForTat(), TitForTat(), 1, 0), "rounds = None"),
        (lambda: play_repeated(TitForTat(), interrupted(), 1, 0, rounds=1751), "the schedule has 1750"),
        (lambda: Schedule(()), "at least one phase"),
        (lambda: Phase(0), "phase: rounds=0"),
        (lambda: Phase(5, 1.5), "phase: defects=1.5"),
        (lambda: Constant(1.5), "constant player: action=1.5"),
        (lambda: SmoothedTitForTat(1.0), "smoothed tit for tat: memory=1.0"),
    ],
)
def test_wrong_values_are_refused(make, expected):
    with pytest.raises(InputError, match=expected):
        make()
