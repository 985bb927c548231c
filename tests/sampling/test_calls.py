"""Where failed tool calls are tried again, which trajectories are fit to learn from, and what branches earn."""

from __future__ import annotations

import pytest
import torch

from stratagem.experience import Experience
from stratagem.rewards import BranchesPaidByCall, CappedWhereWrong
from stratagem.sampling import BeforeFailedCall, CallsCarriedOut, Disagreeing
from stratagem.sampling.branching import as_branches, as_roots


def batch(calls: list[list[int]], groups: list[int], tokens: int = 3, **fields: object) -> Experience:
    """Trajectories with these calls (1 carried out, 0 failed, -1 none), one a turn of so many tokens."""
    flat = [call for trajectory in calls for call in trajectory]
    given = {"turn_call": torch.tensor(flat), "seed": torch.arange(len(calls)) + 1000, "reward": [0.0] * len(calls)}
    return Experience.from_lengths([tokens] * len(flat), [len(c) for c in calls], groups, **(given | fields))


def places(x: Experience, at: BeforeFailedCall) -> list[int]:
    return torch.nonzero(at(x)).squeeze(1).tolist()


# ---- where to fork --------------------------------------------------------------------------------------------------


def test_code_and_output_are_gone_and_so_many_tokens_of_reasoning():
    # Three tokens of reasoning, then the code: "abc" | X. One token back leaves "ab".
    x = Experience.from_lengths([3, 1], [2], [1], turn_call=torch.tensor([-1, 0]), seed=torch.tensor([1000]))
    assert places(x, BeforeFailedCall(back=1)) == [2]
    assert places(x, BeforeFailedCall(back=0)) == [3]


def test_a_fork_never_lies_before_the_first_token():
    x = batch([[1, 1], [1, 0]], [2])
    assert places(x, BeforeFailedCall(back=100)) == [6]
    assert places(x, BeforeFailedCall(back=3)) == [6] and places(x, BeforeFailedCall(back=2)) == [7]


def test_the_last_failed_call_is_tried_again_or_as_in_the_released_code_the_last():
    x = batch([[0, 0, 1, -1]], [1])
    assert places(x, BeforeFailedCall(back=0)) == [3]
    assert places(x, BeforeFailedCall(back=0, call="last")) == [6]


def test_there_are_at_most_as_many_forks_as_groups_and_which_follows_from_the_seeds():
    x = batch([[0]] * 8, [4, 4])
    seen = {
        tuple(places(x.replace(seed=torch.arange(8) + seed), BeforeFailedCall(back=0))) for seed in range(1000, 1020)
    }
    assert all(len(forks) == 2 for forks in seen) and len(seen) > 5
    assert places(x, BeforeFailedCall()) == places(x, BeforeFailedCall())


def test_where_no_call_failed_one_trajectory_with_a_call_is_forked_at_random():
    x = batch([[1, -1], [-1, -1], [-1, 1]], [3])
    forks = {
        tuple(places(x.replace(seed=torch.arange(3) + seed), BeforeFailedCall(back=0))) for seed in range(1000, 1030)
    }
    assert forks == {(0,), (15,)}


def test_without_calls_there_are_no_forks():
    assert places(batch([[-1, -1]], [1]), BeforeFailedCall()) == []
    assert places(batch([[0]], [1], turn_call=None, seed=None), BeforeFailedCall()) == []
    with pytest.raises(ValueError, match=r"need x\.seed"):
        BeforeFailedCall()(batch([[0]], [1], seed=None))


# ---- what is fit to learn from --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("valid", "kept"), [(7, 0), (8, 8), (16, 16), (0, 0)])
def test_a_problem_with_fewer_than_half_of_its_rollouts_left_is_dropped(valid, kept):
    x = batch([[1]] * valid + [[0]] * (16 - valid), [16])
    assert CallsCarriedOut()(x).tolist() == [True] * kept + [False] * (16 - kept)


def test_three_of_five_are_half_rounded_up():
    assert not CallsCarriedOut()(batch([[1]] * 2 + [[0]] * 3, [5])).any()
    assert int(CallsCarriedOut()(batch([[1]] * 3 + [[0]] * 2, [5])).sum()) == 3


def test_rollouts_are_to_be_long_to_end_by_themselves_and_to_answer():
    x = batch(
        [[1, -1], [-1], [1, 1], [1, -1]], [4], answer=torch.tensor([5, 6, -1, 7]), truncated=[False, False, False, True]
    )
    assert CallsCarriedOut(share=0)(x).tolist() == [True, True, False, False]
    assert CallsCarriedOut(longer_than=3, share=0)(x).tolist() == [True, False, False, False]
    plain = batch([[0, 0]], [1], turn_call=None)
    assert CallsCarriedOut()(plain).tolist() == [True]


def test_branches_stay_when_their_own_last_turn_made_a_call_whatever_became_of_it():
    calls = [[0, 1], [1, 0], [1, -1], [0, -1]]
    x = as_branches(batch(calls, [4], truncated=[True] * 4), torch.tensor([3, 3, 3, 4]), 1)
    assert CallsCarriedOut()(x).tolist() == [True, True, False, False]
    assert not CallsCarriedOut(share=0.75)(x).any()
    # What lies behind the turn in which a branch was cut is masked, and is not its own.
    cut = x.replace(mask=torch.tensor([True] * 3 + [False] * 3).repeat(4))
    assert BranchesPaidByCall()(cut).returns.tolist() == [0, 1, 1, 0]


def test_groups_that_all_earned_the_same_teach_nothing():
    x = batch([[1]] * 4, [2, 2], reward=[1.0, 1.0, 1.0, 0.0])
    assert Disagreeing()(x).tolist() == [False, False, True, True]


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_a_branch_earns_whether_its_call_was_carried_out_and_a_rollout_its_answer():
    reward = torch.tensor([[0.25, 9.0]] * 3)
    x = batch(
        [[1, 0], [1, 1], [1, -1]], [3], reward=reward, reward_names=("reward", "calls"), reward_weights=(2.0, 1.0)
    )
    roots, leaves = as_roots(x), as_branches(x, torch.tensor([3, 3, 3]), 1)
    assert BranchesPaidByCall()(leaves).returns.tolist() == [0.0, 1.0, 0.0]
    both = BranchesPaidByCall()(Experience.concatenate([roots, leaves]))
    assert both.returns.tolist() == [9.5] * 3 + [0.0, 1.0, 0.0]
    assert both.named_reward("calls").tolist() == [9.0] * 6
    assert BranchesPaidByCall()(x) is x


def test_a_noted_reward_is_capped_where_it_went_wrong():
    reward = torch.tensor([[1.0, 0.8], [0.0, 0.8], [0.0, 0.2]])
    x = batch([[1]] * 3, [3], reward=reward, reward_names=("reward", "exploration"), success=[True, False, False])
    assert CappedWhereWrong("exploration", 0.5)(x).reward[:, 1].tolist() == pytest.approx([0.8, 0.5, 0.2])
    assert CappedWhereWrong("exploration", 0.0)(x).reward[:, 1].tolist() == pytest.approx([0.8, 0.0, 0.0])
    assert CappedWhereWrong("nothing")(x) is x
    with pytest.raises(ValueError, match=r"x\.success"):
        CappedWhereWrong("exploration")(x.replace(success=None))
