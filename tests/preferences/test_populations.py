"""Solvers with several players and with momentum: numbers by hand, limits, and what they have in common with others."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from stratagem.errors import InputError
from stratagem.preferences.acceleration import APO
from stratagem.preferences.games import bradley_terry, cyclic, random_games
from stratagem.preferences.measures import duality_gap, kl, regularized_nash
from stratagem.preferences.populations import MNPO, solve_players
from stratagem.preferences.solvers import INPO, SPPO, Exact, OnlineDPO, Voted, mixture, solve
from stratagem.seeding import generator

UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64)
SCORES = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def some_games(responses: int = 6) -> torch.Tensor:
    return random_games(5, responses, generator(1, "games"))


# ---- a population ---------------------------------------------------------------------------------------------------


def test_with_one_opponent_it_is_inpo():
    wins, mu = some_games(), torch.full((5, 6), 1 / 6, dtype=torch.float64)
    ours = solve(MNPO(2.0, 0.25, (1.0,)), Exact(wins), mu, 20).path
    torch.testing.assert_close(ours, solve(INPO(0.5, 2.0), Exact(wins), mu, 20).path)


@pytest.mark.parametrize("against", ["last", "population"])
@pytest.mark.parametrize("shares", [(1.0,), (1.0, 1.0), (0.5, 0.2, 0.3)])
def test_whoever_the_opponents_are_it_stays_at_the_regularised_nash_policy(shares, against):
    wins, mu = some_games(), torch.full((5, 6), 1 / 6, dtype=torch.float64)
    solution = regularized_nash(wins, mu, 2.0)
    last = solve(MNPO(6.0, 1 / 3, shares, against), Exact(wins), mu, 200).last
    assert float(kl(solution, last).max()) < 1e-9
    held = solve(MNPO(6.0, 1 / 3, shares, against), Exact(wins), mu, 3, solution).last
    torch.testing.assert_close(held, solution)


def test_policies_before_the_first_are_the_first():
    wins = cyclic(3)
    start = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    solver = MNPO(2.0, 0.0, (1.0, 1.0))
    path = solve(solver, Exact(wins), start, 2).path
    first = mixture([(1.0, start.log()), (1.0, wins @ start / 2)])
    torch.testing.assert_close(path[1], first.exp())
    second = mixture([(0.5, first), (0.5, start.log()), (1.0, wins @ first.exp() / 2)])
    torch.testing.assert_close(path[2], second.exp())


def test_shares_that_are_all_zero_are_refused():
    with pytest.raises(InputError, match="at least one must be above 0"):
        MNPO(1.0, shares=(0.0, 0.0))
    with pytest.raises(InputError, match="shares"):
        MNPO(1.0, shares=(1.0, -1.0))


def test_players_that_share_an_oracle_stay_alike_and_two_are_inpo():
    wins, mu = some_games(), torch.full((5, 6), 1 / 6, dtype=torch.float64)
    path = solve_players(wins.expand(3, -1, -1, -1), mu, 30, 2.0, 0.25)
    assert path.shape == (31, 3, 5, 6)
    torch.testing.assert_close(path[:, 0], path[:, 2])
    torch.testing.assert_close(path[:, 0], solve(INPO(0.5, 2.0), Exact(wins), mu, 30).path)


def test_players_with_oracles_of_their_own_go_their_own_ways():
    wins = torch.stack([bradley_terry(SCORES), bradley_terry(-SCORES)])
    last = solve_players(wins, UNIFORM, 50, 0.5)[-1]
    assert last[0].argmax() == 2 and last[1].argmax() == 0
    torch.testing.assert_close(last[0], last[1].flip(0))
    with pytest.raises(InputError, match="at least 2 oracles, not 1"):
        solve_players(wins[:1], UNIFORM, 1, 0.5)
    with pytest.raises(InputError, match="inverse_step = 0"):
        solve_players(wins, UNIFORM, 1, 0.0)


def test_the_gap_of_rock_paper_scissors_by_hand():
    """0 for the uniform policy; a pure one loses for sure, so 2 (1 - 1/2) with both players' gains."""
    assert float(duality_gap(cyclic(3), UNIFORM)) == pytest.approx(0)
    assert float(duality_gap(cyclic(3), torch.tensor([1.0, 0, 0]).double())) == pytest.approx(1)


# ---- momentum -------------------------------------------------------------------------------------------------------


def exponents(path: torch.Tensor) -> list[float]:
    """``a`` of ``pi prop exp(a r)``, for rewards (0, 1/2, 1)."""
    return [float(logp[2] - logp[0]) for logp in path.log()]


def carried(solver: APO, path: torch.Tensor) -> torch.Tensor:
    """``pi_t`` of a run's policies."""
    logs = path.log()
    return torch.stack([logs[0], *(solver.follow(b, b, p) for b, p in pairwise(logs))]).exp()


def test_the_exponents_worked_by_hand():
    solver = APO(1.0, 0.3)
    path = solve(solver, Exact(bradley_terry(SCORES)), UNIFORM, 5).path
    assert exponents(path) == pytest.approx([0, 1, 2.3, 3.69, 5.107, 6.5321], abs=1e-6)
    assert exponents(carried(solver, path)) == pytest.approx([0, 1.3, 2.69, 4.107, 5.5321, 6.95963], abs=1e-5)


def test_what_is_lacking_to_the_best_worked_by_hand():
    wins = bradley_terry(SCORES)
    plain = solve(APO(1.0, 0.0), Exact(wins), UNIFORM, 3).path
    assert (1 - plain @ SCORES).tolist() == pytest.approx([0.5, 0.33992, 0.21239, 0.12676], abs=1e-5)
    solver = APO(1.0, 0.3)
    ours = carried(solver, solve(solver, Exact(wins), UNIFORM, 3).path)
    assert (1 - ours @ SCORES).tolist() == pytest.approx([0.5, 0.29731, 0.14916, 0.07041], abs=1e-5)


def test_without_momentum_it_is_the_iterated_method_to_the_bit():
    wins, mu = some_games(), torch.full((5, 6), 1 / 6, dtype=torch.float64)
    won = solve(APO(0.5, 0.0, "won"), Exact(wins), mu, 10).path
    assert torch.equal(won, solve(SPPO(2.0), Exact(wins), mu, 10).path)
    one = solve(APO(0.7, 0.0), Exact(bradley_terry(SCORES)), UNIFORM, 1).last
    torch.testing.assert_close(one, solve(OnlineDPO(0.7), Exact(bradley_terry(SCORES)), UNIFORM, 1).last)


def test_an_extrapolated_policy_is_one_and_no_constant_matters():
    before, policy = UNIFORM.log(), torch.tensor([0.2, 0.3, 0.5]).double().log()
    solver = APO(1.0, 0.5)
    found = solver.follow(before, before, policy)
    assert float(found.exp().sum()) == pytest.approx(1)
    torch.testing.assert_close(solver.follow(before, before + 2, policy - 1), found)


def test_a_response_that_is_never_given_stays_so():
    reference = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    path = solve(APO(1.0, 0.3, "won"), Exact(bradley_terry(SCORES)), reference, 4).path
    assert bool((path[:, 2] == 0).all()) and bool(path.isfinite().all()) and path[-1, 1] > 0.5


def test_momentum_outside_its_range_and_scores_without_all_pairs_are_refused():
    for momentum in (-0.1, 1.0):
        with pytest.raises(InputError, match="momentum"):
            APO(1.0, momentum)
    voted = Voted(bradley_terry(SCORES).unsqueeze(0), 5, generator(0, "votes"))
    with pytest.raises(InputError, match="needs the exact preferences"):
        solve(APO(1.0), voted, UNIFORM, 1)
