"""Penalties for length and for distance from the reference."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import (
    CostPenalty,
    FormatGate,
    FormatPenalty,
    KLPenalty,
    LengthPlateau,
    NotedRewards,
    OverlongPenalty,
    RewardWeights,
)


def test_the_overlong_penalty_worked_by_hand():
    x = Experience.from_lengths([80, 90, 100, 120], [1] * 4, [4], reward=[0.0] * 4)
    assert OverlongPenalty(limit=100, buffer=20)(x).returns.tolist() == [0.0, -0.5, -1.0, -1.0]
    assert OverlongPenalty(limit=100, buffer=20, scale=0.5)(x).returns.tolist() == [0.0, -0.25, -0.5, -0.5]


def test_the_overlong_penalty_counts_all_turns_and_keeps_the_reward():
    x = Experience.from_lengths([40, 50], [2], [1], turn_reward=[1.0, 2.0])
    shaped = OverlongPenalty(limit=100, buffer=20)(x)
    assert shaped.returns.tolist() == [2.5]
    assert shaped.turn_rewards().tolist() == [1.0, 1.5]
    assert x.returns.tolist() == [3.0]


def test_the_overlong_penalty_goes_to_the_first_reward_column():
    x = Experience.from_lengths([100], [1], [1], reward=torch.tensor([[1.0, 5.0]]))
    assert OverlongPenalty(limit=100, buffer=20)(x).reward.tolist() == [[0.0, 5.0]]


def test_a_buffer_wider_than_the_limit_is_refused():
    with pytest.raises(InputError, match=r"overlong_penalty\.buffer = 30: must be at most limit = 20"):
        OverlongPenalty(limit=20, buffer=30)


def test_the_kl_penalty_is_charged_to_every_token_of_the_old_policy():
    x = Experience.from_lengths(
        [2], [1], [1], reward=[1.0], behavior_logp=torch.tensor([-1.0, -1.0]), ref_logp=torch.tensor([-1.5, -0.8])
    )
    assert KLPenalty(0.1)(x).token_rewards().tolist() == pytest.approx([-0.05, 1.02])
    assert KLPenalty(0.1)(x).returns.tolist() == [1.0]
    moved = x.replace(old_logp=torch.tensor([-1.5, -1.0]))
    twice = KLPenalty(0.1)(KLPenalty(0.1)(moved))
    assert twice.token_reward.tolist() == pytest.approx([0.0, 0.04])
    with pytest.raises(ValueError, match="needs ref_logp"):
        KLPenalty()(x.replace(ref_logp=None))


def test_the_kl_penalty_spares_tokens_that_may_not_train_whatever_they_hold():
    x = Experience.from_lengths(
        [3], [1], [1], reward=[1.0], mask=[True, False, False],
        behavior_logp=torch.tensor([-1.0, -math.inf, -1.0]), ref_logp=torch.tensor([-2.0, -1.0, math.nan]),
    )  # fmt: skip
    assert KLPenalty(0.5, "k2")(x).token_reward.tolist() == [-0.25, 0.0, 0.0]


def test_other_weights_make_another_return_of_the_same_rewards():
    reward = torch.tensor([[1.0, 4.0], [0.0, 2.0]])
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=reward, turn_reward=[5.0, 2.0])
    assert x.returns.tolist() == [5, 2]
    other = RewardWeights((1.0, -0.5))(x)
    assert other.returns.tolist() == [-1, -1] and other.turn_rewards().tolist() == [-1, -1]
    assert torch.equal(other.reward, reward) and other.reward_names == x.reward_names
    single = Experience.from_lengths([1], [1], [1], turn_reward=[3.0])
    assert RewardWeights((2.0,))(single).returns.tolist() == [6]
    assert RewardWeights(scale=0.5)(single).returns.tolist() == [1.5]
    assert RewardWeights((1.0, -0.5), scale=2.0)(x).reward_weights == (2, -1)


def test_weights_must_fit_the_rewards_and_be_finite():
    x = Experience.from_lengths([1], [1], [1], reward=torch.tensor([[1.0, 4.0]]))
    with pytest.raises(
        InputError, match=r"reward_weights\.weights = \(1.0,\): must be one for each of the rewards reward_0"
    ):
        RewardWeights((1.0,))(x)
    with pytest.raises(InputError, match=r"reward_weights\.weights"):
        RewardWeights((math.inf,))


def test_the_kl_penalty_of_a_trajectory_is_the_sum_over_its_tokens_in_its_return():
    x = Experience.from_lengths(
        [2, 1], [1, 1], [2], reward=torch.tensor([[1.0, 5.0], [0.0, 1.0]]), mask=[True, False, True],
        behavior_logp=torch.tensor([-1.0, -math.inf, -1.0]), ref_logp=torch.tensor([-1.5, -0.8, -2.0]),
    )  # fmt: skip
    charged = KLPenalty(0.1, unit="trajectory")(x)
    assert charged.reward.tolist() == [pytest.approx([0.95, 5.0]), pytest.approx([-0.1, 1.0])]
    assert charged.token_reward is None
    both = KLPenalty(0.1)(x)
    # Charged to tokens, it adds up to the same.
    assert x.trajectory_of_token.sum(both.token_rewards()).tolist() == pytest.approx(charged.returns.tolist())


def test_the_format_gate_turns_the_reward_of_a_wrong_format_into_minus_one():
    x = Experience.from_lengths(
        [1] * 4,
        [2, 1, 1],
        [3],
        turn_reward=[0.25, 0.5, 0.5, 0.0],
        reward=[[0.75, 0.0, 3.0], [0.5, 1.0, 0.0], [0.0, 0.5, 0.0]],
        reward_names=("reward", "format", "calls"),
        reward_weights=(1.0, 0.0, 0.0),
    )
    gated = FormatGate()(x)
    assert gated.returns.tolist() == [-1.0, 0.5, -1.0]
    assert x.returns.tolist() == [0.75, 0.5, 0.0]
    # What the turns earned is kept, and the last one makes up the difference.
    assert gated.turn_rewards().tolist() == [0.25, -1.25, 0.5, -1.0]
    assert FormatGate(otherwise=0.0)(x).returns.tolist() == [0.0, 0.5, 0.0]
    assert gated.reward[:, 1:].equal(x.reward[:, 1:])


def test_the_format_gate_is_open_where_no_format_is_judged():
    for x in (
        Experience.from_lengths([1, 1], [1, 1], [2], reward=[0.0, 1.0]),
        Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[0.0, 1.0]),
    ):
        assert FormatGate()(x).returns.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match=r"format_gate\.otherwise"):
        FormatGate(math.nan)


def test_format_and_cost_are_charged_to_the_first_column_and_the_last_turn():
    x = Experience.from_lengths(
        [1, 1, 1],
        [2, 1],
        [2],
        turn_reward=[0.25, 0.5, 1.0],
        reward=torch.tensor([[0.75, 0.5, 2.0], [1.0, 1.0, 4.0]]),
        reward_names=("reward", "format", "cost"),
        reward_weights=(1.0, 0.0, 0.0),
    )
    assert FormatPenalty(0.5)(x).turn_rewards().tolist() == [0.25, 0.0, 1.0]
    assert CostPenalty(0.25)(x).turn_rewards().tolist() == [0.25, 0.0, 0.0]
    assert CostPenalty(0.25)(FormatPenalty()(x)).returns.tolist() == [-0.75, 0.0]
    assert x.returns.tolist() == [0.75, 1.0]
    bare = Experience.from_lengths([1, 1], [1, 1], [2], reward=[0.0, 1.0])
    assert FormatPenalty()(bare).returns.tolist() == [0.0, 1.0]


def test_noted_rewards_are_paid_by_name_and_the_first_column_is_then_all():
    x = Experience.from_lengths(
        [1] * 3,
        [2, 1],
        [2],
        turn_reward=[0.25, 0.25, 1.0],
        reward=[[0.5, 1.0, 2.0], [1.0, 0.0, 4.0]],
        reward_names=("reward", "calls", "bonus"),
        reward_weights=(1.0, 0.0, 0.5),
    )
    assert x.returns.tolist() == [1.5, 3.0]
    paid = NotedRewards(("calls", "other"), (0.25, 7.0), scale=2.0, offset=-1.0)(x)
    assert paid.returns.tolist() == [2.25, 5.0]
    assert paid.reward.tolist() == [[2.25, 1.0, 2.0], [5.0, 0.0, 4.0]]
    assert (paid.reward_names, paid.reward_weights) == (x.reward_names, (1.0, 0.0, 0.0))
    # What turns earned stays, and the last makes up the difference.
    assert paid.turn_rewards().tolist() == [0.25, 2.0, 5.0]
    single = Experience.from_lengths([1], [1], [1], turn_reward=[3.0])
    assert NotedRewards((), (), scale=2.0)(single).returns.tolist() == [6]


@pytest.mark.parametrize(("names", "weights"), [(("a",), ()), (("a", "a"), (1.0, 1.0)), ((), (1.0,))])
def test_noted_rewards_need_a_weight_for_each_name(names, weights):
    with pytest.raises(InputError, match=r"noted_rewards\.weights"):
        NotedRewards(names, weights)
    with pytest.raises(InputError, match=r"noted_rewards\.offset"):
        NotedRewards(("a",), (1.0,), offset=math.nan)


def costly(**fields: object) -> Experience:
    """A success, a failure, and another success, each with two kinds of costs."""
    return Experience.from_lengths(
        [1] * 3,
        [1] * 3,
        [3],
        reward=torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.75, 0.5], [1.0, 0.0, 0.0]]),
        reward_names=("reward", "walking", "asking"),
        reward_weights=(1.0, 0.0, 0.0),
        success=torch.tensor([True, False, True]),
        **fields,
    )


def test_kinds_of_costs_are_charged_apart():
    charged = CostPenalty(2.0, of="asking")(CostPenalty(1.0, of="walking")(costly()))
    assert charged.returns.tolist() == [0.0, -1.75, 1.0]
    assert charged.reward[:, 1:].equal(costly().reward[:, 1:])


def test_a_cost_may_be_waived_for_failures():
    part = CostPenalty(of="walking", on_failure=False)
    assert part(costly()).returns.tolist() == [0.5, 0.0, 1.0]
    assert "success" in part.needs() and "success" not in CostPenalty().needs()


def test_a_cost_that_is_not_noted_is_refused_or_free():
    with pytest.raises(InputError, match="cost_penalty: needs a task that notes a reward named 'cost'"):
        CostPenalty()(costly())
    assert CostPenalty(absent="free")(costly()).returns.tolist() == [1.0, 0.0, 1.0]


def test_a_negative_cost_is_refused():
    x = costly()
    x = x.replace(reward=x.reward * torch.tensor([1.0, 1.0, -1.0]))
    with pytest.raises(InputError, match=r"cost_penalty: trajectory 0 has asking -0\.25: must be at least 0"):
        CostPenalty(of="asking")(x)


def test_a_length_on_the_plateau_is_paid_and_one_on_the_slopes_in_part():
    x = Experience.from_lengths([5, 10, 15, 20, 30, 40, 60, 80, 90], [1] * 9, [9], reward=[1.0] * 9)
    bonus = [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0]
    assert LengthPlateau(10, 20, 40, 80, weight=1.0)(x).returns.tolist() == [1 + b for b in bonus]
    assert LengthPlateau(10, 20, 40, 80)(x).returns.tolist() == pytest.approx([1 + 0.1 * b for b in bonus])
    assert LengthPlateau(10, 20, 40, 80, weight=0.0)(x).returns.tolist() == [1.0] * 9


def test_every_domain_may_have_a_plateau_of_its_own():
    x = Experience.from_lengths([4, 8, 4, 8], [1] * 4, [2, 2], groups_per_domain=[1, 1], reward=[0.0] * 4)
    brief, long = LengthPlateau(0, 2, 4, 8, 1.0, domain=0), LengthPlateau(4, 8, 8, 12, 1.0, domain=1)
    assert brief(x).returns.tolist() == [1, 0, 0, 0]
    assert long(brief(x)).returns.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("thresholds", [(20, 10, 40, 80), (10, 10, 40, 80), (10, 50, 40, 80), (10, 20, 80, 80)])
def test_a_plateau_with_thresholds_out_of_order_is_refused(thresholds):
    with pytest.raises(InputError, match=r"length_plateau: start = .*: must be start < full <= fade < end"):
        LengthPlateau(*thresholds)
