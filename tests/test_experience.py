"""The packed batch: its levels, its rewards, and the pieces it can be cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.partition import Partition, rows_of


@dataclass(frozen=True)
class Rows:
    """Inputs that are one number for each trajectory."""

    number: Tensor

    @property
    def lengths(self) -> Tensor:
        return torch.ones_like(self.number)

    def select(self, trajectories: Tensor) -> Rows:
        return Rows(self.number[trajectories])

    def concatenate(self, others: Sequence[Rows]) -> Rows:
        return Rows(torch.cat([self.number, *(other.number for other in others)]))

    def to(self, device: torch.device | str) -> Rows:
        return Rows(self.number.to(device))


@st.composite
def batches(draw):
    """A batch with fields at every level; turns, and so trajectories, may have no tokens."""
    groups = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    trajectories = sum(groups)
    turns = draw(st.lists(st.integers(1, 3), min_size=trajectories, max_size=trajectories))
    tokens = draw(st.lists(st.integers(0, 3), min_size=sum(turns), max_size=sum(turns)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    reward = torch.randn(trajectories, generator=generator) if draw(st.booleans()) else None
    return Experience.from_lengths(
        tokens,
        turns,
        groups,
        groups_per_domain=[1, len(groups) - 1],
        action=torch.arange(sum(tokens)),
        behavior_logp=-torch.rand(sum(tokens), generator=generator),
        turn_reward=torch.randn(sum(turns), generator=generator),
        turn_state=torch.arange(sum(turns)),
        reward=reward,
        episode=torch.arange(trajectories),
        task_id=torch.arange(len(groups)),
        inputs=Rows(torch.arange(trajectories)),
    )


def same_batch(one: Experience, two: Experience) -> None:
    for name in ("action", "behavior_logp", "turn_reward", "turn_state", "reward", "episode", "task_id"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        assert a is None or torch.equal(a, b), name
    for name in ("turn_of_token", "trajectory_of_turn", "group_of_trajectory", "domain_of_group"):
        assert torch.equal(getattr(one, name).labels, getattr(two, name).labels), name
        assert getattr(one, name).count == getattr(two, name).count, name
    assert torch.equal(one.inputs.number, two.inputs.number)


# ---- levels ---------------------------------------------------------------------------------------------------------


def two_groups(**fields) -> Experience:
    """Trajectories of turns of tokens: (2, 1) and (0, 3) in the first group, (1) in the second."""
    return Experience.from_lengths([2, 1, 0, 3, 1], [2, 2, 1], [2, 1], **fields)


def test_levels_are_counted_and_composed():
    x = two_groups()
    assert (x.tokens, x.turns, x.trajectories, x.groups) == (7, 5, 3, 2)
    assert x.trajectory_of_token.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert x.group_of_token.labels.tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert x.group_of_turn.labels.tolist() == [0, 0, 0, 0, 1]
    assert x.domain_of_trajectory.labels.tolist() == [0, 0, 0]
    assert x.domain_of_token.labels.tolist() == [0] * 7
    assert x.level_of_token("token").labels.tolist() == list(range(7))
    assert x.level_of_token("turn").labels.tolist() == [0, 0, 1, 3, 3, 3, 4]
    assert x.level_of_token("trajectory") is x.trajectory_of_token
    two_domains = Experience.from_lengths([2, 1], [1, 1], [1, 1], [1, 1])
    assert two_domains.level_of_token("domain").labels.tolist() == [0, 0, 1]
    assert x.level_of_token("batch").size().tolist() == [7]


def test_values_of_every_level_reach_their_tokens_and_add_up():
    x = two_groups()
    credit = x.to_tokens(
        token=torch.arange(7.0),
        turn=torch.tensor([10.0, 20, 30, 40, 50]),
        trajectory=torch.tensor([100.0, 200, 300]),
        group=torch.tensor([1000.0, 2000]),
    )
    assert credit.tolist() == [1110.0, 1111, 1122, 1243, 1244, 1245, 2356]
    with pytest.raises(ValueError, match="at least one of"):
        x.to_tokens()


def test_composed_levels_survive_a_replaced_field():
    x = two_groups()
    composed = x.trajectory_of_token
    assert x.replace(advantage=torch.zeros(7)).trajectory_of_token is composed
    merged = x.replace(trajectory_of_turn=Partition.from_sizes([1, 3, 1]))
    assert merged.trajectory_of_token.labels.tolist() == [0, 0, 1, 1, 1, 1, 2]


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_returns_weigh_the_reward_columns():
    x = two_groups(reward=torch.tensor([[1.0, 2], [3, 4], [5, 6]]), reward_names=("a", "b"), reward_weights=(1.0, 0.5))
    assert x.returns.tolist() == [2.0, 5.0, 8.0]
    plain = two_groups(reward=[[1, 2], [3, 4], [5, 6]])
    assert (plain.reward_names, plain.returns.tolist()) == (("reward_0", "reward_1"), [3.0, 7.0, 11.0])


def test_integer_rewards_are_not_rounded_with_their_weights():
    x = two_groups(reward=[1, 0, 1], reward_weights=(0.5,))
    assert x.returns.tolist() == [0.5, 0.0, 0.5]
    assert two_groups(reward=[0.5, 0, 0], turn_reward=[1, 0, 0, 0, 0]).turn_rewards().tolist() == [1.0, -0.5, 0, 0, 0]


@pytest.mark.parametrize("trajectories", [3, 7, 8, 9, 33, 1000])
def test_equal_reward_rows_have_equal_returns_wherever_they_stand(trajectories):
    row = torch.tensor([[0.1, 0.7, 1.3, 0.2, 0.9]]).expand(trajectories, 5)
    x = Experience.from_lengths(
        [1] * trajectories, [1] * trajectories, [trajectories], reward=row.clone(), reward_names=tuple("abcde"),
        reward_weights=(0.3, 0.17, 0.9, 0.01, 0.7),
    )  # fmt: skip
    assert x.returns.unique().numel() == 1


def test_without_reward_the_turn_rewards_add_up_to_the_return():
    x = two_groups(turn_reward=[1.0, 2, 3, 4, 5])
    assert x.returns.tolist() == [3.0, 7.0, 5.0]
    with pytest.raises(ValueError, match="neither reward nor turn_reward"):
        _ = two_groups().returns


@given(batches())
def test_turn_and_token_rewards_conserve_the_return(x):
    assert torch.allclose(x.trajectory_of_turn.sum(x.turn_rewards()), x.returns, atol=1e-5)
    some_token = x.trajectory_of_token.size() > 0
    by_token = x.trajectory_of_token.sum(x.token_rewards())
    assert torch.allclose(by_token[some_token], x.returns[some_token], atol=1e-5)


def test_what_turns_without_tokens_earned_goes_to_the_last_token_of_the_trajectory():
    x = two_groups(turn_reward=[1.0, 2, 3, 4, 5])
    assert x.token_rewards().tolist() == [0.0, 1.0, 2.0, 0.0, 0.0, 3.0 + 4.0, 5.0]
    last_is_empty = Experience.from_lengths([2, 0], [2], [1], turn_reward=[1.0, 2.0])
    assert last_is_empty.token_rewards().tolist() == [0.0, 3.0]


def test_token_rewards_include_what_was_charged_to_tokens():
    x = two_groups(reward=[1.0, 2, 3], token_reward=torch.full((7,), 0.5))
    assert x.token_rewards().tolist() == [0.5, 0.5, 1.5, 0.5, 0.5, 2.5, 3.5]


def test_discounted_returns_are_by_turn():
    x = two_groups(turn_reward=[1.0, 2, 3, 4, 5])
    assert x.discounted_returns(0.5).tolist() == [2.0, 2.0, 5.0, 4.0, 5.0]


# ---- pieces ---------------------------------------------------------------------------------------------------------


@given(batches(), st.randoms(use_true_random=False))
def test_a_permutation_and_its_inverse_give_the_batch_back(x, random):
    order = list(range(x.trajectories))
    random.shuffle(order)
    shuffled = x.select(torch.tensor(order))
    assert shuffled.episode.tolist() == order
    assert torch.equal(shuffled.returns, x.returns[order])
    same_batch(shuffled.select(torch.argsort(torch.tensor(order))), x)


@given(batches(), st.integers(0, 99))
def test_selected_trajectories_keep_all_that_is_theirs(x, seed):
    kept = torch.rand(x.trajectories, generator=torch.Generator().manual_seed(seed)) < 0.5
    piece = x.select(kept)
    assert piece.episode.tolist() == torch.nonzero(kept).squeeze(1).tolist()
    assert piece.inputs.number.tolist() == piece.episode.tolist()
    assert piece.action.tolist() == [
        a for a, t in zip(x.action.tolist(), x.trajectory_of_token.labels.tolist(), strict=True) if kept[t]
    ]
    groups = x.group_of_trajectory.labels[kept]
    assert piece.task_id[piece.group_of_trajectory.labels].tolist() == groups.tolist()
    assert bool((piece.group_of_trajectory.size() > 0).all())


@given(batches())
def test_concatenated_groups_are_the_batch_they_came_from(x):
    groups = [x.select(x.group_of_trajectory.labels == g) for g in range(x.groups)]
    same_batch(Experience.concatenate(groups), x)


def test_concatenating_unlike_batches_is_refused():
    x = two_groups(reward=[1.0, 2, 3])
    with pytest.raises(ValueError, match="value is set in 1 of 2"):
        Experience.concatenate([x, x.replace(value=torch.zeros(7))])
    with pytest.raises(ValueError, match="different rewards"):
        Experience.concatenate([x, x.replace(reward_weights=(2.0,))])
    with pytest.raises(ValueError, match="inputs is set in 1 of 2"):
        Experience.concatenate([x, x.replace(inputs=Rows(torch.arange(3)))])


def test_a_micro_batch_remembers_its_whole_and_its_rows():
    x = two_groups(action=torch.arange(7))
    piece = x.microbatch(torch.tensor([2, 0]))
    assert piece.whole is x
    assert x.whole is x
    assert piece.action.tolist() == [6, 0, 1, 2]
    assert piece.piece_of(x.action).tolist() == [6, 0, 1, 2]
    smaller = piece.microbatch(torch.tensor([False, True]))
    assert smaller.whole is x
    assert smaller.piece_of(x.action).tolist() == [0, 1, 2]
    assert x.select(torch.tensor([0])).whole.trajectories == 1


def test_an_empty_selection_is_an_empty_batch():
    empty = two_groups(reward=[1.0, 2, 3]).select(torch.zeros(3, dtype=torch.bool))
    assert (empty.tokens, empty.turns, empty.trajectories, empty.groups) == (0, 0, 0, 0)
    assert empty.returns.tolist() == []


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_rows_of_lists_the_rows_of_segments_in_the_given_order(sizes, data):
    segments = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    starts = [sum(sizes[:s]) for s in range(len(sizes))]
    expected = [row for s in segments for row in range(starts[s], starts[s] + sizes[s])]
    assert rows_of(torch.tensor(sizes), torch.tensor(segments, dtype=torch.int64)).tolist() == expected


# ---- validation -----------------------------------------------------------------------------------------------------


def test_levels_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="5 turns of tokens, 4 in trajectories"):
        Experience.from_lengths([2, 1, 0, 3, 1], [2, 2], [2])
    with pytest.raises(ValueError, match="2 trajectories of turns, 3 in groups"):
        Experience.from_lengths([1, 1], [1, 1], [3])
    with pytest.raises(ValueError, match="2 groups of trajectories, 1 in domains"):
        Experience.from_lengths([1, 1], [1, 1], [1, 1], groups_per_domain=[1])


def test_a_field_with_the_wrong_number_of_rows_is_named():
    with pytest.raises(ValueError, match="old_logp needs one row per token: 7, got 6"):
        two_groups(old_logp=torch.zeros(6))
    with pytest.raises(ValueError, match="turn_state needs one row per turn: 5, got 7"):
        two_groups(turn_state=torch.zeros(7, dtype=torch.int64))
    with pytest.raises(ValueError, match="reward has 2 columns"):
        two_groups(reward=torch.zeros(3, 2), reward_names=("a",), reward_weights=(1.0,))


def test_a_mask_of_numbers_is_refused_and_a_list_becomes_a_mask():
    with pytest.raises(ValueError, match=r"mask must be of bool, got torch\.int64"):
        two_groups(mask=torch.ones(7, dtype=torch.int64))
    assert two_groups(mask=[1, 0, 1, 1, 1, 1, 1]).learnable().tolist() == [True, False] + [True] * 5
    assert bool(two_groups().learnable().all())


def test_turns_out_of_order_are_refused():
    x = two_groups()
    with pytest.raises(ValueError, match="turn_of_token must be in order"):
        x.replace(turn_of_token=Partition(torch.tensor([4, 0, 0, 1, 3, 3, 3]), 5))


def test_missing_fields_are_listed():
    assert two_groups(value=torch.zeros(7)).missing(["value", "ref_logp", "entropy"]) == ["entropy", "ref_logp"]


def test_a_batch_moved_to_where_it_is_stays_the_same():
    x = two_groups(reward=[1.0, 2, 3], inputs=Rows(torch.arange(3)))
    moved = x.microbatch(torch.tensor([1])).to("cpu")
    assert moved.whole.returns.tolist() == [1.0, 2.0, 3.0]
    assert moved.returns.tolist() == [2.0]
    assert moved.trajectory_of_token.labels.tolist() == [0, 0, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_batch_works_on_a_gpu():
    x = two_groups(reward=[1.0, 2, 3], action=torch.arange(7)).to("cuda")
    piece = x.microbatch(torch.tensor([2, 0], device="cuda"))
    assert piece.returns.device.type == "cuda"
    assert piece.to_tokens(trajectory=piece.returns).tolist() == [3.0, 1.0, 1.0, 1.0]
    assert piece.whole.to("cpu").token_rewards().tolist() == [0, 0, 1, 0, 0, 2, 3]


def test_an_output_masked_passes_no_gradient_where_it_is_not_a_number():
    logp = torch.tensor([-1.0, float("nan"), -float("inf")], requires_grad=True)
    out = PolicyOutput(logp, entropy=logp * 2).where(torch.tensor([True, False, False]))
    assert out.logp.tolist() == [-1.0, 0.0, 0.0]
    assert out.entropy.tolist() == [-2.0, 0.0, 0.0]
    assert out.value is None
    (out.logp.exp() * logp.detach()).sum().backward()
    assert logp.grad.tolist() == pytest.approx([-0.3678794, 0.0, 0.0])


def test_a_blanked_batch_has_zero_for_the_figures_of_masked_tokens():
    nan = float("nan")
    x = Experience.from_lengths(
        [3], [1], [1], mask=[True, False, True], action=torch.ones(3, 2), advantage=torch.tensor([1.0, nan, 2.0]),
        old_logp=torch.tensor([-1.0, -float("inf"), -2.0]),
    )  # fmt: skip
    assert x.blanked().advantage.tolist() == [1.0, 0.0, 2.0]
    assert x.blanked().old_logp.tolist() == [-1.0, 0.0, -2.0]
    assert x.blanked().action is x.action
    unmasked = x.replace(mask=None)
    assert unmasked.blanked() is unmasked


def test_a_critic_sees_its_own_mask_and_a_part_of_the_batch_narrows_both():
    x = two_groups(mask=[True] * 4 + [False] * 3, critic_mask=[False, True] * 3 + [True])
    seen = x.for_critic()
    assert seen.mask.tolist() == x.critic_mask.tolist() and seen.critic_mask is None
    assert x.for_critic() is seen and x.replace(critic_mask=None).for_critic().mask.tolist() == x.mask.tolist()
    piece = x.microbatch(torch.tensor([2, 0]))
    assert piece.for_critic().whole is seen
    assert piece.for_critic().mask.tolist() == x.select(torch.tensor([2, 0])).critic_mask.tolist()
    half = torch.tensor([True, True, False, False, True, True, True])
    part = piece.masked(half, "half")
    assert part.whole.mask.tolist() == (x.mask & half).tolist()
    assert part.for_critic().whole.mask.tolist() == (x.critic_mask & half).tolist()


def test_demonstrations_join_their_groups_behind_the_rollouts():
    x = two_groups(reward=[1.0, 2, 3], task_id=torch.tensor([7, 8]), pass_rate=torch.tensor([0.5, 0.0]))
    shown = Experience.from_lengths([1, 2], [1, 1], [2], reward=[4.0, 5.0], task_id=[0], pass_rate=torch.zeros(1))
    joined = x.with_demonstrations(shown, torch.tensor([1, 0]))
    first = x.group_of_trajectory.size()[0].item()
    expected = [[*[1.0, 2.0, 3.0][:first], 5.0], [*[1.0, 2.0, 3.0][first:], 4.0]]
    assert joined.group_of_trajectory.size().tolist() == [len(rewards) for rewards in expected]
    assert joined.returns.tolist() == expected[0] + expected[1]
    assert joined.demonstrated.tolist() == [False] * first + [True] + [False] * (3 - first) + [True]
    assert joined.played().tolist() == (~joined.demonstrated).tolist()
    assert joined.trajectory_of_token.size()[joined.demonstrated].tolist() == [2, 1]
    assert joined.task_id.tolist() == [7, 8]
    assert joined.pass_rate.tolist() == [0.5, 0.0]
    assert x.played().all()


# ---- segments -------------------------------------------------------------------------------------------------------


def test_segments_begin_where_a_turn_says_so_and_with_every_trajectory():
    x = Experience.from_lengths([1] * 6, [4, 0, 2], [3], segment_start=[False, False, True, False, False, True])
    assert x.segment_of_turn.labels.tolist() == [0, 0, 1, 1, 2, 3]
    # Where nobody says anything, a trajectory is one segment.
    assert x.replace(segment_start=None).segment_of_turn.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert x.select(torch.tensor([1])).segment_of_turn.count == 0


def test_spans_and_segments_follow_their_turns():
    x = Experience.from_lengths(
        [2, 1, 1], [2, 1], [2], span=[2, 0, 0, 1], segment_start=[True, False, True], turn_reward=[0.0, 1.0, 2.0]
    )
    kept = x.select(torch.tensor([1, 0]))
    assert (kept.span.tolist(), kept.segment_start.tolist()) == ([1, 2, 0, 0], [True, True, False])
    apart = x.by_turn()
    assert torch.equal(apart.span, x.span) and torch.equal(apart.segment_start, x.segment_start)
    together = Experience.concatenate([x, kept])
    assert together.segment_of_turn.labels.tolist() == [0, 0, 1, 2, 3, 3]
    with pytest.raises(ValueError, match="segment_start must be of bool"):
        x.replace(segment_start=torch.tensor([1, 0, 1]))
