"""Rewards of turns made of their contributions and of whether they were carried out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import TurnProgress


def episode(progress: list[float], executed: list[bool] | None = None, **fields: object) -> Experience:
    return Experience.from_lengths(
        [2] * len(progress),
        [len(progress)],
        [1],
        turn_progress=torch.tensor(progress),
        turn_executed=executed,
        **fields,
    )


def test_the_reward_of_a_turn_is_its_contribution_and_half_for_being_carried_out():
    x = TurnProgress()(episode([0.1, 0.4, 0.5], [True, False, True], reward=[1.0]))
    torch.testing.assert_close(x.turn_reward, torch.tensor([0.6, 0.4, 1.0]))
    torch.testing.assert_close(x.token_rewards(), torch.tensor([0.0, 0.6, 0.0, 0.4, 0.0, 1.0]))


def test_the_last_turn_counts_as_carried_out_and_so_do_all_where_nobody_says():
    assert TurnProgress(scale=0)(episode([0.0, 0.0], [False, False], reward=[0.0])).turn_reward.tolist() == [0.0, 0.5]
    assert TurnProgress(scale=0)(episode([0.0, 0.0], reward=[0.0])).turn_reward.tolist() == [0.5, 0.5]


def test_all_on_the_last_turn_without_grounding_is_the_sparse_reward():
    plain = Experience.from_lengths([2] * 3, [3], [1], reward=[0.7])
    x = TurnProgress(grounding=0)(episode([0.0, 0.0, 0.7], reward=[0.7]))
    torch.testing.assert_close(x.token_rewards(), plain.token_rewards())


def test_contributions_that_are_differences_of_a_potential_leave_the_ranking_as_it_was():
    """Their sum is ``Phi(s_T) - Phi(s_0)``, whatever the way."""
    ends = [[0.2, 0.9, 1.0], [0.2, 0.1, 0.5]]
    steps = [later - earlier for way in ends for earlier, later in pairwise(way)]
    x = Experience.from_lengths([1] * 4, [2, 2], [2], turn_progress=torch.tensor(steps), reward=[3.0, 1.0])
    shaped = TurnProgress(grounding=0)(x)
    torch.testing.assert_close(shaped.returns, torch.tensor([0.8, 0.3]))


def test_the_tasks_own_rewards_are_noted_and_no_longer_paid():
    x = episode([0.5], reward=torch.tensor([[1.0, 3.0]]), reward_names=("reward", "cost"), reward_weights=(1.0, -1.0))
    shaped = TurnProgress()(x)
    assert shaped.reward_names == ("progress", "reward", "cost") and shaped.reward_weights == (1.0, 0.0, 0.0)
    assert shaped.returns.tolist() == [1.0] and shaped.named_reward("cost").tolist() == [3.0]
    turns = episode([0.5], turn_reward=[9.0])
    assert TurnProgress()(turns).returns.tolist() == [1.0]


def test_leave_one_out_is_one_constant_for_all_turns_of_a_trajectory():
    x = Experience.from_lengths([1] * 5, [2, 1, 1, 1], [3, 1], reward=[1.0, 0.0, 0.5, 7.0])
    part = TurnProgress(grounding=0, source="leave_one_out")
    assert part.needs() == frozenset() and TurnProgress().needs() == {"turn_progress"}
    torch.testing.assert_close(part(x).turn_reward, torch.tensor([0.75, 0.75, -0.75, 0.0, 0.0]))
    torch.testing.assert_close(
        TurnProgress(source="leave_one_out")(x).turn_reward, torch.tensor([1.25, 1.25, -0.25, 0.5, 0.5])
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"turn_progress needs x.turn_progress"):
        TurnProgress()(Experience.from_lengths([1], [1], [1], reward=[1.0]))
    with pytest.raises(InputError, match=r"turn_progress.grounding = -1"):
        TurnProgress(grounding=-1)
