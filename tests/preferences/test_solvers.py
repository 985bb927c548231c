"""Tabular solvers: numbers worked by hand, limits, rates, fixed points."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.games import bradley_terry, cyclic, noisy, random_games
from stratagem.preferences.measures import exploitability, kl, regularized_nash, span, win_rates
from stratagem.preferences.solvers import (
    INPO,
    SPPO,
    Exact,
    NashEMA,
    NashMD,
    NashMP,
    OnlineDPO,
    OnlineIPO,
    Solver,
    Voted,
    fitted_scores,
    mixture,
    solve,
)


def one(solver: Solver, wins: Tensor, reference: Tensor, start: Tensor | None = None) -> Tensor:
    return solve(solver, Exact(wins), reference, 1, start).last


def policy(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- Nash-MD --------------------------------------------------------------------------------------------------------


def test_one_step_of_nash_md_worked_by_hand(rock, reference):
    torch.testing.assert_close(win_rates(rock, reference), policy(0.45, 0.65, 0.40))
    found = one(NashMD(0.4, 0.5), rock, reference)
    torch.testing.assert_close(found, policy(0.487038, 0.322956, 0.190005), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("iterations", "expected"), [(100, 6.02e-5), (1000, 2.20e-6), (10000, 4.36e-8)])
def test_the_last_iterate_of_nash_md_converges(rock, reference, iterations, expected):
    strength = 0.1
    step = math.log(iterations) / (strength * iterations)
    last = solve(NashMD(strength, step), Exact(rock), reference, iterations).last
    distance = float(kl(regularized_nash(rock, reference, strength), last))
    assert distance == pytest.approx(expected, rel=2e-3)
    assert distance < 8 * math.log(iterations) / (strength**2 * iterations)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.05, 0.5), st.floats(0.05, 1.0))
def test_nash_md_shrinks_the_distance_as_proved(seed, responses, strength, share):
    source = torch.Generator().manual_seed(seed)
    wins = random_games(4, responses, source, certain=True)
    reference = torch.softmax(torch.randn(4, responses, generator=source, dtype=torch.float64), -1)
    step = share / strength
    path = solve(NashMD(strength, step), Exact(wins), reference, 10).path
    distance = kl(regularized_nash(wins, reference, strength), path)
    assert (distance[1:] <= (1 - share) * distance[:-1] + 2 * step**2 + 1e-12).all()


def test_without_a_reference_nash_md_is_multiplicative_weights(rock, reference):
    start = policy(0.6, 0.3, 0.1)
    one_way, other = one(NashMD(0, 0.1), rock, reference, start), one(SPPO(0.1), rock, reference, start)
    torch.testing.assert_close(one_way, other)


def test_with_a_full_share_the_opponent_is_the_reference(rock, reference):
    start = policy(0.1, 0.1, 0.8)
    expected = torch.softmax(reference.log() + 2.5 * win_rates(rock, reference), -1)
    torch.testing.assert_close(one(NashMD(0.4, 2.5), rock, reference, start), expected)
    with pytest.raises(InputError, match=r"step_size = 3.0: step_size \* strength is 1.2, and must be at most 1"):
        NashMD(0.4, 3.0)


def test_an_average_that_follows_at_once_is_self_play(rock, reference):
    last = solve(NashEMA(0.2, 0.5, follow_rate=1.0), Exact(rock), reference, 5).last
    expected = reference.log()
    for _ in range(5):
        mixed = mixture([(0.9, expected), (0.1, reference.log())])
        expected = torch.log_softmax(mixed + 0.5 * win_rates(rock, expected.exp()), -1)
    torch.testing.assert_close(last, expected.exp())


def test_an_average_that_never_follows_plays_the_reference(rock, reference):
    last = solve(NashEMA(0.2, 0.5, follow_rate=0.0), Exact(rock), reference, 500).last
    torch.testing.assert_close(last, torch.softmax(reference.log() + win_rates(rock, reference) / 0.2, -1))


# ---- INPO and SPPO --------------------------------------------------------------------------------------------------


def test_one_step_of_inpo_worked_by_hand():
    wins = torch.tensor([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]], dtype=torch.float64)
    start = policy(0.2, 0.5, 0.3)
    torch.testing.assert_close(win_rates(wins, start), policy(0.51, 0.58, 0.36))
    found = one(INPO(0.2, 0.5), wins, policy(0.4, 0.4, 0.2), start)
    torch.testing.assert_close(found, policy(0.269590, 0.537365, 0.193045), atol=1e-6, rtol=0)


def test_inpo_reduces_to_online_ipo_and_to_sppo(rock, reference):
    start = policy(0.2, 0.5, 0.3)
    torch.testing.assert_close(one(INPO(0.4, 0.4), rock, reference, start), one(OnlineIPO(0.4), rock, reference, start))
    torch.testing.assert_close(one(INPO(0.0, 0.5), rock, reference, start), one(SPPO(2.0), rock, reference, start))
    with pytest.raises(InputError, match=r"strength = 0.5: must be at most inverse_step = 0.4"):
        INPO(0.5, 0.4)


def test_one_step_of_sppo_worked_by_hand():
    wins = torch.tensor([[0.5, 0.8], [0.2, 0.5]], dtype=torch.float64)
    even = policy(0.5, 0.5)
    torch.testing.assert_close(one(SPPO(1.0), wins, even), policy(0.574443, 0.425557), atol=1e-6, rtol=0)


def test_sppo_converges_on_average_and_cycles_in_the_end(rock, reference):
    run = solve(SPPO(0.1), Exact(rock), reference, 5000, policy(0.6, 0.3, 0.1))
    assert float(exploitability(rock, run.average)) < 0.006
    assert float(exploitability(rock, run.last)) == pytest.approx(0.30, abs=0.01)


def test_without_a_preference_sppo_stays_where_it_is(reference):
    torch.testing.assert_close(one(SPPO(3.0), torch.full((3, 3), 0.5, dtype=torch.float64), reference), reference)


# ---- mirror prox ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6), st.integers(2, 7), st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.5]), st.booleans(), st.booleans()
)
def test_mirror_prox_contracts_as_proved(seed, responses, strength, certain, elsewhere):
    source = torch.Generator().manual_seed(seed)
    wins = random_games(8, responses, source, certain)
    reference, other = torch.softmax(torch.randn(2, 8, responses, generator=source, dtype=torch.float64), -1)
    run = solve(NashMP(strength), Exact(wins), reference, 30, other if elsewhere else None)
    distance = kl(regularized_nash(wins, reference, strength), run.path)
    assert (distance[1:] <= distance[:-1] / (1 + 2 * strength) + 1e-13).all()
    assert run.calls[-1] == 60


def test_every_solver_of_the_regularised_game_stays_at_its_solution(rock, reference):
    solution = regularized_nash(rock, reference, 0.1)
    for solver in (NashMP(0.1), NashMP(0.1, 0.05), INPO(0.1, 0.3), OnlineIPO(0.1)):
        torch.testing.assert_close(one(solver, rock, reference, solution), solution, atol=1e-12, rtol=0)


def test_long_and_short_steps_of_mirror_prox(rock, reference):
    start = policy(0.2, 0.2, 0.6)
    torch.testing.assert_close(one(NashMP(0.1, 1e-9), rock, reference, start), start, atol=1e-7, rtol=0)
    best = torch.softmax(reference.log() + win_rates(rock, start) / 0.1, -1)
    twice = torch.softmax(reference.log() + win_rates(rock, best) / 0.1, -1)
    torch.testing.assert_close(one(NashMP(0.1, 1e9), rock, reference, start), twice, atol=1e-6, rtol=0)


def test_one_step_without_the_half_step_is_slower(reference):
    """A prox step against itself is INPO's; forgetting the second opponent would go unnoticed otherwise."""
    strength, eta = 0.02, 0.04
    uneven = policy(0.7, 0.2, 0.1)
    solution = regularized_nash(cyclic(3), uneven, strength)
    prox = INPO(strength, strength * (1 + eta) / eta)
    far = [float(kl(solution, solve(s, Exact(cyclic(3)), uneven, 400).last)) for s in (NashMP(strength), prox)]
    assert far[0] < 1e-8 < 1e-4 < far[1]


def test_copies_of_responses_change_nothing(rock, reference):
    copies = torch.tensor([0, 0, 1, 2, 2, 2])
    split = reference[copies] / policy(2, 2, 1, 3, 3, 3)
    for solver in (NashMP(0.1), NashMD(0.1, 1.0), INPO(0.1, 0.3)):
        path = solve(solver, Exact(rock), reference, 10).path
        wide = solve(solver, Exact(rock[copies][:, copies]), split, 10).path
        joined = torch.zeros_like(path).index_add(1, copies, wide)
        torch.testing.assert_close(joined, path)


def test_mirror_prox_closes_the_span(rock, reference):
    solution = regularized_nash(rock, reference, 0.3)
    path = solve(NashMP(0.3), Exact(rock), reference, 40).path
    apart = span(path, solution)
    assert float(apart[-1]) < 1e-3 * float(apart[0])


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_scores_are_found_where_there_are_any(reference):
    scores = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    found = fitted_scores(bradley_terry(scores), reference)
    torch.testing.assert_close(found - found[1], scores)
    run = solve(OnlineDPO(0.5), Exact(bradley_terry(scores)), reference, 3)
    expected = torch.softmax(reference.log() + scores / 0.5, -1)
    for reached in run.path[1:]:
        torch.testing.assert_close(reached, expected)


def test_the_fit_balances_what_each_response_wins(rock, reference):
    wins = noisy(rock, 0.1)
    scores = fitted_scores(wins, reference)
    said = torch.sigmoid(scores.unsqueeze(1) - scores)
    torch.testing.assert_close(said @ reference, wins @ reference)


def test_scores_of_certain_winners_run_away(reference):
    with pytest.raises(InputError, match="scores are not finite"):
        fitted_scores(bradley_terry(torch.tensor([2.0, 1.0, 0.0]), 0), reference)


def test_votes_alone_do_not_tell_scores(rock, reference):
    asked = Voted(rock.unsqueeze(0), 10, torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="needs the exact preferences"):
        solve(OnlineDPO(0.5), asked, reference, 1)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_votes_are_about_right(rock, reference):
    asked = Voted(rock.unsqueeze(0), 40_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(asked(reference.log().unsqueeze(0))[0], win_rates(rock, reference), atol=0.015, rtol=0)


def test_what_the_reference_never_gives_stays_out(rock):
    without = policy(0.5, 0.5, 0.0)
    for solver in (NashMD(0.1, 1.0), NashMD(0.1, 10.0), NashMP(0.1), INPO(0.1, 0.1), SPPO(1.0), NashEMA(0.1, 1.0)):
        path = solve(solver, Exact(rock), without, 5).path
        assert (path[:, 2] == 0).all() and path.isfinite().all()
    with pytest.raises(InputError, match="start: must be 0 where the reference is"):
        solve(SPPO(1.0), Exact(rock), without, 1, policy(0.4, 0.4, 0.2))


def test_bad_games_and_numbers_are_refused(rock, reference):
    with pytest.raises(InputError, match="must be 1"):
        Exact(rock * 0.9)
    with pytest.raises(InputError, match="NashMP: strength=0"):
        NashMP(0)
    with pytest.raises(InputError, match="reference: must be probabilities"):
        solve(SPPO(1.0), Exact(rock), 2 * reference, 1)
