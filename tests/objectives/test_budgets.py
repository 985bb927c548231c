"""Gates with budgets: numbers worked by hand, identities, gradients and the trust region they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import FixedLength, LevelBudgets, PolicyGradient, SequenceMean, SharedBudget
from stratagem.parts import Gate

OPEN = (math.inf,)


def gate_of(logs: Tensor, gate: Gate, x: Experience | None = None) -> Tensor:
    """``G`` of every token: the surrogate where every advantage is 1."""
    x = Experience.from_lengths([len(logs)], [1], [1]) if x is None else x
    return gate(logs.exp(), torch.ones(len(logs), dtype=logs.dtype), PolicyOutput(logs), x)


def log_gate(logs: list[float], gate: LevelBudgets, x: Experience | None = None) -> Tensor:
    return gate_of(torch.tensor(logs, dtype=torch.float64), gate, x).log()


def jacobian(logs: Tensor, gate: LevelBudgets, x: Experience, step: float = 1e-5) -> Tensor:
    """Of ``log G`` by the log-ratios, by central differences: [gated token, moved token]."""
    columns = []
    for token in range(len(logs)):
        shift = torch.zeros_like(logs).index_fill(0, torch.tensor([token]), step)
        columns.append((gate_of(logs + shift, gate, x).log() - gate_of(logs - shift, gate, x).log()) / (2 * step))
    return torch.stack(columns, 1)


def batch(generator: torch.Generator, **fields) -> Experience:
    """Two domains of groups of trajectories of one to five tokens."""
    lengths = torch.randint(1, 6, (7,), generator=generator)
    return Experience.from_lengths(lengths, [1] * 7, [2, 3, 2], [2, 1], **fields)


# ---- token and trajectory, by hand ----------------------------------------------------------------------------------


def test_within_all_budgets_the_ratio_is_left_as_it_is():
    # S+ = 0.05 and S- = 0.02, so log w = 0.03.
    gate = LevelBudgets(token=0.1)
    assert log_gate([0.1, -0.04], gate).tolist() == pytest.approx([0.1, -0.04])


def test_a_token_is_clipped_for_what_it_deviates_from_those_that_moved_its_way():
    # The residuals 0.1 - 0.05 and -0.04 + 0.02 become 0.03 and -0.02; the other channel's means 0.02 and 0.05 stay 0.02
    # and become 0.03: log G = 0.03 + 0.03 + 0.02 and 0.03 - 0.02 - 0.03.
    gated = gate_of(torch.tensor([0.1, -0.04], dtype=torch.float64), LevelBudgets(token=0.03))
    assert gated.log().tolist() == pytest.approx([0.08, -0.02])
    assert gated.tolist() == pytest.approx([1.083287, 0.980199], abs=1e-6)


def test_a_channel_passes_runs_back_with_its_slope_and_is_zero():
    gate = LevelBudgets(up=(0.1,), down=(0.1,), token=0.0)
    for sign in (1, -1):
        values = [log_gate([sign * value] * 4, gate)[0].item() for value in (0.0999999, 0.11, 0.125, 0.13)]
        assert values == pytest.approx([sign * 0.1, sign * 0.06, 0.0, 0.0], abs=1e-6)


@given(st.floats(0.01, 2), st.integers(1, 50))
def test_a_channel_is_continuous_where_its_pieces_meet(budget, tokens):
    gate = LevelBudgets(up=(budget,), token=0.0)
    for edge, value in ((budget, budget), ((1 + 1 / tokens) * budget, 0.0)):
        for side in (1 - 1e-6, 1 + 1e-6):
            assert log_gate([edge * side] * tokens, gate)[0].item() == pytest.approx(value, abs=5e-4)


def test_beyond_its_budget_a_drift_is_undone_with_a_slope_of_the_length():
    logs = torch.tensor([0.26, 0.26], dtype=torch.float64)
    gate = LevelBudgets(up=(0.25,))
    assert gate_of(logs, gate).log().tolist() == pytest.approx([0.23, 0.23])
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    gate_of(logs + shift, gate).log()[0].backward()
    assert shift.grad.item() == pytest.approx(-2.0)


def test_far_beyond_its_budget_a_trajectory_has_no_gradient():
    logs = torch.tensor([0.3, 0.3], dtype=torch.float64, requires_grad=True)
    gated = gate_of(logs, LevelBudgets(up=(0.12,)))
    assert gated.tolist() == [1.0, 1.0]
    assert torch.autograd.grad(gated.sum(), logs)[0].tolist() == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize(
    ("logs", "weight"),
    [
        ([0.1, -0.1], 0.0),  # both channels pass: 0.05 - 0.05
        ([0.26, -0.1], 0.10 - 0.05),  # the rise runs back: 3 * 0.12 - 2 * 0.13 = 0.10
        ([0.4, -0.1], -0.05),  # the rise is gone, only the fall is left: the strongest pull to one side
        ([0.26, -0.17], 0.10 - 0.07),  # both run back: the fall is 3 * 0.08 - 2 * 0.085 = 0.07
        ([0.4, -0.4], 0.0),  # both are gone
    ],
)
def test_the_five_regimes_of_two_channels(logs, weight):
    # Without any allowance for tokens nothing but the trajectory's weight is left.
    assert log_gate(logs, LevelBudgets(token=0.0)).tolist() == pytest.approx([weight] * 2)


def test_a_trajectory_of_one_token_has_no_residual_and_runs_back_until_twice_its_budget():
    gate = LevelBudgets(up=(0.1,), token=0.0)
    assert [log_gate([log], gate).item() for log in (0.1, 0.15, 0.19, 0.21)] == pytest.approx([0.1, 0.05, 0.01, 0.0])


def test_a_ratio_of_1_may_count_to_either_channel():
    gate = LevelBudgets(token=0.03)
    just = [log_gate([0.1, -0.04, zero], gate).tolist() for zero in (0.0, 1e-12, -1e-12)]
    assert just[0] == pytest.approx(just[1], abs=1e-11)
    assert just[0] == pytest.approx(just[2], abs=1e-11)
    assert just[0][2] != 0  # a third of S+ and S- are its neighbours'


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_the_way_back_undoes_what_the_advantage_did_and_drives_on_what_it_did_not(advantage):
    logs = torch.tensor([0.26, 0.26], dtype=torch.float64, requires_grad=True)
    x = Experience.from_lengths([2], [1], [1])
    credit = torch.full((2,), advantage, dtype=torch.float64)
    LevelBudgets(up=(0.25,))(logs.exp(), credit, PolicyOutput(logs), x).sum().backward()
    # Ascent lowers the risen tokens of a good trajectory; those of a bad one it raises until their share is 0.
    assert (logs.grad * advantage < 0).all()


# ---- identities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [("trajectory",), ("trajectory", "group", "domain"), ("group",), ("turn", "domain")])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_open_gates_leave_every_ratio_as_it_is(levels, seed):
    generator = torch.Generator().manual_seed(seed)
    x = batch(generator)
    logs = 2 * torch.randn(x.tokens, dtype=torch.float64, generator=generator)
    gate = LevelBudgets(levels, OPEN * len(levels), OPEN * len(levels), math.inf)
    assert torch.allclose(gate_of(logs, gate, x).log(), logs, atol=1e-9)
    assert not gate.binds(logs.exp(), torch.ones(x.tokens), PolicyOutput(logs), x).any()
    # So the loss is the plain importance-weighted one.
    advantage = torch.randn(x.tokens, generator=generator)
    plain = -(SequenceMean()(logs.exp() * advantage, x))
    ready = x.replace(advantage=advantage, old_logp=torch.zeros(x.tokens))
    assert torch.allclose(PolicyGradient(gate=gate)(PolicyOutput(logs.float()), ready).loss, plain.float(), rtol=1e-4)


@pytest.mark.parametrize("levels", [("trajectory",), ("trajectory", "group", "domain"), ("turn", "trajectory")])
def test_at_a_ratio_of_1_the_jacobian_is_the_identity(levels):
    generator = torch.Generator().manual_seed(1)
    x = batch(generator)
    gate = LevelBudgets(levels, (0.12,) * len(levels), (0.08,) * len(levels), 0.03)
    logs = torch.zeros(x.tokens, dtype=torch.float64)
    eye = torch.eye(x.tokens, dtype=torch.float64)
    assert torch.allclose(jacobian(logs, gate, x), eye, atol=1e-6)
    by_backward = torch.autograd.functional.jacobian(lambda values: gate_of(values, gate, x).log(), logs)
    assert torch.allclose(by_backward, eye, atol=1e-6)


def test_trajectories_do_not_touch_each_other_and_tokens_of_one_do_by_one_over_its_length():
    generator = torch.Generator().manual_seed(2)
    x = Experience.from_lengths([3, 4], [1, 1], [2])
    logs = 0.2 * torch.randn(7, dtype=torch.float64, generator=generator)
    moved = jacobian(logs, LevelBudgets(token=0.01), x)
    assert moved[:3, 3:].abs().max() == 0
    assert moved[3:, :3].abs().max() == 0
    # The risen tokens are all clipped, so that each moves with the channel's mean alone.
    clipped = jacobian(
        torch.tensor([0.3, 0.1, 0.0, -0.1], dtype=torch.float64),
        LevelBudgets(up=(0.5,), down=(0.5,), token=0.01),
        Experience.from_lengths([4], [1], [1]),
    )
    assert clipped[0].tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4], abs=1e-6)


def test_with_longer_levels_all_of_a_domain_moves_together():
    x = Experience.from_lengths([1, 1, 1, 1], [1] * 4, [2, 2], [1, 1])
    gate = LevelBudgets(("trajectory", "group"), (0.01, 1.0), (0.01, 1.0), 0.0)
    # Means by trajectory 0.2 and 0.4, by group 0.3: what each trajectory has beyond that, -0.1 and 0.1, is far over its
    # own budget and dropped; the group's 0.3 passes. The other group did not move.
    assert log_gate([0.2, 0.4, 0.0, 0.0], gate, x).tolist() == pytest.approx([0.3, 0.3, 0.0, 0.0])
    # Within the trajectory's budget both shares add up again.
    wide = LevelBudgets(("trajectory", "group"), (0.5, 1.0), (0.5, 1.0), 0.0)
    assert log_gate([0.2, 0.4, 0.0, 0.0], wide, x).tolist() == pytest.approx([0.2, 0.4, 0.0, 0.0])
    # The group's own budget runs back over the number of its trajectories: 3 * 0.28 - 2 * 0.3 = 0.24.
    closing = LevelBudgets(("trajectory", "group"), (0.5, 0.28), (0.5, 1.0), 0.0)
    assert log_gate([0.2, 0.4, 0.0, 0.0], closing, x).tolist() == pytest.approx([0.14, 0.34, 0.0, 0.0])


def test_trajectories_without_a_token_that_may_train_do_not_count_in_their_group():
    mask = torch.tensor([True, True, False, True])
    x = Experience.from_lengths([2, 1, 0, 1], [1] * 4, [4], mask=mask)
    gate = LevelBudgets(("trajectory", "group"), (0.01, 1.0), (0.01, 1.0), 0.0)
    assert log_gate([0.2, 0.4, 9.0, 0.1], gate, x)[mask].tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_a_domain_is_gated_the_same_whatever_the_order_of_its_trajectories():
    generator = torch.Generator().manual_seed(3)
    x = batch(generator)
    logs = 0.1 * torch.randn(x.tokens, dtype=torch.float64, generator=generator)
    gate = LevelBudgets(("trajectory", "group", "domain"), (0.1,) * 3, (0.05,) * 3, 0.02)
    order = torch.randperm(x.trajectories, generator=generator)
    rows = x.microbatch(order).parent[1]
    assert torch.allclose(gate_of(logs, gate, x)[rows], gate_of(logs[rows], gate, x.select(order)))


# ---- pieces ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gate", [LevelBudgets(("trajectory", "group"), (0.1, 0.05), (0.1, 0.05)), SharedBudget(0.05, "group")]
)
def test_micro_batches_of_whole_groups_give_the_whole_and_parts_of_a_group_are_refused(gate):
    generator = torch.Generator().manual_seed(4)
    x = batch(generator)
    logs = 0.2 * torch.randn(x.tokens, generator=generator)
    x = x.replace(advantage=torch.randn(x.tokens, generator=generator), old_logp=torch.zeros(x.tokens))
    objective = PolicyGradient(gate=gate)
    whole = objective(PolicyOutput(logs), x)
    pieces = [x.microbatch(torch.tensor(rows)) for rows in ([5, 6, 0, 1], [2, 3, 4])]
    results = [objective(PolicyOutput(logs[piece.parent[1]]), piece) for piece in pieces]
    assert sum(result.loss for result in results).item() == pytest.approx(whole.loss.item(), abs=1e-6)
    for name, value in whole.metrics.items():
        assert sum(r.metrics[name] for r in results).item() == pytest.approx(value.item(), abs=1e-6), name
    part = x.microbatch(torch.tensor([0, 2, 3, 4]))
    with pytest.raises(InputError, match=r"part of a group.*optimization\.microbatch_tokens to null"):
        objective(PolicyOutput(logs[part.parent[1]]), part)


def test_a_domain_needs_all_its_groups():
    x = batch(torch.Generator().manual_seed(5), advantage=None)
    x = x.replace(advantage=torch.ones(x.tokens), old_logp=torch.zeros(x.tokens))
    gate = LevelBudgets(("trajectory", "domain"), (0.1,) * 2, (0.1,) * 2)
    rows = torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"^level_budgets: a micro-batch holds part of a domain"):
        piece = x.microbatch(rows)
        PolicyGradient(gate=gate)(PolicyOutput(torch.zeros(piece.tokens)), piece)
    piece = x.microbatch(torch.tensor([5, 6]))
    assert PolicyGradient(gate=gate)(PolicyOutput(torch.zeros(piece.tokens)), piece).loss.item() == pytest.approx(
        -2 / 7
    )


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"up": (0.0,)}, r"level_budgets\.up = \(0\.0,\)"),
        ({"down": (-0.1,)}, r"level_budgets\.down"),
        ({"token": -0.01}, r"level_budgets\.token = -0\.01"),
        ({"levels": ()}, r"levels = \(\): must be some of turn, trajectory, group, domain, in this order"),
        ({"levels": ("group", "trajectory"), "up": (1, 1), "down": (1, 1)}, r"must be some of turn, trajectory, group"),
        ({"levels": ("trajectory", "group")}, r"up = \(0\.12,\): must have one budget for each of trajectory, group"),
        ({"down": (0.1, 0.1)}, r"down = \(0\.1, 0\.1\): must have one budget for each of trajectory"),
        ({"levels": ("token",)}, r"level_budgets\.levels"),
    ],
)
def test_wrong_levels_and_budgets_are_refused_in_one_line(fields, expected):
    with pytest.raises(InputError, match=expected):
        LevelBudgets(**fields)


# ---- a budget shared ------------------------------------------------------------------------------------------------


def test_a_shared_budget_worked_by_hand():
    within = torch.tensor([1.15, 1.02], dtype=torch.float64)
    gate = SharedBudget(0.1)
    assert gate_of(within.log(), gate).tolist() == pytest.approx([1.15, 1.02])
    # Left for the first: 0.2 - 0.05; for the second 0.2 - 0.3, which is nothing.
    assert gate_of(torch.tensor([1.3, 1.05], dtype=torch.float64).log(), gate).tolist() == pytest.approx([1.15, 1.0])
    assert gate_of(torch.tensor([0.7, 1.05], dtype=torch.float64).log(), gate).tolist() == pytest.approx([0.85, 1.0])
    ratios = torch.tensor([1.3, 1.0])
    one = Experience.from_lengths([2], [1], [1])
    bound = gate.binds(ratios, torch.ones(2), PolicyOutput(ratios.log()), one)
    assert bound.tolist() == [True, False]


@given(st.lists(st.floats(0.2, 3), min_size=1, max_size=6), st.floats(0.01, 1))
def test_a_shared_budget_equals_its_definition(ratios, budget):
    expected = []
    for token, ratio in enumerate(ratios):
        others = sum(abs(other - 1) for place, other in enumerate(ratios) if place != token)
        left = max(len(ratios) * budget - others, 0)
        expected.append(1 + min(max(ratio - 1, -left), left))
    actual = gate_of(torch.tensor(ratios, dtype=torch.float64).log(), SharedBudget(budget))
    assert actual.tolist() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.floats(0.05, 0.5), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_no_ratios_reach_more_than_the_best_within_the_trust_region_and_that_is_reached(advantages, budget, seed):
    tokens, credit = len(advantages), torch.tensor(advantages, dtype=torch.float64)
    # max A d over d = up - down with sum(up + down) <= T budget.
    best = -linprog([-a for a in advantages] + advantages, [[1.0] * 2 * tokens], [tokens * budget]).fun
    x, gate = Experience.from_lengths([tokens], [1], [1]), SharedBudget(budget)

    def reached(ratios: Tensor) -> float:
        return float(gate(ratios, credit, PolicyOutput(ratios.log()), x).sum() - credit.sum())

    generator = torch.Generator().manual_seed(seed)
    tried = [(3 * torch.randn(tokens, generator=generator).double()).exp() for _ in range(20)]
    assert max(map(reached, tried)) <= best + 1e-5
    solution = torch.ones(tokens, dtype=torch.float64)
    place = int(credit.abs().argmax())
    solution[place] += credit[place].sign() * tokens * budget
    assert reached(solution) == pytest.approx(best, abs=1e-5)


def test_at_a_ratio_of_1_a_shared_budget_has_the_gradient_of_the_plain_ratio():
    logs = torch.zeros(5, requires_grad=True)
    credit = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    x = Experience.from_lengths([2, 3], [1, 1], [2])
    SharedBudget()(logs.exp(), credit, PolicyOutput(logs), x).sum().backward()
    assert logs.grad.tolist() == credit.tolist()


def test_over_the_budget_a_token_stands_still_and_pushes_the_others_back():
    ratio = torch.tensor([1.5, 0.7], dtype=torch.float64, requires_grad=True)
    credit = torch.tensor([1.0, 0.0], dtype=torch.float64)
    x = Experience.from_lengths([2], [1], [1])
    SharedBudget(0.1)(ratio, credit, PolicyOutput(ratio.log()), x).sum().backward()
    # 0.8 is moved and 0.2 allowed, so the first token gives up 0.6 of its 0.5: nothing is left of either.
    assert ratio.grad.tolist() == [0.0, 0.0]
    ratio = torch.tensor([1.5, 0.9], dtype=torch.float64, requires_grad=True)
    SharedBudget(0.1)(ratio, credit, PolicyOutput(ratio.log()), x).sum().backward()
    assert ratio.grad.tolist() == pytest.approx([0.0, 1.0])


def test_a_mask_is_no_part_of_the_shared_budget():
    x = Experience.from_lengths([3], [1], [1], mask=torch.tensor([True, True, False]))
    logs = torch.tensor([1.3, 1.05, 9.0], dtype=torch.float64).log()
    assert gate_of(logs, SharedBudget(0.1), x)[:2].tolist() == pytest.approx([1.15, 1.0])


def test_a_shared_budget_is_above_0():
    with pytest.raises(InputError, match=r"shared_budget\.budget = 0"):
        SharedBudget(0.0)


@pytest.mark.parametrize(
    "gate", [LevelBudgets(), SharedBudget(), LevelBudgets(("trajectory", "group"), (1, 1), (1, 1))]
)
def test_whatever_masked_tokens_hold_poisons_neither_loss_nor_gradient(gate):
    mask = torch.tensor([True, False, True, False])
    x = Experience.from_lengths([2, 2], [1, 1], [2], mask=mask, advantage=torch.ones(4), old_logp=torch.zeros(4))
    said = torch.tensor([0.3, 0.0, -0.2, 0.0])
    results = []
    for fill in (0.0, math.nan, -math.inf):
        logp = torch.where(mask, said, fill).requires_grad_()
        loss = PolicyGradient(gate=gate, aggregation=FixedLength(4))(PolicyOutput(logp), x).loss
        results.append((loss.item(), torch.autograd.grad(loss, logp)[0].tolist()))
    assert results[0] == results[1] == results[2]
    assert all(map(math.isfinite, results[0][1]))
