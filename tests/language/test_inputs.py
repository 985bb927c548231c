import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.language.inputs import TokenInputs


def three_conversations() -> TokenInputs:
    # [10 11* 12*] [20 21 22* 23] [30 31*]   (* sampled by the policy)
    return TokenInputs(
        token_ids=torch.tensor([10, 11, 12, 20, 21, 22, 23, 30, 31]),
        lengths=torch.tensor([3, 4, 2]),
        action_positions=torch.tensor([1, 2, 5, 8]),
    )


def test_actions_and_positions() -> None:
    inputs = three_conversations()
    assert inputs.actions.tolist() == [11, 12, 22, 31]
    assert inputs.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert inputs.actions_per_trajectory.tolist() == [2, 1, 1]


def test_select_reorders_trajectories_and_their_actions() -> None:
    chosen = three_conversations().select(torch.tensor([2, 0]))
    assert chosen.token_ids.tolist() == [30, 31, 10, 11, 12]
    assert chosen.lengths.tolist() == [2, 3]
    assert chosen.action_positions.tolist() == [1, 3, 4]


def test_select_may_repeat_and_may_take_none() -> None:
    inputs = three_conversations()
    assert inputs.select(torch.tensor([1, 1])).actions.tolist() == [22, 22]
    nothing = inputs.select(torch.tensor([], dtype=torch.int64))
    assert len(nothing.token_ids) == len(nothing.lengths) == len(nothing.action_positions) == 0


def test_a_trajectory_without_actions_stays_in_place() -> None:
    inputs = TokenInputs(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([2, 1, 2]), torch.tensor([1, 4]))
    assert inputs.actions_per_trajectory.tolist() == [1, 0, 1]
    assert inputs.select(torch.tensor([1, 2])).action_positions.tolist() == [2]


def test_actions_are_predicted_from_what_comes_before_the_last_one() -> None:
    read = three_conversations().before_actions()
    assert read.token_ids.tolist() == [10, 11, 20, 21, 30]
    assert read.lengths.tolist() == [2, 2, 1]
    assert read.predecessors.tolist() == [0, 1, 3, 4]


def test_openings_are_what_is_read_before_the_first_action_equal_ones_once() -> None:
    # [10 11* 12*] [20 21 22* 23 24*] [10 31*] [20 21 25*] and one without an action.
    inputs = TokenInputs(
        token_ids=torch.tensor([10, 11, 12, 20, 21, 22, 23, 24, 10, 31, 20, 21, 25, 7, 8, 9]),
        lengths=torch.tensor([3, 5, 2, 3, 3]),
        action_positions=torch.tensor([1, 2, 5, 7, 9, 12]),
    )
    alone, whose = inputs.openings()
    assert whose.tolist() == [0, 1, 0, 1, 2]
    assert alone.token_ids.tolist() == [10, 20, 21, 7, 8, 9] and alone.lengths.tolist() == [1, 2, 3]
    assert alone.actions.tolist() == [21, 8, 9]
    nothing, nobody = inputs.select(torch.tensor([], dtype=torch.int64)).openings()
    assert len(nothing.token_ids) == len(nothing.lengths) == len(nobody) == 0


def test_the_opening_of_several_contexts_is_that_of_the_first() -> None:
    # The first trajectory: [1 2 3*] [4 5* 6], where its second context acts first; the second: [1 2 9*].
    inputs = TokenInputs(
        token_ids=torch.tensor([1, 2, 3, 4, 5, 6, 1, 2, 9]),
        lengths=torch.tensor([6, 3]),
        action_positions=torch.tensor([4, 2, 8]),
        context_lengths=torch.tensor([3, 3, 3]),
    )
    alone, whose = inputs.openings()
    assert alone.token_ids.tolist() == [1, 2] and whose.tolist() == [0, 0]


def test_read_through_the_last_action_every_action_stands_behind_its_predecessor() -> None:
    inputs = three_conversations()
    read = inputs.before_actions(through=True)
    assert torch.equal(read.token_ids[read.predecessors + 1], inputs.actions)
    before = inputs.before_actions()
    assert torch.equal(read.lengths, before.lengths + 1)
    assert torch.equal(read.token_ids[read.predecessors], before.token_ids[before.predecessors])


def test_a_trajectory_without_actions_need_not_be_read() -> None:
    read = TokenInputs(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([2, 1, 2]), torch.tensor([1, 4])).before_actions()
    assert (read.token_ids.tolist(), read.lengths.tolist(), read.predecessors.tolist()) == ([1, 4], [1, 1], [0, 1])


@settings(max_examples=30, deadline=None)
@given(st.permutations([0, 1, 2]), st.integers(0, 3))
def test_concatenating_selections_is_selecting_both(order: list[int], cut: int) -> None:
    inputs = three_conversations()
    head, tail = torch.tensor(order[:cut], dtype=torch.int64), torch.tensor(order[cut:], dtype=torch.int64)
    joined = inputs.select(head).concatenate([inputs.select(tail)])
    together = inputs.select(torch.tensor(order))
    for name in ("token_ids", "lengths", "action_positions"):
        assert getattr(joined, name).tolist() == getattr(together, name).tolist()


@pytest.mark.parametrize(
    ("lengths", "actions", "message"),
    [
        ([3, 3], [1], "add up to 6"),
        ([3, 2], [2, 1], "ascend"),
        ([3, 2], [3], "first token"),
        ([3, 2], [5], "must lie in 0..4"),
    ],
)
def test_inconsistent_inputs_are_refused(lengths: list[int], actions: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenInputs(torch.arange(5), torch.tensor(lengths), torch.tensor(actions))


def test_a_prefix_stands_for_what_was_read_before_the_first_action() -> None:
    # [10 11 12* 13 14*] [20 21 22] [] [30 31* 32]: an observation between two turns stays, and so does what comes last.
    inputs = TokenInputs(
        token_ids=torch.tensor([10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32]),
        lengths=torch.tensor([5, 3, 0, 3]),
        action_positions=torch.tensor([2, 4, 9]),
    )
    bare = inputs.without_opening(7)
    assert bare.token_ids.tolist() == [7, 12, 13, 14, 7, 7, 31, 32]
    assert bare.lengths.tolist() == [4, 1, 0, 3]
    assert bare.action_positions.tolist() == [1, 3, 6]
    assert bare.actions.tolist() == inputs.actions.tolist()
    assert bare.position_ids.tolist() == [0, 1, 2, 3, 0, 0, 1, 2]


# ---- several contexts in one trajectory -----------------------------------------------------------------------------


def an_agent_that_called_another() -> TokenInputs:
    """It acts, the other acts twice in a context of its own, it acts again; then a trajectory of one context."""
    # [10 11* 12 13*][20 21* 22*]   [30 31*]
    return TokenInputs(
        token_ids=torch.tensor([10, 11, 12, 13, 20, 21, 22, 30, 31]),
        lengths=torch.tensor([7, 2]),
        action_positions=torch.tensor([1, 5, 6, 3, 8]),
        context_lengths=torch.tensor([4, 3, 2]),
    )


def test_actions_come_in_the_order_they_were_taken_in_and_positions_are_of_the_context() -> None:
    inputs = an_agent_that_called_another()
    assert inputs.actions.tolist() == [11, 21, 22, 13, 31]
    assert inputs.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert inputs.actions_per_trajectory.tolist() == [4, 1]


def test_every_action_is_predicted_from_its_own_context() -> None:
    read = an_agent_that_called_another().before_actions()
    assert read.token_ids.tolist() == [10, 11, 12, 20, 21, 30]
    assert read.lengths.tolist() == [3, 2, 1]
    assert read.token_ids[read.predecessors].tolist() == [10, 20, 21, 12, 30]


def test_contexts_go_with_their_trajectory() -> None:
    inputs = an_agent_that_called_another()
    swapped = inputs.select(torch.tensor([1, 0, 1]))
    assert swapped.context_lengths.tolist() == [2, 4, 3, 2]
    assert swapped.actions.tolist() == [31, 11, 21, 22, 13, 31]
    joined = inputs.select(torch.tensor([1])).concatenate([inputs.select(torch.tensor([0, 1]))])
    for name in ("token_ids", "lengths", "action_positions", "context_lengths"):
        assert getattr(joined, name).tolist() == getattr(swapped, name).tolist()


def test_a_batch_of_one_context_each_joins_one_of_several() -> None:
    joined = three_conversations().concatenate([an_agent_that_called_another()])
    assert joined.context_lengths.tolist() == [3, 4, 2, 4, 3, 2]
    assert joined.to("cpu").actions.tolist() == [11, 12, 22, 31, 11, 21, 22, 13, 31]


def test_of_every_context_what_comes_before_its_first_action_can_be_left_out() -> None:
    bare = an_agent_that_called_another().without_opening(7)
    assert bare.token_ids.tolist() == [7, 11, 12, 13, 7, 21, 22, 7, 31]
    longer = TokenInputs(
        torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([6]), torch.tensor([2, 5]), torch.tensor([3, 3])
    ).without_opening(7)
    assert longer.token_ids.tolist() == [7, 3, 7, 6]
    assert (longer.lengths.tolist(), longer.context_lengths.tolist()) == ([4], [2, 2])


@pytest.mark.parametrize(
    ("contexts", "actions", "message"),
    [
        ([3, 4, 3], [1], "add up to 9"),
        ([9, 0], [1], "at least 1"),
        ([4, 5], [1], "reach from one trajectory into another"),
        ([4, 3, 2], [3, 1], "ascend"),
        ([4, 3, 2], [8, 1], "trajectories in order"),
        ([4, 3, 2], [4], "first token of a context"),
        ([4, 3, 2], [9], "must lie in 0..8"),
    ],
)
def test_inconsistent_contexts_are_refused(contexts: list[int], actions: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenInputs(torch.arange(9), torch.tensor([7, 2]), torch.tensor(actions), torch.tensor(contexts))
