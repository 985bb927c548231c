"""Policies against each other before an oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry
from stratagem.preferences.contests import Answers, exploitability, win_rate
from stratagem.preferences.measures import minimax_winner
from stratagem.preferences.oracles import table

SEEDS = st.integers(0, 2**32 - 1)
ROCK = torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=torch.float64)


def every_answer(policy: Tensor, prompt: Tensor | None = None) -> Answers:
    """All answers to some prompts; those to prompt ``x`` are the numbers from ``x size`` on. policy: [x, size]."""
    prompts, size = policy.shape
    ones = [1] * policy.numel()
    x = Experience.from_lengths(
        ones, ones, [size] * prompts, reward=torch.zeros(policy.numel()), answer=torch.arange(policy.numel())
    )
    weight = torch.full((prompts,), 1 / prompts, dtype=torch.float64) if prompt is None else prompt
    return Answers(x, policy.double().flatten(), weight, complete=True)


def sampled(answers: list[int], prompts: list[int]) -> Answers:
    """These answers, so many of each prompt."""
    ones = [1] * len(answers)
    x = Experience.from_lengths(ones, ones, prompts, reward=torch.zeros(len(answers)), answer=torch.tensor(answers))
    share = torch.tensor([1 / size for size in prompts for _ in range(size)], dtype=torch.float64)
    return Answers(x, share, torch.full((len(prompts),), 1 / len(prompts), dtype=torch.float64))


def drawn(seed: int, prompts: int, size: int) -> tuple[Tensor, list[Tensor]]:
    """A game of so many answers and three policies in it."""
    source = torch.Generator().manual_seed(seed)
    above = torch.rand(prompts * size, prompts * size, generator=source, dtype=torch.float64).triu(1)
    wins = above + (1 - above).T.tril(-1) + 0.5 * torch.eye(prompts * size, dtype=torch.float64)
    return wins, [torch.rand(prompts, size, generator=source, dtype=torch.float64).softmax(1) for _ in range(3)]


def test_rock_beats_scissors_and_half_of_what_mixes_them_with_paper():
    oracle = table([0, 1, 2], ROCK)
    rock, scissors = (every_answer(torch.eye(3)[[row]]) for row in (0, 2))
    assert win_rate(oracle, rock, scissors) == 1 and win_rate(oracle, scissors, rock) == 0
    assert win_rate(oracle, rock, every_answer(torch.full((1, 3), 1 / 3))) == pytest.approx(0.5)


@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_it_is_the_mean_over_all_pairs_of_answers_and_over_prompts(seed: int, prompts: int, size: int):
    wins, (first, second, weights) = drawn(seed, prompts, size)
    prompt = weights.sum(1) * torch.arange(1, prompts + 1)
    prompt = prompt / prompt.sum()
    expected = sum(
        float(prompt[x] * first[x, i] * second[x, j] * wins[x * size + i, x * size + j])
        for x in range(prompts)
        for i in range(size)
        for j in range(size)
    )
    oracle = table(range(prompts * size), wins)
    found = win_rate(oracle, every_answer(first, prompt), every_answer(second, prompt))
    assert found == pytest.approx(expected, abs=1e-6)


@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_what_one_wins_the_other_loses_and_nobody_beats_itself(seed: int, prompts: int, size: int):
    wins, (first, second, _) = drawn(seed, prompts, size)
    oracle, one, other = table(range(prompts * size), wins), every_answer(first), every_answer(second)
    assert win_rate(oracle, one, other) + win_rate(oracle, other, one) == pytest.approx(1, abs=1e-6)
    assert win_rate(oracle, one, one) == pytest.approx(0.5, abs=1e-6)


def test_samples_of_different_size_are_compared_prompt_by_prompt():
    oracle = table([0, 1, 2], ROCK)
    # To the first prompt paper against rock and scissors: 1 and 0; to the second scissors against itself.
    assert win_rate(oracle, sampled([1, 2], [1, 1]), sampled([0, 2, 2, 2], [2, 2])) == pytest.approx(0.5)
    assert win_rate(oracle, sampled([1, 2], [1, 1]), sampled([0, 0, 2, 2], [2, 2])) == pytest.approx(0.75)


def test_ties_count_half():
    assert win_rate(BradleyTerry(0), sampled([0, 1], [2]), sampled([2], [1])) == 0.5


@settings(deadline=None)  # the first call imports a solver
@given(SEEDS, st.integers(2, 5))
def test_nobody_beats_the_minimax_winner_and_some_answer_beats_everybody_else(seed: int, size: int):
    wins, (policy, *_) = drawn(seed, 1, size)
    oracle = table(range(size), wins)
    best = every_answer(minimax_winner(wins).unsqueeze(0))
    assert exploitability(oracle, best) == pytest.approx(0, abs=1e-6)
    gap = exploitability(oracle, every_answer(policy))
    replies = [every_answer(torch.eye(size)[[row]]) for row in range(size)]
    assert gap == pytest.approx(max(win_rate(oracle, reply, every_answer(policy)) for reply in replies) - 0.5, abs=1e-6)


def test_the_best_reply_is_looked_for_prompt_by_prompt():
    wins = torch.full((6, 6), 0.5, dtype=torch.float64)
    wins[:3, :3] = wins[3:, 3:] = ROCK
    oracle, pure = table(range(6), wins), torch.eye(3)[[0, 1]]
    assert exploitability(oracle, every_answer(pure)) == 0.5
    half = torch.stack([torch.eye(3)[0], torch.full((3,), 1 / 3)])
    assert exploitability(oracle, every_answer(half)) == pytest.approx(0.25, abs=1e-6)


def test_samples_have_no_exploitability():
    with pytest.raises(ValueError, match="needs every answer there is"):
        exploitability(table([0, 1, 2], ROCK), sampled([0], [1]))


def test_an_answer_the_oracle_does_not_know_is_refused():
    with pytest.raises(InputError, match="the answer of trajectory 1 is not in the table"):
        win_rate(table([0, 1, 2], ROCK), sampled([0], [1]), sampled([7], [1]))
