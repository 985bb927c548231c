"""Steps that trajectories share: their mean against numbers worked by hand, the comparison against brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import (
    Constant,
    GroupCentered,
    GroupStandardized,
    LeaveOneOut,
    SharedSteps,
    WithDemonstrations,
)
from stratagem.advantages.graph import action_keys, same_steps
from stratagem.errors import InputError
from stratagem.experience import Experience

Step = tuple[int, tuple[int, ...]]
"""State acted in, and tokens of the action."""


def played(*trajectories: list[Step], groups: list[int] | None = None, **fields) -> Experience:
    """Trajectories of (state, tokens) in one group, unless sizes of groups are given."""
    steps = [step for trajectory in trajectories for step in trajectory]
    return Experience.from_lengths(
        [len(tokens) for _, tokens in steps],
        [len(trajectory) for trajectory in trajectories],
        [len(trajectories)] if groups is None else groups,
        action=torch.tensor([token for _, tokens in steps for token in tokens], dtype=torch.int64),
        turn_state=torch.tensor([state for state, _ in steps], dtype=torch.int64),
        **fields,
    )


OPEN, LEFT, RIGHT = (7, 8), (1,), (2,)
DOOR, HALL = 100, 200


def test_a_step_that_good_and_bad_share_is_neutral_and_those_that_differ_keep_their_credit():
    x = played([(DOOR, OPEN), (HALL, LEFT)], [(DOOR, OPEN), (HALL, RIGHT)], reward=[1.0, -1.0])
    assert SharedSteps(GroupCentered())(x).tolist() == [0, 0, 1, 0, 0, -1]
    assert SharedSteps(GroupCentered(), history=None)(x).tolist() == [0, 0, 1, 0, 0, -1]


def test_what_three_of_four_share_gets_their_mean():
    shared = [[(DOOR, OPEN), (HALL + n, LEFT)] for n in (0, 0, 0)]
    x = played(*shared, [(DOOR, RIGHT), (HALL, RIGHT)], reward=[1.0, 1.0, -1.0, -1.0])
    found = x.turn_of_token.mean(SharedSteps(GroupCentered())(x)).view(4, 2)
    assert found[:, 0].tolist() == pytest.approx([1 / 3] * 3 + [-1])
    # The first three go the same way to the end as well.
    assert found[:, 1].tolist() == pytest.approx([1 / 3] * 3 + [-1])


def test_without_a_shared_step_nothing_changes():
    x = played(*[[(n, LEFT), (10 + n, RIGHT)] for n in range(4)], reward=[1.0, 0.0, 0.0, 0.5])
    for part in (GroupStandardized(), LeaveOneOut()):
        for history in (0, 1, None):
            assert torch.equal(SharedSteps(part, history)(x), part(x))


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6))
def test_trajectories_that_are_all_the_same_teach_nothing(rewards):
    x = played(*[[(DOOR, OPEN), (HALL, LEFT)]] * len(rewards), reward=rewards)
    for history in (0, 1, None):
        assert SharedSteps(GroupCentered(), history)(x).tolist() == pytest.approx([0] * 3 * len(rewards), abs=1e-5)


def test_one_state_and_action_with_two_next_states_are_two_steps():
    x = played([(DOOR, OPEN), (1, LEFT)], [(DOOR, OPEN), (2, LEFT)], reward=[1.0, -1.0])
    assert SharedSteps(GroupCentered(), 0)(x).tolist() == [1, 1, 1, -1, -1, -1]


def test_an_end_is_no_state_whatever_its_key_and_shows_no_outcome():
    ended_and_went_on = played([(DOOR, OPEN)], [(DOOR, OPEN), (0, LEFT)], reward=[1.0, -1.0])
    assert SharedSteps(GroupCentered(), 0)(ended_and_went_on).tolist() == [1, 1, -1, -1, -1]
    by_chance = played([(DOOR, OPEN)], [(DOOR, OPEN)], reward=[1.0, -1.0])
    assert SharedSteps(GroupCentered(), 0)(by_chance).tolist() == [0, 0, 0, 0]


def test_history_tells_visits_of_one_state_apart():
    # Both go from 3 to 4 by LEFT; the first comes from 1, the second from 2, and both by RIGHT from 0 before.
    x = played(
        [(0, RIGHT), (1, RIGHT), (3, LEFT), (4, LEFT)],
        [(0, RIGHT), (2, RIGHT), (3, LEFT), (4, LEFT)],
        reward=[1.0, -1.0],
    )
    expected = {0: [1, 1, 0, 0], 1: [1, 1, 1, 0], 2: [1, 1, 1, 1], None: [1, 1, 1, 1]}
    for history, credit in expected.items():
        assert SharedSteps(GroupCentered(), history)(x)[:4].tolist() == credit


def test_groups_share_nothing():
    x = played(*[[(DOOR, OPEN)]] * 4, groups=[2, 2], reward=[1.0, 3.0, 10.0, 30.0])
    found = SharedSteps(Constant(2.0) + GroupCentered())(x)
    assert found.tolist() == [2.0] * 8
    assert len(same_steps(x, 0).labels.unique()) == 2


def test_a_circle_counts_by_steps_or_once():
    # Around twice, then out, is worth 1; once and out -1. The way around is (1 + 1 - 1) / 3 by steps, 0 otherwise.
    x = played([(0, LEFT), (0, LEFT), (0, RIGHT)], [(0, LEFT), (0, RIGHT)], reward=[1.0, -1.0])
    assert SharedSteps(GroupCentered(), 0)(x).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 0])
    assert SharedSteps(GroupCentered(), 0, "trajectories")(x).tolist() == [0, 0, 0, 0, 0]


def test_the_way_out_after_the_same_history_alone_is_shared():
    x = played([(0, LEFT), (0, LEFT), (0, RIGHT)], [(0, LEFT), (0, RIGHT)], reward=[1.0, -1.0])
    # The first step has no past, the second of the first trajectory has one like the other's first step out.
    assert SharedSteps(GroupCentered(), 1)(x).tolist() == [0, 1, 0, 0, 0]
    assert SharedSteps(GroupCentered(), None)(x).tolist() == [0, 1, 1, 0, -1]


def test_a_group_of_one_and_equal_returns_are_no_trouble():
    x = played([(DOOR, OPEN), (DOOR, OPEN)], reward=[3.0])
    assert SharedSteps(Constant(1.0))(x).tolist() == [1.0] * 4
    x = played([(DOOR, OPEN)], [(DOOR, LEFT)], reward=[3.0, 3.0])
    assert SharedSteps()(x).tolist() == [0, 0, 0]


def test_trajectories_without_turns_and_turns_without_tokens_are_no_trouble():
    x = played([(DOOR, OPEN), (HALL, ())], [], [(DOOR, OPEN), (HALL, ())], reward=[1.0, 0.0, -1.0])
    assert SharedSteps(GroupCentered())(x).tolist() == [0, 0, 0, 0]
    empty = played(groups=[], reward=torch.zeros(0))
    assert SharedSteps()(empty).tolist() == []


def test_turns_of_which_nothing_may_train_have_no_part_in_the_mean():
    x = played(*[[(DOOR, OPEN)]] * 3, reward=[1.0, 0.0, -1.0])
    mask = torch.tensor([True, True, False, True, False, False])
    found = SharedSteps(GroupCentered())(x.replace(mask=mask))
    assert found[mask].tolist() == [0.5, 0.5, 0.5]
    assert bool(found.isfinite().all())


def test_what_masked_tokens_hold_reaches_no_mean():
    x = played(*[[(DOOR, OPEN)]] * 2, reward=[1.0, 0.0])
    x = x.replace(mask=torch.tensor([False, True, True, False]), advantage=torch.tensor([math.nan, 1, 3, math.inf]))

    class _Given(Constant):
        def __call__(self, x: Experience) -> torch.Tensor:
            return x.advantage

    assert SharedSteps(_Given())(x).tolist() == [2.0] * 4


def test_demonstrations_are_shared_unless_kept_apart():
    x = played(*[[(DOOR, OPEN)]] * 3, reward=[1.0, -1.0, 3.0], demonstrated=[False, False, True])
    assert SharedSteps(GroupCentered())(x).tolist() == pytest.approx([0] * 6, abs=1e-6)
    assert WithDemonstrations(SharedSteps(GroupCentered()), value=5.0)(x).tolist() == [0, 0, 0, 0, 5, 5]


def test_a_batch_without_states_is_told_so():
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 0.0])
    with pytest.raises(ValueError, match="action and turn_state"):
        SharedSteps()(x)
    assert {"turn_state", "action"} <= SharedSteps().needs()


@pytest.mark.parametrize("wrong", [{"history": -1}, {"count": "turns"}, {"history": 1.5}])
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(InputError, match=f"shared_steps.{next(iter(wrong))}"):
        SharedSteps(**wrong)


# ---- against brute force --------------------------------------------------------------------------------------------

graphs = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([(0,), (1,), (0, 0), ()])), max_size=6),
    min_size=2,
    max_size=6,
)


def brute_force(trajectories: list[list[Step]], group: list[int], history: int | None) -> list[object]:
    """Everything of a turn that has to agree for its step to be the same."""
    told: list[object] = []
    for trajectory, number in zip(trajectories, group, strict=True):
        for turn, step in enumerate(trajectory):
            reach = turn if history is None else history
            past = [trajectory[turn - back] if back <= turn else None for back in range(1, reach + 1)]
            if history is None:
                past.append(None)
            after = trajectory[turn + 1][0] if turn + 1 < len(trajectory) else "end"
            told.append((number, step, after, tuple(past)))
    return told


@settings(deadline=None)
@given(graphs, st.sampled_from([0, 1, 2, 3, 5, None]))
def test_steps_are_the_same_exactly_where_all_that_is_compared_is(trajectories, history):
    group = [number % 2 for number in range(len(trajectories))]
    order = sorted(range(len(group)), key=group.__getitem__)
    trajectories, group = [trajectories[n] for n in order], [group[n] for n in order]
    x = played(*trajectories, groups=[group.count(0), group.count(1)])
    labels, told = same_steps(x, history).labels.tolist(), brute_force(trajectories, group, history)
    for one, other in itertools.product(range(len(told)), repeat=2):
        assert (labels[one] == labels[other]) == (told[one] == told[other])


@settings(deadline=None)
@given(graphs)
def test_more_history_makes_a_finer_partition_and_all_of_it_the_finest(trajectories):
    x = played(*trajectories)
    for coarse, fine in itertools.pairwise([0, 1, 2, 3, None]):
        pairs = {(c, f) for c, f in zip(*(same_steps(x, h).labels.tolist() for h in (coarse, fine)), strict=True)}
        assert len(pairs) == len({f for _, f in pairs})


@settings(deadline=None)
@given(graphs, st.sampled_from([0, 1, None]))
def test_the_sum_over_turns_stays_what_it_was(trajectories, history):
    trajectories = [[(state, tokens or (3,)) for state, tokens in each] for each in trajectories]
    x = played(*trajectories, reward=torch.arange(len(trajectories)).float() ** 2)
    first = x.turn_of_token.first()
    plain = GroupCentered()(x)[first].sum().item()
    assert SharedSteps(GroupCentered(), history)(x)[first].sum().item() == pytest.approx(plain, abs=1e-4)


@settings(deadline=None)
@given(graphs)
def test_the_order_of_trajectories_does_not_matter(trajectories):
    x = played(*trajectories, reward=torch.arange(len(trajectories)).float())
    order = torch.arange(x.trajectories).flip(0)
    rows = x.turn_of_token.pick(x.trajectory_of_turn.pick(order)[0])[0]
    torch.testing.assert_close(SharedSteps()(x.select(order)), SharedSteps()(x)[rows])


# ---- keys of actions ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=12))
def test_actions_have_one_key_exactly_where_they_have_the_same_tokens(actions):
    x = played([(0, tuple(action)) for action in actions])
    keys = action_keys(x).tolist()
    for one, other in itertools.product(range(len(actions)), repeat=2):
        assert (keys[one] == keys[other]) == (actions[one] == actions[other])


def test_many_actions_have_as_many_keys():
    tokens = torch.cartesian_prod(*[torch.arange(20)] * 4)
    x = Experience.from_lengths([4] * len(tokens), [len(tokens)], [1], action=tokens.flatten())
    assert len(action_keys(x).unique()) == 20**4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_vectors_are_the_same_where_all_their_numbers_are(dtype):
    vectors = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [0.0, 1.001], [0.0, 1.0]], dtype=dtype)
    x = Experience.from_lengths([1] * 5, [5], [1], action=vectors)
    first, *others = action_keys(x).tolist()
    assert [key == first for key in others] == [True, False, False, True]
