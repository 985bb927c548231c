"""Charges for how structured turns are filled in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import PlanPenalty

KEEP_ONLY = PlanPenalty(inconsistent=0.0, invalid=0.0)
INCONSISTENT_ONLY = PlanPenalty(keep=0.0, invalid=0.0)
INVALID_ONLY = PlanPenalty(keep=0.0, inconsistent=0.0)


def plans(goals: list[list[int]], starts: list[bool], per: list[int] | None = None, **fields) -> Experience:
    """Turns of a switch, a sub-goal of these tokens and an action."""
    turns = per or [len(goals)]
    return Experience.from_lengths(
        [2 + len(goal) for goal in goals],
        turns,
        [len(turns)],
        action=torch.tensor([token for goal in goals for token in (50, *goal, 60)]),
        span=[span for goal in goals for span in (2, *[1] * len(goal), 0)],
        segment_start=starts,
        **{"turn_reward": [0.0] * len(goals)} | fields,
    )


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_the_charge_for_keeping_adds_up_to_the_share_of_turns_that_keep(starts):
    x = KEEP_ONLY(plans([[7]] * len(starts), starts))
    kept = sum(not begins for begins in starts[1:])
    assert float(x.returns) == pytest.approx(-0.3 * kept / len(starts), abs=1e-6)
    assert bool(((x.turn_reward < 0) == ~torch.tensor([True, *starts[1:]])).all())


def test_without_normalisation_every_turn_that_keeps_costs_the_same():
    x = PlanPenalty(0.3, 0.0, 0.0, normalize=False)(plans([[7]] * 3, [True, False, False]))
    assert x.turn_reward.tolist() == pytest.approx([0.0, -0.3, -0.3])


def test_a_sub_goal_that_is_kept_in_name_only_is_charged():
    goals = [[1, 2], [1, 2], [1, 3], [1, 3, 4], [1], [9], [], [5]]
    starts = [True, False, False, False, False, True, False, False]
    x = INCONSISTENT_ONLY(plans(goals, starts))
    # Other tokens, more of them, fewer of them; a new sub-goal is free, and one left out is compared with nothing.
    assert x.turn_reward.tolist() == pytest.approx([0, 0, -0.3, -0.3, -0.3, 0, 0, 0])


def test_the_first_turn_of_a_trajectory_is_not_compared_with_the_one_before():
    x = INCONSISTENT_ONLY(plans([[1], [2], [2]], [True, False, False], per=[1, 2]))
    assert x.turn_reward.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("spans", "starts", "charged"),
    [
        ([2, 1, 0], True, False),
        ([2, 0], False, False),
        ([2, 0], True, True),
        ([1, 0], False, True),
        ([2, 1], True, True),
    ],
)
def test_a_turn_that_lacks_a_part_is_charged(spans, starts, charged):
    x = Experience.from_lengths(
        [3, len(spans)], [2], [1], span=[2, 1, 0, *spans], segment_start=[True, starts], turn_reward=[0.0, 1.0]
    )
    x = x.replace(action=torch.arange(x.tokens))
    assert INVALID_ONLY(x).turn_reward.tolist() == pytest.approx([0.0, 0.9 if charged else 1.0])


def test_turns_and_returns_are_charged_alike_whatever_the_column_counts():
    reward = torch.tensor([[2.0, 5.0]])
    x = plans([[7]] * 2, [True, False], turn_reward=[0.0, 1.0], reward=reward, reward_weights=(0.5, 0.0))
    charged = KEEP_ONLY(x.replace(reward_names=("task", "noted")))
    assert charged.reward.tolist() == [[pytest.approx(1.85), 5.0]]
    assert float(charged.returns) == pytest.approx(0.925)
    assert charged.turn_rewards().tolist() == pytest.approx([0.0, 0.925])


def test_no_turns_cost_nothing():
    x = plans([[7]], [True]).select(torch.zeros(0, dtype=torch.int64))
    assert PlanPenalty()(x).turn_reward.tolist() == []


def test_a_negative_charge_is_refused():
    with pytest.raises(InputError, match=r"plan_penalty\.keep = -0\.3"):
        PlanPenalty(keep=-0.3)
