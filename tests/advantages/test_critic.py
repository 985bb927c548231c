"""Advantages that rest on a value function."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GAE, BatchWhitened
from stratagem.experience import Experience


def test_three_tokens_with_a_reward_at_the_end_worked_by_hand():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.5, 0.6, 0.8]))
    assert GAE(discount=1.0, trace=0.95)(x).tolist() == pytest.approx([0.4705, 0.39, 0.2])
    assert GAE(discount=1.0, trace=0.95).value_target(x).tolist() == pytest.approx([0.9705, 0.99, 1.0])


def test_a_trace_of_one_is_the_return_minus_the_value_and_of_zero_the_one_step_error():
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=[1.0, 2.0], value=torch.tensor([0.5, 0.25, 4.0]))
    assert GAE(trace=1.0)(x).tolist() == [2.5, 2.75, -2.0]
    assert GAE(trace=0.0)(x).tolist() == [0.25 - 0.5, 1 + 4 - 0.25, 2.0 - 4.0]


def test_a_cut_trajectory_continues_with_its_final_value():
    x = Experience.from_lengths(
        [1, 1], [1, 1], [2], reward=[1.0, 1.0], value=torch.zeros(2), final_value=torch.tensor([3.0, 0.0])
    )
    assert GAE(discount=0.5)(x).tolist() == [2.5, 1.0]


def test_a_batch_without_values_is_refused():
    with pytest.raises(ValueError, match=r"GAE needs x\.value"):
        GAE()(Experience.from_lengths([1], [1], [1], reward=[1.0]))


# ---- trajectories that run on ----------------------------------------------------------------------------------------


def response(values: list[float], running: bool = True, **fields) -> Experience:
    """One response of so many tokens."""
    return Experience.from_lengths(
        [len(values)], [1], [1], **{"reward": [0.0], "value": torch.tensor(values), "running": [running]} | fields
    )


NEUTRAL = GAE(trace=0.95, bootstrap="last_value")


def test_a_response_that_runs_on_continues_with_the_value_of_its_last_state():
    x = response([0.5, 0.6, 0.8])
    assert NEUTRAL(x).tolist() == pytest.approx([0.29, 0.20, 0.0])
    # As if the cut were the end, it would be to blame for all that was expected.
    assert NEUTRAL(x.replace(running=None)).tolist() == pytest.approx([-0.432, -0.56, -0.80])


def test_a_response_that_has_ended_is_estimated_as_ever():
    x = response([0.5, 0.6, 0.8], running=False, reward=[1.0])
    assert NEUTRAL(x).tolist() == pytest.approx([0.4705, 0.39, 0.20])
    assert torch.equal(NEUTRAL(x), GAE()(x))


def test_with_a_discount_a_constant_value_loses_the_same_in_every_step():
    x = response([1.0, 1.0, 1.0])
    estimate = GAE(discount=0.9, trace=1.0, bootstrap="last_value")
    assert estimate(x).tolist() == pytest.approx([-0.271, -0.19, -0.1])
    single = GAE(discount=0.9, bootstrap="last_value")(response([0.8], turn_reward=[0.3], reward=None))
    assert single.item() == pytest.approx(0.3 + (0.9 - 1) * 0.8)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12))
def test_without_discount_and_with_a_whole_trace_the_estimate_telescopes(values):
    credit = GAE(trace=1.0, bootstrap="last_value")(response(values))
    assert credit.tolist() == pytest.approx([values[-1] - value for value in values], abs=1e-5)


def test_a_constant_critic_says_nothing_about_a_response_that_runs_on():
    assert NEUTRAL(response([0.7] * 5)).tolist() == [0.0] * 5


def test_only_running_trajectories_are_continued_and_empty_ones_do_no_harm():
    x = Experience.from_lengths(
        [2, 0, 1], [1] * 3, [3], value=torch.tensor([0.25, 0.5, 4.0]), reward=[0.0, 0.0, 0.0],
        running=[True, True, False], truncated=[True, True, True], final_value=torch.tensor([9.0, 9.0, 3.0]),
    )  # fmt: skip
    assert GAE(trace=1.0, bootstrap="last_value")(x).tolist() == [0.25, 0.0, -1.0]
    assert GAE(trace=1.0)(x).tolist() == [8.75, 8.5, -1.0]


def test_an_unknown_value_after_a_cut_is_not_taken_for_0():
    x = response([0.5, 0.6])
    with pytest.raises(ValueError, match="final_value of trajectories that are running, or bootstrap='last_value'"):
        GAE()(x)
    assert GAE()(x.replace(final_value=torch.tensor([0.8]))).tolist() == pytest.approx([0.29, 0.2])
    assert GAE()(response([0.5], running=False)).tolist() == [-0.5]


def test_the_critic_may_have_a_trace_of_its_own_and_with_1_its_target_is_the_return():
    x = response([0.5, 0.6, 0.8], running=False, reward=[1.0])
    estimate = GAE(trace=0.95, critic_trace=1.0)
    assert estimate(x).tolist() == pytest.approx([0.4705, 0.39, 0.20])
    assert estimate.value_target(x).tolist() == pytest.approx([1.0, 1.0, 1.0])
    discounted = GAE(discount=0.5, critic_trace=1.0)
    x = Experience.from_lengths([1, 2], [2], [1], turn_reward=[1.0, 2.0], value=torch.tensor([7.0, -3.0, 5.0]))
    assert discounted.value_target(x).tolist() == pytest.approx([1.5, 1.0, 2.0])


# ---- what a step is --------------------------------------------------------------------------------------------------

STEPS = ("token", "turn", "decomposed")


def test_one_action_of_three_tokens_worked_by_hand():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.2, 0.5, 0.6]))
    errors = GAE(discount=0.9, trace=0.0, step="decomposed")(x)
    assert errors.tolist() == pytest.approx([0.3, 0.1, 0.4])
    assert GAE(discount=0.9, trace=1.0, step="decomposed")(x).tolist() == pytest.approx([0.8, 0.5, 0.4])
    assert GAE(discount=0.9, trace=0.0)(x).tolist() == pytest.approx([0.25, 0.04, 0.4])
    assert GAE(discount=0.9, trace=1.0)(x).tolist() == pytest.approx([0.61, 0.40, 0.4])


def test_actions_of_one_token_are_the_same_in_every_decomposition():
    fields = {"turn_reward": [0.5, -1.0, 2.0], "value": torch.tensor([0.3, 0.1, -0.4])}
    x = Experience.from_lengths([1, 1, 1], [2, 1], [2], **fields, final_value=torch.tensor([0.7, 0.0]))
    found = [GAE(discount=0.9, trace=0.8, step=step)(x) for step in STEPS]
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_the_carry_is_the_trace_inside_an_action_and_discounted_at_its_end():
    # Only the last token has an error, 1; what reaches the others is what the carry leaves of it.
    x = Experience.from_lengths([2, 2], [2], [1], turn_reward=[0.0, 1.0], value=torch.zeros(4))
    found = GAE(discount=0.9, trace=0.5, step="decomposed")(x)
    assert found.tolist() == pytest.approx([0.5 * 0.45 * 0.5, 0.45 * 0.5, 0.5, 1.0])


@given(st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_what_an_action_is_worth_does_not_depend_on_how_many_tokens_say_it(lengths):
    x = Experience.from_lengths(lengths, [3], [1], turn_reward=[1.0, 0.0, 2.0], value=torch.zeros(sum(lengths)))
    found = GAE(discount=0.5, trace=1.0, step="decomposed")(x)
    torch.testing.assert_close(found, x.turn_of_token.spread(x.discounted_returns(0.5)))
    torch.testing.assert_close(found, GAE(discount=0.5, trace=1.0, step="turn")(x))
    if max(lengths) > 1:
        assert not torch.allclose(GAE(discount=0.5, trace=1.0)(x), found)


@given(st.lists(st.floats(-2, 2, width=32), min_size=6, max_size=6))
def test_errors_of_an_action_s_tokens_add_up_to_the_error_of_the_action(values):
    x = Experience.from_lengths([3, 2, 1], [2, 1], [2], turn_reward=[1.0, 0.5, -1.0], value=torch.tensor(values))
    errors = GAE(discount=0.9, trace=0.0, step="decomposed")(x)
    whole = GAE(discount=0.9, trace=0.0, step="turn")(x)[x.turn_of_token.first()]
    torch.testing.assert_close(x.turn_of_token.sum(errors), whole, atol=1e-5, rtol=1e-5)


def test_without_a_discount_flattening_is_harmless():
    x = Experience.from_lengths([3, 2], [2], [1], turn_reward=[1.0, 0.5], value=torch.randn(5))
    assert torch.equal(GAE(step="decomposed")(x), GAE(step="token")(x))


def test_a_token_s_own_reward_counts_where_it_is_earned():
    charged = torch.tensor([0.0, -1.0, 0.0])
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=[0.0, 0.0], token_reward=charged, value=torch.zeros(3))
    assert GAE(discount=0.5, trace=1.0, step="decomposed")(x).tolist() == [-1.0, -1.0, 0.0]
    assert GAE(discount=0.5, trace=1.0, step="turn")(x).tolist() == [-1.0, -1.0, 0.0]


def test_of_a_turn_as_a_step_the_critic_learns_at_its_first_token():
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=[1.0, 2.0], value=torch.tensor([0.5, 9.0, 0.25]))
    advantage = GAE(discount=0.5, trace=0.0, step="turn")
    assert advantage(x).tolist() == [1 + 0.125 - 0.5, 1 + 0.125 - 0.5, 1.75]
    assert advantage.critic_tokens(x).tolist() == [True, False, True]
    assert advantage.value_target(x).tolist() == [1.125, 1.125, 2.0]
    assert GAE().critic_tokens(x) is None
    whitened = BatchWhitened(advantage) + 0.5 * GAE()
    assert whitened.critic_tokens(x).tolist() == [True, False, True]


def test_a_turn_that_runs_on_continues_with_the_value_its_last_turn_began_with():
    x = response([0.5, 0.6, 0.8])
    assert GAE(discount=0.9, bootstrap="last_value", step="turn")(x).tolist() == pytest.approx([-0.05] * 3)


@pytest.mark.parametrize("step", ["turn", "decomposed"])
def test_an_action_without_tokens_is_refused(step):
    x = Experience.from_lengths([1, 0], [2], [1], turn_reward=[1.0, 2.0], value=torch.zeros(1))
    with pytest.raises(ValueError, match="turn 1 has no tokens"):
        GAE(step=step)(x)
