"""Preference oracles over the answers of a batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.part import find_part
from stratagem.parts import Preference
from stratagem.preferences import AnswerTable, BradleyTerry, Noisy, Population, SingleVote, win_matrix
from stratagem.preferences.oracles import table

ROCK = ((0.5, 0.0, 1.0), (1.0, 0.5, 0.0), (0.0, 1.0, 0.5))


def answers(*groups: tuple[float, ...], **fields: Tensor) -> Experience:
    """Groups of one-token answers with these returns; answer and seed are numbers of their own unless given."""
    rewards = torch.tensor([reward for group in groups for reward in group])
    ones = [1] * len(rewards)
    fields = {"answer": torch.arange(len(rewards)), "seed": 31 * torch.arange(len(rewards)), **fields}
    return Experience.from_lengths(ones, ones, [len(group) for group in groups], reward=rewards, **fields)


def test_differences_of_scores_worked_by_hand():
    wins = win_matrix(BradleyTerry(), answers((2, 1, 0, -1, -2)))[0]
    expected = torch.tensor([0.80929, 0.66667, 0.5, 0.33333, 0.19071], dtype=torch.float64)
    torch.testing.assert_close(wins.mean(1), expected, atol=5e-6, rtol=0)


def test_a_temperature_of_0_prefers_the_better_one_for_sure():
    wins = win_matrix(BradleyTerry(temperature=0), answers((3, 1, 1)))[0]
    assert wins.tolist() == [[0.5, 1, 1], [0, 0.5, 0.5], [0, 0.5, 0.5]]


def test_a_reward_is_found_by_name():
    x = answers((0, 0)).replace(
        reward=torch.tensor([[1.0, 0.0], [1.0, 2.0]]), reward_names=("task", "style"), reward_weights=(1.0, 0.0)
    )
    assert win_matrix(BradleyTerry(0, "style"), x)[0, 1, 0] == 1
    with pytest.raises(InputError, match="reward = 'tone': must be a reward of the task: task, style"):
        win_matrix(BradleyTerry(reward="tone"), x)


def test_a_table_goes_by_answers_whatever_their_order():
    oracle = AnswerTable((70, 50, 60), ROCK)
    x = answers((0, 0, 0, 0), answer=torch.tensor([60, 70, 50, 60]))
    wins = win_matrix(oracle, x)[0]
    order = [2, 0, 1, 2]
    expected = torch.tensor(ROCK, dtype=torch.float64)[order][:, order]
    assert wins.tolist() == expected.tolist()


def test_an_answer_outside_the_table_raises_or_has_its_own_chance():
    x = answers((0, 0, 0, 0), answer=torch.tensor([0, 1, 9, -1]))
    with pytest.raises(InputError, match="the answer of trajectory 2 is not in the table"):
        win_matrix(AnswerTable((0, 1, 2), ROCK), x)
    wins = win_matrix(AnswerTable((0, 1, 2), ROCK, unknown=0.25), x)[0]
    assert wins[2].tolist() == [0.25, 0.25, 0.5, 0.5] and wins[:, 3].tolist() == [0.75, 0.75, 0.5, 0.5]


@pytest.mark.parametrize(
    ("keys", "wins", "message"),
    [
        ((0, 1), ROCK, "must be 3 different answers"),
        ((0, 1, 1), ROCK, "must be 3 different answers"),
        ((0, 1), ((0.5, 0.7), (0.7, 0.5)), r"P\(0 > 1\) \+ P\(1 > 0\) must be 1"),
        ((0, 1), ((0.6, 0.7), (0.3, 0.4)), r"also of a response with itself"),
        ((0, 1), ((0.5, 1.2), (-0.2, 0.5)), r"must be probabilities in \[0, 1\]"),
        ((0, 1), ((0.5, 1.0), (0.5,)), "must be square"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(keys, wins, message):
    with pytest.raises(InputError, match=message):
        AnswerTable(keys, wins)


def test_a_table_is_written_and_read_by_name():
    assert find_part("preference", "answer_table") is AnswerTable
    assert table([5, 6], torch.tensor([[0.5, 0.75], [0.25, 0.5]])) == AnswerTable((5, 6), ((0.5, 0.75), (0.25, 0.5)))


def test_noise_moves_every_preference_towards_a_tie():
    x = answers((4, 0))
    plain, noised = (win_matrix(oracle, x)[0, 0, 1] for oracle in (BradleyTerry(), Noisy(BradleyTerry(), 0.2)))
    torch.testing.assert_close(noised, 0.6 * plain + 0.2)
    assert (win_matrix(Noisy(BradleyTerry(), 0.5), x) == 0.5).all()


def test_a_population_of_people_with_scores_may_prefer_in_a_circle():
    """Condorcet's paradox: each member ranks, two in three prefer each answer to the next."""
    members = tuple(BradleyTerry(0, name) for name in "abc")
    scores = torch.tensor([[3.0, 1, 2], [2, 3, 1], [1, 2, 3]])
    x = answers((0, 0, 0)).replace(reward=scores, reward_names=("a", "b", "c"), reward_weights=(1.0, 1.0, 1.0))
    wins = win_matrix(Population(members), x)[0]
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        assert wins[winner, loser] == pytest.approx(2 / 3)
    assert win_matrix(Population(members, (8, 1, 1)), x)[0, 2, 0] == pytest.approx(0.2)


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 1.0, 1.0)])
def test_a_population_needs_a_share_for_every_member(shares):
    with pytest.raises(InputError, match="one for each of 2 members"):
        Population((BradleyTerry(), BradleyTerry()), shares)


# ---- votes ----------------------------------------------------------------------------------------------------------


def test_votes_agree_with_themselves_and_with_the_chances():
    many = answers(*[(1.0, 0.0)] * 20_000)
    votes = win_matrix(SingleVote(BradleyTerry()), many)
    assert set(votes[:, 0, 1].unique().tolist()) == {0.0, 1.0}
    # The standard deviation of the share is 0.0031.
    assert float(votes[:, 0, 1].mean()) == pytest.approx(torch.tensor(1.0).sigmoid().item(), abs=0.013)


def test_votes_do_not_depend_on_how_the_batch_is_cut():
    x = answers(*[(1.0, 0.0, 0.5)] * 8)
    oracle = SingleVote(BradleyTerry())
    whole = win_matrix(oracle, x)
    rows = torch.tensor([14, 12, 13])
    assert torch.equal(win_matrix(oracle, x.select(rows))[0], whole[4][[2, 0, 1]][:, [2, 0, 1]])


def test_votes_of_two_streams_differ():
    x = answers(*[(0.0, 0.0)] * 200)
    one, two = (win_matrix(SingleVote(BradleyTerry(), stream), x)[:, 0, 1] for stream in (0, 1))
    assert 0.35 < float((one == two).float().mean()) < 0.65


def test_votes_need_seeds():
    with pytest.raises(ValueError, match=r"x\.seed"):
        win_matrix(SingleVote(BradleyTerry()), answers((1, 0)).replace(seed=None))


# ---- games of a batch -----------------------------------------------------------------------------------------------


class _Broken(Preference):
    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Tensor:
        return torch.full((len(first),), 0.9)


def test_groups_of_different_sizes_are_no_stack_of_games():
    with pytest.raises(InputError, match=r"groups of one size, not of \[1, 2\]"):
        win_matrix(BradleyTerry(), answers((1, 0), (1,)))


def test_an_oracle_that_contradicts_itself_makes_no_game():
    with pytest.raises(InputError, match=r"P\(0 > 0\)"):
        win_matrix(_Broken(), answers((1, 0)))


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6), st.floats(0.1, 4), st.floats(0, 0.5))
def test_every_oracle_says_probabilities_that_add_up(scores, temperature, flip):
    x = answers(tuple(scores))
    for oracle in (Noisy(BradleyTerry(temperature), flip), SingleVote(BradleyTerry(temperature))):
        wins = win_matrix(oracle, x)
        assert ((wins >= 0) & (wins <= 1)).all()
        torch.testing.assert_close(wins + wins.mT, torch.ones_like(wins))
