"""Turns compared by the states they share, against numbers worked by hand and a slow second implementation."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import (
    GroupCentered,
    GroupStandardized,
    LoneTrajectories,
    OverTurns,
    PerReward,
    SharedStates,
)
from stratagem.errors import InputError
from stratagem.experience import Experience


def loops(**fields) -> Experience:
    """One trajectory through A, B, A, C that earns 1 at its end, and one through A, D that earns nothing."""
    given = {"turn_reward": [0.0, 0, 0, 1, 0, 0], "turn_state": [0, 1, 0, 2, 0, 3]}
    return Experience.from_lengths([1] * 6, [4, 2], [2], **(given | fields))


def nested(**fields) -> Experience:
    """A, B, C with G = (0.81, 0.9, 1); A, B, D with G = 0; E, B, C with G = 0.5 throughout (no discount)."""
    given = {"turn_reward": [-0.09, -0.1, 1, 0, 0, 0, 0, 0, 0.5], "turn_state": [0, 1, 2, 0, 1, 3, 4, 1, 2]}
    return Experience.from_lengths([1] * 9, [3, 3, 3], [3], **(given | fields))


def windows(**fields) -> SharedStates:
    return SharedStates(discount=1.0, history=2, standardize=False, **fields)


# ---- one state ------------------------------------------------------------------------------------------------------


def test_a_later_visit_of_a_loop_earns_what_an_earlier_one_loses():
    # G = (1/8, 1/4, 1/2, 1) and (0, 0): A holds 1/8, 1/2 and 0, of mean 5/24.
    credit = SharedStates(0.5, standardize=False)(loops())
    assert credit.tolist() == pytest.approx([-0.083333, 0, 0.291667, 0, -0.208333, 0], abs=1e-6)
    sample = SharedStates(0.5)(loops())
    assert sample.tolist() == pytest.approx([-0.320255, 0, 1.120893, 0, -0.800638, 0], abs=1e-5)
    population = SharedStates(0.5, correction=0)(loops())
    assert population.tolist() == pytest.approx([value * 1.5**0.5 for value in sample.tolist()], rel=1e-4)


def test_without_discount_the_visits_of_a_loop_are_alike():
    credit = SharedStates(1.0, standardize=False)(loops())
    assert credit[0] == credit[2] == pytest.approx(1 / 3)


def test_every_token_of_a_turn_gets_its_credit():
    x = Experience.from_lengths([2, 0, 1], [2, 1], [2], turn_reward=[0.0, 1, 0], turn_state=[0, 1, 0])
    assert SharedStates(1.0, standardize=False)(x).tolist() == [0.5, 0.5, -0.5]


def test_one_state_in_two_groups_is_two():
    one, other = loops(), loops(turn_reward=[0.0, 2, 0, 0, 0, 5])
    together = Experience.concatenate([one, other])
    for part in (SharedStates(), windows(), windows(drop_zero=True)):
        torch.testing.assert_close(part(together), torch.cat([part(one), part(other)]))


def test_states_of_one_visit_and_equal_returns_earn_exactly_nothing():
    for part in (SharedStates(), SharedStates(eps=0.0), windows(), windows(drop_zero=True, base=GroupCentered())):
        assert part(loops(turn_reward=[0.0] * 6)).tolist() == [0.0] * 6
    assert SharedStates()(loops(turn_state=[0, 1, 2, 3, 4, 5])).tolist() == [0.0] * 6


def test_what_is_taken_off_for_an_action_counts_against_its_turn_and_those_before_it():
    plain = SharedStates(0.5, standardize=False)(loops())
    fined = SharedStates(0.5, standardize=False)(loops(turn_reward=[0.0, 0, -0.1, 1, 0, 0]))
    # In A, the returns 1/8, 1/2 and 0 become 0.1, 0.4 and 0, their mean less by 0.125 / 3.
    less = 0.125 / 3
    assert (fined - plain).tolist() == pytest.approx([less - 0.025, 0, less - 0.1, 0, less, 0], abs=1e-6)


# ---- windows of states ----------------------------------------------------------------------------------------------


def test_nested_windows_worked_by_hand():
    expected = [0.405, 0.443333, 0.25, -0.405, -0.456667, 0, 0, 0.033333, -0.25]
    assert windows()(nested()).tolist() == pytest.approx(expected, abs=1e-5)


def test_weights_of_windows_worked_by_hand():
    # The last turn of the first trajectory has windows of 0.5 (4 turns), -0.25 (3) and 1 (2).
    x = Experience.from_lengths(
        [1] * 12,
        [3] * 4,
        [4],
        turn_state=[0, 1, 2, 0, 1, 2, 3, 1, 2, 3, 3, 2],
        turn_reward=[0.0, 0, 2, 0, 0, 0, 0, 0, 4.75, 0, 0, -0.75],
    )
    alone = [SharedStates(1.0, history, 100.0, standardize=False)(x)[2].item() for history in range(3)]
    assert alone == pytest.approx([0.5, -0.25, 1.0])
    assert windows()(x)[2].item() == pytest.approx(0.472222, abs=1e-5)
    assert windows(sharpness=0.0)(x)[2].item() == pytest.approx(0.416667, abs=1e-5)


def test_a_window_in_which_a_turn_is_average_is_left_out_only_when_asked():
    # By the state alone the last turns are worth +-0.5; by the whole way there is no difference.
    x = Experience.from_lengths(
        [1] * 8, [2] * 4, [4], turn_reward=[0.0, 1, 0, 1, 0, 0, 0, 0], turn_state=[0, 2, 0, 2, 1, 2, 1, 2]
    )
    last = torch.tensor([1, 3, 5, 7])
    shared = SharedStates(1.0, 1, standardize=False)
    assert shared(x)[last].tolist() == pytest.approx([0.2, 0.2, -0.2, -0.2])
    assert shared.replace(drop_zero=True)(x)[last].tolist() == pytest.approx([0.5, 0.5, -0.5, -0.5])


def test_a_base_joins_like_a_window_of_no_states():
    x = nested()
    base, plain = GroupCentered()(x), windows()(x)
    mixed = windows(base=GroupCentered())(x)
    # Weights 1 and 2 + 3 at (1, 1), 1 and 2 at (1, 0), and of (3, 0) no window is shared.
    assert mixed[1].item() == pytest.approx((base[1] + 5 * plain[1]).item() / 6)
    assert mixed[0].item() == pytest.approx((base[0] + 2 * plain[0]).item() / 3)
    assert mixed[6].item() == pytest.approx(base[6].item())
    # Where the base is 0 it is left out with drop_zero, and dilutes without.
    flat = x.replace(turn_reward=torch.tensor([-1.0, 0, 1, 0, 0, 0, -0.5, 0, 0.5]))
    assert torch.equal(windows(base=GroupCentered(), drop_zero=True)(flat), windows(drop_zero=True)(flat))
    assert windows(base=GroupCentered())(flat)[0].item() == pytest.approx(2 / 3 * windows()(flat)[0].item())


def test_only_windows_that_fit_into_an_episode_count():
    x = Experience.from_lengths([1] * 3, [1, 2], [2], turn_reward=[1.0, 0, 0], turn_state=[0, 7, 0])
    assert torch.equal(windows()(x), SharedStates(1.0, standardize=False)(x))
    torch.testing.assert_close(windows().replace(history=9)(loops()), windows().replace(history=3)(loops()))


def slow(x: Experience, history: int, sharpness: float, standardize: bool, correction: int, drop: bool) -> list[float]:
    """The same from the definition, with loops and dictionaries; discount 1/2, so that sums are exact."""
    rewards, states, ends = x.turn_reward.tolist(), x.turn_state.tolist(), x.trajectory_of_turn.size().cumsum(0)
    groups = x.group_of_trajectory.labels.tolist()
    members, returns = defaultdict(list), [0.0] * x.turns
    for number, end in enumerate(ends.tolist()):
        start = end - int(x.trajectory_of_turn.size()[number])
        for turn in reversed(range(start, end)):
            returns[turn] = rewards[turn] + (0.5 * returns[turn + 1] if turn + 1 < end else 0.0)
            for k in range(1, min(history + 1, turn - start + 1) + 1):
                members[groups[number], k, tuple(states[turn - k + 1 : turn + 1])].append(turn)
    found = defaultdict(list)
    for (_, k, _), turns in members.items():
        values = torch.tensor([returns[turn] for turn in turns], dtype=torch.float64)
        if len(turns) > 1:
            deviation = values - values.mean()
            if standardize:
                deviation = deviation / (values.std(correction=correction) + 1e-6)
            for turn, value in zip(turns, deviation.tolist(), strict=True):
                if not drop or abs(value) > 1e-12:
                    found[turn].append(((k + 1) ** sharpness, value))
    return [
        sum(w * a for w, a in found[turn]) / sum(w for w, _ in found[turn]) if found[turn] else 0.0
        for turn in range(x.turns)
    ]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2)), min_size=1, max_size=6), min_size=2, max_size=7
    ),
    st.integers(0, 4),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.booleans(),
    st.sampled_from([0, 1]),
    st.booleans(),
)
def test_it_agrees_with_the_definition_and_every_window_adds_up_to_nothing(
    episodes, history, sharpness, standardize, correction, drop
):
    turns = [turn for episode in episodes for turn in episode]
    x = Experience.from_lengths(
        [1] * len(turns),
        [len(episode) for episode in episodes],
        [len(episodes) // 2, len(episodes) - len(episodes) // 2],
        turn_state=[state for state, _ in turns],
        turn_reward=torch.tensor([float(reward) for _, reward in turns], dtype=torch.float64),
    )
    part = SharedStates(0.5, history, sharpness, standardize, correction, drop_zero=drop)
    # Equal returns may differ by a rounding, which division by a deviation of eps makes a million times larger.
    expected = torch.tensor(slow(x, history, sharpness, standardize, correction, drop), dtype=torch.float64)
    torch.testing.assert_close(part(x), expected, rtol=1e-6, atol=1e-7)
    order = torch.arange(x.trajectories).flip(0)
    rows = x.trajectory_of_turn.pick(order)[0]
    torch.testing.assert_close(part(x.select(order)), expected[rows], rtol=1e-6, atol=1e-7)
    if history == 0:
        alike = [(state, i < len(episodes) // 2) for i, episode in enumerate(episodes) for state, _ in episode]
        sums = defaultdict(float)
        for key, value in zip(alike, part(x).tolist(), strict=True):
            sums[key] += value
        assert all(abs(total) < 1e-7 for total in sums.values())


# ---- what it cannot do ----------------------------------------------------------------------------------------------


def test_states_and_finite_rewards_are_needed():
    assert SharedStates().needs() == {"turn_state"}
    with pytest.raises(ValueError, match=r"x\.turn_state, which this experience does not have"):
        SharedStates()(loops(turn_state=None))
    with pytest.raises(ValueError, match=r"turn 2 has the discounted return nan"):
        SharedStates()(loops(turn_reward=[0.0, 0, float("nan"), 1, 0, 0]))


@pytest.mark.parametrize("wrong", [{"discount": 1.1}, {"history": -1}, {"sharpness": -1.0}, {"sharpness": 1e9}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="shared_states"):
        SharedStates(**wrong)


# ---- the episode term -----------------------------------------------------------------------------------------------


def test_over_turns_a_trajectory_counts_as_often_as_it_has_turns():
    # Mean 4 / 6 instead of 1 / 2.
    x = loops()
    assert OverTurns(GroupCentered())(x).tolist() == pytest.approx([1 / 3] * 4 + [-2 / 3] * 2)
    deviation = (4 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / 5
    expected = [1 / 3 / (deviation**0.5 + 1e-6)] * 4 + [-2 / 3 / (deviation**0.5 + 1e-6)] * 2
    assert OverTurns(GroupStandardized())(x).tolist() == pytest.approx(expected, rel=1e-5)
    assert GroupStandardized()(x).tolist() == pytest.approx([0.707106] * 4 + [-0.707106] * 2, abs=1e-5)
    assert GroupCentered()(x).tolist() == [0.5] * 4 + [-0.5] * 2


def test_over_turns_reads_rewards_of_whole_trajectories_by_component():
    x = loops(reward=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert OverTurns(GroupCentered())(x).tolist() == pytest.approx([0.0] * 6)
    parts = OverTurns(PerReward(GroupStandardized()))(x)
    assert parts.tolist() == pytest.approx([0.0] * 6, abs=1e-6)
    assert OverTurns(GroupCentered()).least_group() == 2


def test_turns_of_one_length_make_no_difference_to_a_mean():
    x = nested()
    torch.testing.assert_close(OverTurns(GroupCentered())(x), GroupCentered()(x))


def test_a_lone_trajectory_earns_nothing_or_its_return():
    x = Experience.from_lengths([1, 2, 1], [1] * 3, [1, 2], reward=[3.0, 1.0, 0.0])
    assert LoneTrajectories(GroupCentered())(x).tolist() == [0, 0.5, 0.5, -0.5]
    assert LoneTrajectories(GroupCentered(), earns="return")(x).tolist() == [3, 0.5, 0.5, -0.5]
    lone = x.select(torch.tensor([0]))
    assert LoneTrajectories(GroupStandardized(), earns="return")(lone).tolist() == [3]
    assert torch.equal(
        LoneTrajectories(GroupCentered())(x.select(torch.tensor([1, 2]))), torch.tensor([0.5, 0.5, -0.5])
    )
    assert LoneTrajectories(GroupCentered()).least_group() == 1
