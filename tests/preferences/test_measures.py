"""Winners, gaps, distances and win rates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from stratagem.errors import BrokenRunError, InputError
from stratagem.preferences.games import bradley_terry, cyclic, random_games
from stratagem.preferences.measures import (
    duality_gap,
    exact_win_rates,
    exploitability,
    kl,
    minimax_winner,
    regularized_gap,
    regularized_nash,
    span,
    win_rate,
    win_rate_matrix,
    win_rates,
)


def test_the_regularised_nash_policy_worked_by_hand(rock, reference):
    for strength, expected in ((0.5, (0.421817, 0.382589, 0.195595)), (0.1, (0.325867, 0.386174, 0.287958))):
        found = regularized_nash(rock, reference, strength)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
        fixed = torch.softmax(reference.log() + win_rates(rock, found) / strength, -1)
        torch.testing.assert_close(found, fixed, atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([0.005, 0.03, 0.2, 2.0]), st.booleans())
def test_the_regularised_nash_policy_is_solved_to_the_last_digit(seed, responses, strength, certain):
    source = torch.Generator().manual_seed(seed)
    wins = random_games(3, responses, source, certain)
    reference = torch.softmax(torch.randn(3, responses, generator=source, dtype=torch.float64), -1)
    found = regularized_nash(wins, reference, strength)
    fixed = torch.softmax(reference.log() + win_rates(wins, found) / strength, -1)
    torch.testing.assert_close(found, fixed, atol=3e-12, rtol=0)
    assert float(regularized_gap(wins, found, reference, strength).abs().max()) < 1e-10


def test_a_cycle_with_a_uniform_reference_has_a_uniform_solution():
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    for strength in (0.01, 1.0):
        torch.testing.assert_close(regularized_nash(cyclic(5), uniform, strength), uniform)


def test_the_limits_of_the_strength(reference):
    wins = bradley_terry(torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(regularized_nash(wins, reference, 1e6), reference, atol=1e-6, rtol=0)
    best = regularized_nash(wins, reference, 2e-3)
    assert float(best[1]) > 1 - 1e-6


def test_what_the_reference_never_gives_stays_out(rock):
    found = regularized_nash(rock, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), 0.1)
    assert found[2] == 0 and found.sum() == pytest.approx(1)


def test_bad_strengths_and_references_are_refused(rock, reference):
    with pytest.raises(InputError, match="strength = 0: must be above 0"):
        regularized_nash(rock, reference, 0)
    with pytest.raises(InputError, match="reference: must be probabilities"):
        regularized_nash(rock, 2 * reference, 0.1)
    with pytest.raises(InputError, match="must be 1"):
        minimax_winner(rock * 0.5)


def test_too_few_steps_are_no_solution(reference):
    wins = random_games(1, 3, torch.Generator().manual_seed(0))
    with pytest.raises(BrokenRunError, match="0 steps with strength"):
        regularized_nash(wins, reference, 1e-4, most=0)


def test_a_condorcet_winner_is_the_minimax_winner():
    wins = torch.tensor([[0.5, 0.6, 0.7], [0.4, 0.5, 0.9], [0.3, 0.1, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(minimax_winner(wins), torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_nobody_beats_a_minimax_winner():
    wins = random_games(20, 8, torch.Generator().manual_seed(5))
    winners = minimax_winner(wins)
    assert float(exploitability(wins, winners).max()) < 1e-8
    pure = torch.eye(8, dtype=torch.float64)[0].expand(20, 8)
    assert float(exploitability(wins, pure).min()) >= 0


def test_the_gap_is_that_of_both_players(rock, reference):
    assert float(exploitability(rock, reference)) == pytest.approx(0.15)
    worst = 1 - win_rates(rock, reference).amax()
    best = win_rates(rock, reference).amax()
    assert float(duality_gap(rock, reference)) == pytest.approx(float(best - worst))
    assert float(win_rate(rock, reference, reference)) == pytest.approx(0.5)


@given(st.integers(0, 10**6))
def test_the_regularised_gap_is_the_best_answer_to_a_policy(seed):
    source = torch.Generator().manual_seed(seed)
    wins = random_games(1, 4, source)[0]
    policy, reference = torch.softmax(torch.randn(2, 4, generator=source, dtype=torch.float64), -1)
    strength = 0.3

    def value(other: torch.Tensor) -> float:
        return float(win_rate(wins, other, policy) - strength * (kl(other, reference) - kl(policy, reference)))

    gap = float(regularized_gap(wins, policy, reference, strength)) + 0.5
    best = torch.softmax(reference.log() + win_rates(wins, policy) / strength, -1)
    assert value(best) == pytest.approx(gap, abs=1e-10)
    for other in torch.softmax(torch.randn(5, 4, generator=source, dtype=torch.float64), -1):
        assert value(other) <= gap + 1e-12


def test_distances():
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    q = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert float(kl(p, q)) == pytest.approx(0.5 * math.log(2)) and math.isinf(float(kl(q, p)))
    assert float(kl(p, p)) == 0
    assert float(span(p, q)) == pytest.approx(math.log(2))


# ---- head to head ---------------------------------------------------------------------------------------------------


def test_intervals_of_win_rates_are_wilsons():
    won = torch.tensor([[0.0, 37.0], [13.0, 0.0]])
    found = win_rate_matrix(won, torch.tensor([[0, 50], [50, 0]]))
    expected = binomtest(37, 50).proportion_ci(method="wilson")
    assert float(found.rate[0, 1]) == 0.74
    assert (float(found.low[0, 1]), float(found.high[0, 1])) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.rate[0, 0], found.low[0, 0], found.high[0, 0]) == (0.5, 0, 1)


def test_counts_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match="must add up to what was compared"):
        win_rate_matrix(torch.tensor([[0.0, 30.0], [30.0, 0.0]]), torch.tensor([[0, 50], [50, 0]]))
    with pytest.raises(InputError, match="square and of one shape"):
        win_rate_matrix(torch.zeros(2, 3), torch.zeros(2, 3))


def test_exact_win_rates_of_policies(rock, reference):
    pure = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = exact_win_rates(rock, torch.stack([reference, pure]))
    assert found[1, 0] == pytest.approx(0.65) and found[0, 1] == pytest.approx(0.35)
    torch.testing.assert_close(found + found.mT, torch.ones(2, 2, dtype=torch.float64))
