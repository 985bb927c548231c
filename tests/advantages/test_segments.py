"""Hierarchical advantages: turns of one sub-goal as a segment, a stream of credit for each part of a turn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GAE, HierarchicalGAE
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import Exact, Tree, find_game
from stratagem.spans import Span

SWITCH, SUBGOAL, ACTION = 0, 1, 2
"""Columns of the batches below: every turn has one token of each, in this order."""


def turns(
    rewards: list[float],
    starts: list[bool],
    low: list[float],
    high: list[float] | None = None,
    switch: list[float] | None = None,
    **fields,
) -> Experience:
    """One trajectory of turns of three tokens; the critic says ``switch``, ``high`` and ``low`` before them."""
    count = len(rewards)
    value = torch.tensor([switch or [0.0] * count, high or [0.0] * count, low]).T.reshape(-1)
    return Experience.from_lengths(
        [3] * count,
        [count],
        [1],
        turn_reward=rewards,
        span=[2, 1, 0] * count,
        segment_start=starts,
        value=value,
        **fields,
    )


def by_part(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 3).T


FOUR = turns([0.0, 0.0, 0.0, 1.0], [True, False, True, False], [0.1, 0.2, 0.3, 0.4], [0.5, 7.0, 0.6, 7.0])


def test_four_turns_of_two_segments_worked_by_hand():
    estimate = HierarchicalGAE(discount=0.9, turn_trace=0.95, segment_trace=0.95)
    found = by_part(estimate(FOUR))
    assert found[ACTION].tolist() == pytest.approx([0.3707, 0.34, 0.573, 0.6])
    assert found[SUBGOAL].tolist() == pytest.approx([0.21685, 0.0, 0.30, 0.0])
    assert found[SWITCH].tolist() == pytest.approx([0.486, 0.54, 0.9, 1.0])


def test_the_critic_s_targets_are_those_of_the_part_that_begins_there():
    estimate = HierarchicalGAE(discount=0.9, turn_trace=0.95, segment_trace=0.95)
    target, learns = by_part(estimate.value_target(FOUR)), by_part(estimate.critic_tokens(FOUR))
    assert target[ACTION].tolist() == pytest.approx([0.4707, 0.54, 0.873, 1.0])
    assert target[SUBGOAL][[0, 2]].tolist() == pytest.approx([0.71685, 0.9])
    assert target[SWITCH].tolist() == pytest.approx([0.486, 0.54, 0.9, 1.0])
    assert learns[SUBGOAL].tolist() == [True, False, True, False]
    assert bool(learns[[SWITCH, ACTION]].all())


def test_the_first_turn_begins_a_segment_whatever_it_says():
    estimate = HierarchicalGAE(discount=0.9)
    assert torch.equal(estimate(FOUR), estimate(FOUR.replace(segment_start=torch.tensor([False, False, True, False]))))


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_one_segment_is_the_textbook_s_estimate_over_turns(low, discount, trace):
    x = turns([0.5, -1.0, 0.0, 2.0], [True, False, False, False], low)
    flat = Experience.from_lengths([1] * 4, [4], [1], turn_reward=[0.5, -1.0, 0.0, 2.0], value=torch.tensor(low))
    found = by_part(HierarchicalGAE(discount, trace)(x))[ACTION]
    torch.testing.assert_close(found, GAE(discount, trace)(flat), atol=1e-5, rtol=1e-5)


def test_turns_that_are_all_action_are_steps_of_plain_estimation():
    value = torch.tensor([0.3, 9.0, -0.2, 9.0, 9.0])
    x = Experience.from_lengths(
        [2, 3], [2], [1], turn_reward=[1.0, 2.0], value=value, span=[0] * 5, segment_start=[True, False]
    )
    ours, plain = HierarchicalGAE(0.9, 0.8), GAE(0.9, 0.8, step="turn")
    torch.testing.assert_close(ours(x), plain(x))
    learns = plain.critic_tokens(x)
    assert learns is not None and torch.equal(ours.critic_tokens(x), learns)
    torch.testing.assert_close(ours.value_target(x)[learns], plain.value_target(x)[learns])


def test_without_values_actions_earn_to_the_end_of_their_segment_and_sub_goals_to_the_end_of_all():
    x = turns([1.0, 2.0, 4.0, 8.0], [True, False, True, False], [0.0] * 4)
    found = by_part(HierarchicalGAE(0.5, 1.0, 1.0)(x))
    assert found[ACTION].tolist() == [2.0, 2.0, 8.0, 8.0]
    assert found[SUBGOAL].tolist() == [1 + 1 + 1 + 1, 0.0, 8.0, 0.0]


def test_a_switch_in_every_turn_is_plain_estimation_of_the_plan():
    values = [0.3, -0.1, 0.7]
    x = turns([1.0, 0.0, 2.0], [True] * 3, [0.2, 0.4, 0.6], values)
    flat = Experience.from_lengths([1] * 3, [3], [1], turn_reward=[1.0, 0.0, 2.0], value=torch.tensor(values))
    found = by_part(HierarchicalGAE(0.9, 0.8, 0.7)(x))
    torch.testing.assert_close(found[SUBGOAL], GAE(0.9, 0.7)(flat))
    # An action's trace reaches no further than its own turn.
    expected = [1 + 0.9 * -0.1 - 0.2, 0.9 * 0.7 - 0.4, 2 - 0.6]
    assert found[ACTION].tolist() == pytest.approx(expected)


def test_segments_of_one_trajectory_do_not_reach_into_the_next():
    pair = Experience.concatenate([FOUR, FOUR])
    estimate = HierarchicalGAE(0.9, 0.95, 0.95)
    torch.testing.assert_close(estimate(pair), torch.cat([estimate(FOUR)] * 2))


# ---- where episodes are cut ------------------------------------------------------------------------------------------


def test_a_cut_trajectory_goes_on_with_its_own_last_values():
    x = turns([0.0, 0.0], [True, True], [0.25, 0.5], [1.0, 2.0], [0.0, 0.0], truncated=[True])
    found = by_part(HierarchicalGAE(0.5, 1.0, 1.0)(x))
    assert found[ACTION].tolist() == [0.5 * 2.0 - 0.25, 0.5 * 0.5 - 0.5]
    assert found[SUBGOAL].tolist() == [0.5 * 2 - 1 + 0.5 * (0.5 * 2 - 2), 0.5 * 2 - 2]
    assert found[SWITCH].tolist() == [0.5 * 2.0, 0.5 * 0.5]
    ended = by_part(HierarchicalGAE(0.5, 1.0, 1.0, bootstrap_truncated=False)(x))
    assert ended[ACTION][1] == -0.5 and ended[SUBGOAL][1] == -2.0
    told = by_part(HierarchicalGAE(0.5, 1.0, 1.0)(x.replace(final_value=torch.tensor([4.0]))))
    assert told[ACTION][1] == 1.5 and told[SUBGOAL][1] == 0.0


def test_an_episode_that_ended_early_is_an_error_in_the_data():
    x = FOUR.replace(turn_done=torch.tensor([False, True, False, True]))
    with pytest.raises(ValueError, match="turn 1 ended its episode, which goes on"):
        HierarchicalGAE()(x)


def test_an_empty_batch_has_no_credit_and_an_empty_turn_is_refused():
    empty = FOUR.select(torch.zeros(0, dtype=torch.int64))
    assert HierarchicalGAE(whiten=True)(empty).shape == (0,)
    x = Experience.from_lengths(
        [1, 0], [2], [1], turn_reward=[1.0, 2.0], value=torch.zeros(1), span=[0], segment_start=[True, True]
    )
    with pytest.raises(ValueError, match="turn 1 has no tokens"):
        HierarchicalGAE()(x)


# ---- malformed turns -------------------------------------------------------------------------------------------------


def malformed(spans: list[int], values: list[float]) -> Experience:
    """A turn that ends with reward 1, out of these spans, before a well-formed one that ends with 3."""
    return Experience.from_lengths(
        [len(spans), 3],
        [2],
        [1],
        turn_reward=[1.0, 3.0],
        span=[*spans, 2, 1, 0],
        segment_start=[True, False],
        value=torch.tensor([*values, 0.0, 0.0, 0.5]),
    )


def test_tokens_of_no_part_get_no_credit():
    x = malformed([-1, 2, -1, 1, -1, 0, -1, 5], [0.0] * 8)
    found = HierarchicalGAE()(x)[:8]
    assert found[[0, 2, 4, 6, 7]].tolist() == [0.0] * 5
    assert bool((found[[1, 3, 5]] != 0).all())


@pytest.mark.parametrize(("spans", "read"), [([2, 1, 0], 2), ([2, 1, -1], 1), ([2, 2, -1], 0), ([-1, 2, 2], 0)])
def test_an_action_s_value_is_read_before_it_or_before_the_sub_goal_or_before_the_turn(spans, read):
    x = Experience.from_lengths(
        [3, 3],
        [2],
        [1],
        turn_reward=[0.0, 3.0],
        span=[2, 1, 0, *spans],
        segment_start=[True, False],
        value=torch.tensor([0.0, 0.0, 0.5, 0.25, 0.75, 1.25]),
    )
    # The action before continues with it.
    assert by_part(HierarchicalGAE(turn_trace=0.0)(x))[ACTION][0] == [0.25, 0.75, 1.25][read] - 0.5
    learns = HierarchicalGAE().critic_tokens(x)
    assert learns[3:].tolist() == [True, False, 0 in spans]


def test_a_segment_without_a_sub_goal_gives_none_credit_and_the_plan_reads_the_turn_s_first_value():
    x = malformed([2, 0], [0.25, 0.75])
    target = HierarchicalGAE().value_target(x)
    assert target[:2].tolist() == [4.0, 4.0]
    assert HierarchicalGAE(streams=("subgoal",))(x).tolist() == [0.0] * 5


# ---- whitening and choice of streams ---------------------------------------------------------------------------------


def test_whitening_is_of_each_stream_over_the_turns_that_have_it():
    estimate = HierarchicalGAE(0.9, whiten=True)
    found = by_part(estimate(FOUR)).double()
    for row in (found[SWITCH], found[ACTION], found[SUBGOAL][[0, 2]]):
        assert float(row.mean()) == pytest.approx(0, abs=1e-6)
        assert float(row.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert found[SUBGOAL][[1, 3]].tolist() == [0.0, 0.0]


def test_whitening_leaves_out_turns_that_may_not_train():
    masked = torch.arange(12) < 9
    x = FOUR.replace(mask=masked)
    kept = by_part(HierarchicalGAE(0.9)(FOUR))[ACTION][:3].double()
    found = by_part(HierarchicalGAE(0.9, whiten=True)(x))[ACTION][:3].double()
    torch.testing.assert_close(found, (kept - kept.mean()) / kept.std(correction=0), atol=1e-5, rtol=1e-5)


def test_streams_are_disjoint_and_add_up():
    parts = [HierarchicalGAE(0.9, streams=(name,))(FOUR) for name in ("switch", "subgoal", "action")]
    assert int(torch.stack([part != 0 for part in parts]).sum(0).max()) == 1
    assert torch.equal(sum(parts), HierarchicalGAE(0.9)(FOUR))


def test_an_unknown_stream_is_refused():
    with pytest.raises(InputError, match=r"hierarchical_gae\.streams"):
        HierarchicalGAE(streams=("plan",))


# ---- exactness -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="errands")
def _errands() -> tuple[Tree, Exact]:
    tree = Tree.enumerate(find_game("errands"))
    return tree, Exact(tree, tree.normal_logits(1000))


@pytest.mark.parametrize(("turn_trace", "segment_trace"), [(1.0, 0.95), (0.3, 0.6)])
def test_with_an_exact_critic_every_stream_is_unbiased(errands, turn_trace, segment_trace):
    """Expected over all that follows a choice, its credit is what the choice is better than the policy's average."""
    tree, policy = errands
    x = tree.leaves.replace(value=policy.value[tree.node])
    credit = HierarchicalGAE(1.0, turn_trace, segment_trace)(x)
    weight = x.to_tokens(trajectory=policy.leaf_probability)
    expected = tree.total(weight * credit) / tree.total(weight)
    better = policy.action_value - policy.value.unsqueeze(1)
    torch.testing.assert_close(expected, better, atol=1e-6, rtol=0)


def test_a_critic_read_in_the_same_place_for_two_streams_would_be_biased(errands):
    """Why the plan's value is read before the sub-goal and not before the turn, where one critic says another's."""
    tree, policy = errands
    x = tree.leaves
    assert x.span is not None
    before_turn = policy.value[tree.node]
    first = x.turn_of_token.spread(before_turn[x.turn_of_token.first()])
    x = x.replace(value=torch.where(x.span == Span.SUBGOAL, first, before_turn))
    credit = HierarchicalGAE(1.0, 1.0, 0.95)(x)
    weight = x.to_tokens(trajectory=policy.leaf_probability)
    expected = tree.total(weight * credit) / tree.total(weight)
    assert not torch.allclose(expected, policy.action_value - policy.value.unsqueeze(1), atol=1e-3)
