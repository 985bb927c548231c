"""Preference games as tensors."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.preferences.games import (
    bradley_terry,
    cyclic,
    games_with_winner,
    noisy,
    population,
    random_games,
    votes,
)
from stratagem.preferences.measures import exploitability, minimax_winner
from stratagem.preferences.oracles import check_wins


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("responses", [1, 3, 5, 9])
def test_in_a_cycle_everybody_wins_as_often(responses):
    wins = cyclic(responses, 0.8)
    check_wins(wins)
    torch.testing.assert_close(wins.mean(1), torch.full((responses,), 0.5, dtype=torch.float64))


def test_three_in_a_cycle_are_rock_paper_scissors():
    assert cyclic(3).tolist() == [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]


def test_a_cycle_of_an_even_number_is_refused():
    with pytest.raises(InputError, match="responses = 4: must be odd"):
        cyclic(4)
    with pytest.raises(InputError, match="strength = 2"):
        cyclic(3, 2)


@pytest.mark.parametrize("certain", [False, True])
def test_random_games_are_games(certain):
    wins = random_games(50, 6, source(), certain)
    check_wins(wins)
    off_diagonal = wins[:, ~torch.eye(6, dtype=torch.bool)]
    assert set(off_diagonal.unique().tolist()) == {0.0, 1.0} if certain else off_diagonal.unique().numel() > 100


def test_games_are_made_for_a_winner():
    winner = torch.rand(20, 7, generator=source(1), dtype=torch.float64) + 0.1
    winner /= winner.sum(1, keepdim=True)
    wins = games_with_winner(winner, source(2))
    check_wins(wins)
    assert float(exploitability(wins, winner).max()) < 1e-12
    torch.testing.assert_close(minimax_winner(wins), winner, atol=1e-6, rtol=0)
    # None of them has scores: nobody wins against all others.
    assert ((wins < 0.5).sum(2) > 0).all()


def test_a_winner_must_be_a_distribution():
    with pytest.raises(InputError, match="winner: must be probabilities that add up to 1"):
        games_with_winner(torch.tensor([[0.5, 0.6]]), source())


def test_scores_noise_and_populations():
    wins = bradley_terry(torch.tensor([1.0, 0.0]))
    assert wins[0, 1] == pytest.approx(0.731059, abs=1e-6)
    assert noisy(wins, 0.5).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    half = population([bradley_terry(torch.tensor([1.0, 0.0]), 0), bradley_terry(torch.tensor([0.0, 1.0]), 0)], (3, 1))
    assert half[0, 1] == 0.75
    with pytest.raises(InputError, match=r"flip = 0\.6"):
        noisy(wins, 0.6)
    with pytest.raises(InputError, match="one, above 0, for each of 2 members"):
        population([wins, wins], (1, 0))


def test_votes_are_drawn_by_the_chances():
    wins = bradley_terry(torch.tensor([[1.0, 0.0]]))
    first, second = torch.zeros(1, 40_000, dtype=torch.int64), torch.ones(1, 40_000, dtype=torch.int64)
    share = votes(wins, first, second, source(3)).double().mean()
    assert float(share) == pytest.approx(0.731059, abs=0.01)
    assert torch.equal(votes(wins, first, second, source(3)), votes(wins, first, second, source(3)))
