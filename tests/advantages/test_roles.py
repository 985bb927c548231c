"""Roles compared with themselves, and calls of sub-agents aligned and compared with one another."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from stratagem.advantages import AlignedCalls, GroupStandardized, RoleStandardized
from stratagem.advantages.roles import calls_of
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives import ByRole, SequenceMean


def delegated(calls: list[int], rewards: list[float], groups: list[int] | None = None, **fields: Any) -> Experience:
    """Trajectories that open, make so many calls of two turns each, and answer; turns of two tokens."""
    roles, contexts, turns = [], [], []
    for count in calls:
        roles += [0, *[1] * (2 * count), 0]
        contexts += [0, *[number for call in range(count) for number in (call + 1, call + 1)], 0]
        turns.append(2 + 2 * count)
    return Experience.from_lengths(
        [2] * len(roles),
        turns,
        [len(calls)] if groups is None else groups,
        turn_role=torch.tensor(roles),
        turn_context=torch.tensor(contexts),
        seed=torch.arange(len(calls)) * 7919 + fields.pop("seed", 5),
        reward=rewards,
        **fields,
    )


def by_call(x: Experience, advantage: torch.Tensor) -> torch.Tensor:
    """The advantage of every call, which all its tokens share."""
    calls = calls_of(x)
    turn = x.turn_of_token.mean(advantage)
    assert torch.equal(x.turn_of_token.spread(turn), advantage)
    assert torch.equal(calls.of_turn.spread(calls.of_turn.mean(turn[calls.turn])), turn[calls.turn])
    return calls.of_turn.mean(turn[calls.turn])


# ---- alignment ------------------------------------------------------------------------------------------------------


def test_rollouts_are_aligned_to_their_slots_by_repeating_and_dropping():
    x = delegated([1, 2, 3], [1.0, 0.0, 0.0])
    calls = calls_of(x)
    filled = AlignedCalls(2).multiplicity(x, calls)
    assert filled.tolist()[:3] == [2, 1, 1]
    assert sorted(filled.tolist()[3:]) == [0, 1, 1] and int(filled.sum()) == 6
    assert torch.equal(AlignedCalls(2).multiplicity(x, calls), filled)
    drawn = {
        tuple(AlignedCalls(2).multiplicity(delegated([1, 2, 3], [1.0, 0, 0], seed=s), calls).tolist())
        for s in range(60)
    }
    assert drawn == {(2, 1, 1, 0, 1, 1), (2, 1, 1, 1, 0, 1), (2, 1, 1, 1, 1, 0)}


@pytest.mark.parametrize(("count", "slots"), [(2, 5), (3, 2), (4, 4), (1, 3)])
def test_over_many_seeds_every_call_fills_as_many_slots_on_average(count, slots):
    repeated = 4000
    x = delegated([count] * repeated, [0.0] * repeated)
    filled = AlignedCalls(slots).multiplicity(x, calls_of(x)).view(repeated, count).double()
    assert bool((filled.sum(1) == slots).all())
    torch.testing.assert_close(filled.mean(0), torch.full((count,), slots / count).double(), atol=0.06, rtol=0)


def test_by_default_there_are_as_many_slots_as_the_most_calls_of_a_role_in_the_group():
    x = delegated([1, 3, 2, 1, 0, 1], [0.0] * 6, groups=[3, 3])
    calls = calls_of(x)
    filled = AlignedCalls().multiplicity(x, calls)
    slots = torch.zeros(6, dtype=torch.int64).index_add(0, calls.trajectory, filled)
    assert slots.tolist() == [3, 3, 3, 1, 0, 1]


def test_with_as_many_calls_everywhere_alignment_changes_nothing():
    x = delegated([2, 2, 2], [1.0, 0.1, 0.1])
    for part in (AlignedCalls(), AlignedCalls(2), AlignedCalls(2, reweight=True)):
        advantage = part(x)
        credit = by_call(x, advantage)
        assert abs(float(credit.sum())) < 1e-6
        pooled = torch.tensor([1.0, 1.0, 0.1, 0.1, 0.1, 0.1])
        torch.testing.assert_close(credit, (pooled - pooled.mean()) / (pooled.std() + 1e-6))


def test_main_turns_have_the_statistics_of_rollouts():
    x = delegated([1, 2, 3], [1.0, 0.1, 0.1])
    role = x.turn_of_token.spread(x.turn_role)
    trajectory = x.trajectory_of_token.labels[role == 0]
    expected = torch.tensor([1.154700, -0.577350, -0.577350])[trajectory]
    torch.testing.assert_close(AlignedCalls()(x)[role == 0], expected, atol=3e-6, rtol=0)


def test_a_repeated_call_counts_as_often_in_the_mean_and_in_the_loss():
    """One call in the right rollout, three in the wrong one: six slots, three of them the one call's."""
    x = delegated([1, 3], [1.0, 0.0])
    slots = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    credit = (slots - slots.mean()) / (slots.std() + 1e-6)
    losses = torch.arange(4.0) + 1
    found = by_call(x, AlignedCalls()(x))
    # The mean over the four calls that there are is the mean over the six slots.
    assert float((found * losses).mean()) == pytest.approx(float((credit * torch.tensor([1.0, 1, 1, 2, 3, 4])).mean()))
    once = by_call(x, AlignedCalls(reweight=True)(x))
    torch.testing.assert_close(once, credit[[0, 3, 4, 5]])


def test_a_dropped_call_trains_nothing_and_the_others_make_up_the_mean():
    x = delegated([3, 1], [1.0, 0.0])
    found = by_call(x, AlignedCalls(1)(x))
    kept = found[:3] != 0
    assert int(kept.sum()) == 1
    # Of two slots with rewards 1 and 0: +- 0.7071, times 4 calls over 2 slots.
    assert found[:3][kept].item() == pytest.approx(2 * 0.5**0.5, rel=1e-5)
    assert found[3].item() == pytest.approx(-2 * 0.5**0.5, rel=1e-5)


def test_calls_that_may_not_train_do_not_count_in_the_mean_of_the_loss():
    x = delegated([3, 1], [1.0, 0.0])
    mask = torch.ones(x.tokens, dtype=torch.bool)
    mask[2:6] = False  # the first call of the first rollout
    x = x.replace(mask=mask)
    part = AlignedCalls(reweight=True)
    weights = ByRole("conversation").weights(x)
    role = x.turn_of_token.spread(x.turn_role)
    assert float(weights[role == 1].sum()) == pytest.approx(1.0)
    slots = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    credit = (slots - slots.mean()) / (slots.std() + 1e-6)
    torch.testing.assert_close(by_call(x, part(x)), credit[[0, 1, 2, 3]])


def test_a_rollout_without_calls_adds_nothing_and_a_group_without_any_is_skipped():
    x = delegated([0, 2, 2], [1.0, 1.0, 0.0])
    torch.testing.assert_close(
        by_call(x, AlignedCalls()(x)), torch.tensor([1.0, 1, -1, -1]) * 0.8660, atol=1e-3, rtol=0
    )
    alone = delegated([0, 0, 0], [1.0, 0.0, 0.0])
    assert torch.equal(AlignedCalls()(alone), GroupStandardized()(alone))


def test_a_group_of_one_compares_its_calls_and_gives_its_planner_nothing():
    x = delegated([2], [1.0], turn_reward=[0.0, 0.0, 0.5, 0.0, 0.0, 0.0])
    advantage = AlignedCalls(earned=1.0)(x)
    role = x.turn_of_token.spread(x.turn_role)
    assert bool((advantage[role == 0] == 0).all())
    assert by_call(x, advantage).tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], rel=1e-5)


# ---- rewards of calls -----------------------------------------------------------------------------------------------


def test_calls_are_rewarded_as_released_and_as_weighted():
    own = [0.0, 0.25, 0.25, 0.0, 0.0, -1.0, 0.0, 0.0]
    x = delegated([1, 1], [1.0, 0.0], turn_reward=own, success=[True, False])
    calls = calls_of(x)
    assert AlignedCalls(least=0.1, gated=True).rewards(x, calls).tolist() == pytest.approx([1.0, 0.0])
    assert AlignedCalls(least=0.1).rewards(x, calls).tolist() == pytest.approx([1.0, 0.1])
    weighted = AlignedCalls(outcome=0.6, by="success", valid=0.1, earned=0.4, gated=True)
    assert weighted.rewards(x, calls).tolist() == pytest.approx([0.1 + 0.6 + 0.4 * 0.5, 0.0])
    assert weighted.needs() >= {"seed", "success"}


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"eps": -1.0}, {"by": "luck"}, {"earned": float("nan")}])
def test_fields_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"aligned_calls.{next(iter(wrong))}"):
        AlignedCalls(**wrong)


# ---- what every advantage must do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [AlignedCalls(2), AlignedCalls(), RoleStandardized()])
def test_the_order_of_trajectories_changes_nothing(part):
    source = torch.Generator().manual_seed(0)
    x = delegated([1, 4, 2, 0, 3, 2], torch.rand(6, generator=source).tolist(), groups=[3, 3])
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    rows = x.turn_of_token.pick(x.trajectory_of_turn.pick(order)[0])[0]
    torch.testing.assert_close(part(x.select(order)), part(x)[rows])


@pytest.mark.parametrize("part", [AlignedCalls(2), RoleStandardized()])
def test_without_roles_it_is_grpo(part):
    x = Experience.from_lengths([2] * 6, [2, 1, 3], [3], reward=[1.0, 0.5, 0.0], seed=torch.arange(3))
    torch.testing.assert_close(part(x), GroupStandardized()(x), atol=1e-5, rtol=0)


def test_step_level_credit_of_a_large_batch_takes_little_time():
    count = 4096
    x = Experience.from_lengths(
        torch.full((64_000,), 62),
        torch.tensor([15] * (count - 1) + [64_000 - 15 * (count - 1)]),
        [8] * (count // 8),
        reward=torch.arange(count) % 3.0,
        turn_role=torch.arange(64_000) % 2,
        turn_context=(torch.arange(64_000) % 16) * (torch.arange(64_000) % 2),
        seed=torch.arange(count),
    )
    x.trajectory_of_token, x.group_of_turn  # noqa: B018
    for part in (AlignedCalls(4), RoleStandardized()):
        best = min(_seconds(part, x) for _ in range(3))
        assert best < 0.5, f"{best:.3f} s"


def _seconds(part: Any, x: Experience) -> float:
    clock = time.perf_counter()
    part(x)
    return time.perf_counter() - clock


# ---- roles ----------------------------------------------------------------------------------------------------------


def roles(earned: list[list[float | None]]) -> Experience:
    """One group; of every trajectory what each role earned in its one turn, None where it did not act."""
    kept = [[(role, paid) for role, paid in enumerate(row) if paid is not None] for row in earned]
    flat = [pair for row in kept for pair in row]
    return Experience.from_lengths(
        [2] * len(flat),
        [len(row) for row in kept],
        [len(kept)],
        turn_role=torch.tensor([role for role, _ in flat]),
        turn_reward=[paid for _, paid in flat],
    )


def test_every_role_is_compared_with_itself():
    values = [0.95, 0.6, 0.15, 0.15]
    advantage = RoleStandardized()(roles([[value, 1.0] for value in values])).view(4, 2, 2)
    expected = torch.tensor([1.256105, 0.354286, -0.805196, -0.805196])
    torch.testing.assert_close(advantage[:, 0, 0], expected, atol=5e-6, rtol=0)
    assert bool((advantage[:, 1] == 0).all()) and torch.equal(advantage[..., 0], advantage[..., 1])


def test_a_role_that_did_not_act_counts_in_no_mean():
    x = roles([[1.0, 0.5], [0.0, None], [None, 0.7]])
    advantage = x.turn_of_token.mean(RoleStandardized()(x))
    half = 0.5**0.5
    assert advantage.tolist() == pytest.approx([half, -half, -half, half], rel=1e-4)
    alone = roles([[1.0, 0.5], [0.0, None]])
    assert alone.turn_of_token.mean(RoleStandardized()(alone)).tolist()[1] == 0


def test_what_is_lacking_by_rounding_alone_is_nobodys():
    """Rewards of turns are added up in another order than the return."""
    x = roles([[0.95, 0.95, 0.95], [0.95, 0.95, None]])
    x = x.replace(reward=torch.tensor([[2.85 + 3e-7], [1.9 - 2e-7]]))
    assert bool((RoleStandardized()(x) == 0).all())
    fined = x.replace(reward=torch.tensor([[2.35], [1.9]]))
    assert x.turn_of_token.mean(RoleStandardized()(fined))[[0, 3]].tolist() == [0, 0]
    assert float(RoleStandardized()(roles([[0.0, 0.0], [0.0, 1.0]])).abs().max()) > 0.7


# ---- how roles are added up -----------------------------------------------------------------------------------------


def test_every_role_has_a_mean_of_its_own():
    x = delegated([1, 3], [1.0, 0.0])
    role = x.turn_of_token.spread(x.turn_role)
    for unit, calls in (("trajectory", 2), ("conversation", 4)):
        weights = ByRole(unit).weights(x)
        assert float(weights[role == 0].sum()) == pytest.approx(1.0)
        assert float(weights[role == 1].sum()) == pytest.approx(1.0)
        assert float(weights[2]) == pytest.approx(1 / (calls * 4))


def test_with_one_role_in_one_conversation_it_is_the_mean_over_trajectories():
    mask = torch.arange(12) % 3 > 0
    mask[:4] = False
    x = Experience.from_lengths([2] * 6, [2, 1, 3], [3], reward=[1.0, 0.5, 0.0], mask=mask)
    for unit in ("trajectory", "conversation"):
        assert torch.equal(ByRole(unit).weights(x), SequenceMean().weights(x))
    assert torch.equal(ByRole().weights(x.replace(turn_role=torch.zeros(6).long())), SequenceMean().weights(x))


def test_pieces_of_a_batch_have_the_weights_of_the_whole():
    x = delegated([1, 3, 2], [1.0, 0.0, 0.0])
    whole = ByRole("conversation").at(x)
    pieces = [ByRole("conversation").at(x.microbatch(torch.tensor(rows))) for rows in ([0], [1, 2])]
    assert torch.equal(torch.cat(pieces), whole)
