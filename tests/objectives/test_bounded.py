"""The best policy within a bound on the ratio, and the loss that regresses to it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from stratagem.advantages import GAE
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    BoundedRatio,
    EntropyBonus,
    PolicyGradient,
    SequenceMean,
    Unclipped,
    ValueLoss,
    best_bounded_policy,
)

# ---- the exact solution ---------------------------------------------------------------------------------------------


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_best_policy_of_three_actions_worked_by_hand():
    before, value = row(0.4, 0.35, 0.25), row(1.0, 2.0, 4.0)
    after = best_bounded_policy(before, value, 0.2, 0.2)
    assert (after / before).tolist()[0] == pytest.approx([0.8, 1.085714, 1.2], abs=1e-6)
    assert after.sum().item() == pytest.approx(1.0)
    assert (before * value).sum().item() == pytest.approx(2.1)
    assert (after * value).sum().item() == pytest.approx(2.28)
    # The gain is the bound times the mean distance to the median, 2.
    assert (before * (value - 2).abs()).sum().item() * 0.2 == pytest.approx(0.18)


def program(before: Tensor, value: Tensor, low: float, high: float) -> float:
    """Its value by a linear program over the ratios."""
    return -linprog(
        (-before * value).numpy(), A_eq=before.unsqueeze(0).numpy(), b_eq=[1.0], bounds=(1 - low, 1 + high)
    ).fun


@given(st.integers(1, 7), st.floats(0, 0.9), st.floats(0, 3), st.booleans(), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_no_policy_within_the_bounds_is_better(actions, low, high, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(actions, generator=generator, dtype=torch.float64).softmax(0)
    value = torch.randn(actions, generator=generator, dtype=torch.float64)
    value = value.round() if ties else value
    after = best_bounded_policy(before.unsqueeze(0), value.unsqueeze(0), low, high)[0]
    ratio = after / before
    assert after.sum().item() == pytest.approx(1.0)
    assert 1 - low - 1e-9 <= ratio.min() and ratio.max() <= 1 + high + 1e-9
    assert float(after @ value) == pytest.approx(program(before, value, low, high), abs=1e-6)
    # Equal actions are treated alike, whatever their place.
    order = torch.randperm(actions, generator=generator)
    moved = best_bounded_policy(before[order].unsqueeze(0), value[order].unsqueeze(0), low, high)[0]
    assert torch.allclose(moved, after[order])


def test_an_action_never_taken_stays_so_and_no_bound_is_no_change():
    before, value = row(0.5, 0.0, 0.5), row(0.0, 9.0, 1.0)
    assert best_bounded_policy(before, value, 0.3, 0.3).tolist()[0] == pytest.approx([0.35, 0.0, 0.65])
    for bounds in ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0)):
        assert best_bounded_policy(before, value, *bounds).tolist()[0] == pytest.approx([0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match=r"low must lie in \[0, 1\) and high be at least 0, got 1\.0 and 0\.2"):
        best_bounded_policy(before, value, 1.0, 0.2)


def test_cross_entropy_search_keeps_the_elite():
    # With the lower ratio near 0 and the upper one 4, the best quarter takes (nearly) everything.
    before, value = torch.full((1, 8), 1 / 8), torch.arange(8.0).unsqueeze(0)
    after = best_bounded_policy(before, value, 1 - 1e-6, 3.0)
    assert after.tolist()[0] == pytest.approx([0.0] * 6 + [0.5, 0.5], abs=1e-5)


def test_repeating_it_with_exact_values_never_lowers_the_return_of_a_decision_process():
    generator = torch.Generator().manual_seed(0)
    states, actions, discount, bound = 10, 4, 0.9, 0.3

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    transition, reward = (2 * random(states, actions, states)).softmax(-1), random(states, actions)
    start, policy = random(states).softmax(0), random(states, actions).softmax(-1)

    def evaluated(policy: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return from the start, ``Q``, and the discounted visits of every state."""
        step = torch.einsum("sa,sat->st", policy, transition)
        inverse = torch.linalg.inv(torch.eye(states, dtype=torch.float64) - discount * step)
        state_value = inverse @ (policy * reward).sum(-1)
        return float(start @ state_value), reward + discount * transition @ state_value, start @ inverse

    def median(policy: Tensor, value: Tensor) -> Tensor:
        ordered, places = value.sort(-1)
        first = (policy.gather(-1, places).cumsum(-1) >= 0.5).int().argmax(-1, keepdim=True)
        return ordered.gather(-1, first)

    returns = []
    for _ in range(80):
        earned, value, _ = evaluated(policy)
        better = best_bounded_policy(policy, value, bound, bound)
        # The gain is the bound times the mean distance to the median, under the visits of the new policy.
        later, _, visits = evaluated(better)
        distance = (policy * (value - median(policy, value)).abs()).sum(-1)
        assert later - earned == pytest.approx(bound * float(visits @ distance), abs=1e-9)
        returns.append(earned)
        policy = better
    rises = [later - earlier for earlier, later in pairwise(returns)]
    assert min(rises) >= -1e-9
    # It ends at the best return there is.
    best = torch.zeros(states, dtype=torch.float64)
    for _ in range(500):
        best = (reward + discount * transition @ best).amax(-1)
    assert returns[-1] == pytest.approx(float(start @ best), abs=1e-3)


# ---- the loss -------------------------------------------------------------------------------------------------------


def batch(ratio: list[float], target: list[float], value: list[float], median: list[float], **fields):
    """An output with these ratios, values and medians, and a batch of single tokens with these value targets."""
    tokens = len(ratio)
    x = Experience.from_lengths(
        [1] * tokens, [1] * tokens, [tokens],
        old_logp=torch.zeros(tokens), value=torch.zeros(tokens), value_target=torch.tensor(target), **fields,
    )  # fmt: skip
    logp = torch.tensor(ratio).log().requires_grad_()
    return PolicyOutput(
        logp, value=torch.tensor(value).requires_grad_(), median=torch.tensor(median).requires_grad_()
    ), x


def test_loss_and_metrics_worked_by_hand():
    # Value targets 1 and -1 beside values 0.5 and 0 and medians 0 and 0: targets 1.2 and 0.8, |A| 0.5 and 1.
    out, x = batch([1.5, 0.9], [1.0, -1.0], [0.5, 0.0], [0.0, 0.0])
    result = BoundedRatio(bound=0.2, median_weight=0.25)(out, x)
    policy = (0.3 * 0.5 + 0.1 * 1.0) / 2
    median = math.log(2 * math.cosh(0.5))
    value = 0.5 * (0.25 + 1.0) / 2
    assert result.loss.item() == pytest.approx(policy + 0.25 * median + value)
    expected = {"policy_loss": policy, "median_loss": median, "value_loss": value, "clip_fraction": 0.5, "ratio": 1.2}
    assert {name: result.metrics[name].item() for name in expected} == pytest.approx(expected)
    result.loss.backward()
    # By the log-probability: the ratio times the slope, which is +|A| above the target whatever the clip would say.
    assert out.logp.grad.tolist() == pytest.approx([1.5 * 0.5 / 2, 0.9 * 1.0 / 2])
    # Neither target nor |A| pass a gradient: the critic has that of its squared error, the median tanh(d / 2) / 2.
    assert out.value.grad.tolist() == pytest.approx([-0.5 / 2, 1.0 / 2])
    slope = 0.25 * math.tanh(0.5) / 2 / 2
    assert out.median.grad.tolist() == pytest.approx([-slope, slope])


@given(st.floats(0.5, 1.6), st.floats(-2, 2).filter(lambda a: abs(a) > 1e-2))
def test_inside_the_band_it_is_ppo_and_outside_it_points_back(ratio, advantage):
    bound = 0.2
    assume(abs(abs(ratio - 1) - bound) > 1e-6)  # At the edge itself there is no derivative.
    out, x = batch([ratio], [advantage], [0.0], [0.0], advantage=torch.tensor([advantage]))
    objective = BoundedRatio(bound, temperature=1e-9, median_weight=0.0, critic=ValueLoss(weight=0.0))
    slope = torch.autograd.grad(objective(out, x).loss, out.logp)[0].item() / ratio
    beyond = (ratio - 1) * math.copysign(1, advantage) > bound
    assert slope == pytest.approx(advantage if beyond else -advantage, rel=1e-4)
    clipped = torch.autograd.grad(PolicyGradient()(out, x).loss, out.logp)[0].item() / ratio
    assert clipped == pytest.approx(0.0 if beyond else -advantage, rel=1e-4)


def test_beyond_the_band_the_slope_worked_by_hand():
    out, x = batch([1.5], [1.0], [0.0], [0.0])
    loss = BoundedRatio(bound=0.2, critic=ValueLoss(weight=0.0), median_weight=0.0)(out, x).loss
    assert (torch.autograd.grad(loss, out.logp)[0] / 1.5).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("temperature", "targets"), [(1e-9, [1.3, 1.0, 0.7]), (1e9, [1.0, 1.0, 1.0])])
def test_a_cold_target_is_a_bound_and_a_hot_one_stays_put(temperature, targets):
    out, x = batch([1.0, 1.0, 1.0], [2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5])
    loss = BoundedRatio(0.3, temperature, median_weight=0.0, critic=ValueLoss(weight=0.0))(out, x).loss
    weight = [2.0, 0.5, 1.0]
    assert loss.item() == pytest.approx(sum(w * abs(1 - t) for w, t in zip(weight, targets, strict=True)) / 3, abs=1e-6)


def test_the_median_of_many_returns_minimises_its_loss_and_their_mean_does_not():
    samples = torch.tensor([0.0, 0, 0, 1000, 1000])
    x = Experience.from_lengths(
        [1] * 5, [1] * 5, [5], value=torch.zeros(5), value_target=samples, old_logp=torch.zeros(5)
    )

    def median_loss(guess: float) -> float:
        out = PolicyOutput(torch.zeros(5), value=torch.zeros(5), median=torch.full((5,), guess))
        return BoundedRatio()(out, x).metrics["median_loss"].item()

    guesses = torch.linspace(-50, 1050, 1101).tolist()
    assert min(guesses, key=median_loss) == pytest.approx(0.0, abs=2.0)
    assert median_loss(0.0) < median_loss(400.0)
    at_it = PolicyOutput(torch.zeros(5), value=torch.zeros(5), median=samples)
    assert BoundedRatio()(at_it, x).metrics["median_loss"].item() == pytest.approx(0.693147, abs=1e-6)


def test_the_sign_is_that_of_the_median_and_the_size_that_of_the_mean():
    # Above the mean, below the median: less likely, by |Q - V|.
    out, x = batch([1.0], [0.5], [0.0], [1.0])
    loss = BoundedRatio(median_weight=0.0, critic=ValueLoss(weight=0.0))(out, x).loss
    assert torch.autograd.grad(loss, out.logp)[0].item() == pytest.approx(0.5)
    by_mean = BoundedRatio(center="mean", critic=ValueLoss(weight=0.0))
    result = by_mean(PolicyOutput(out.logp, value=out.value), x)
    assert torch.autograd.grad(result.loss, out.logp)[0].item() == pytest.approx(-0.5)
    assert "median_loss" not in result.metrics
    assert "output.median" in BoundedRatio().needs()
    assert "output.median" not in by_mean.needs()


def test_a_regularizer_is_aggregated_like_the_loss():
    out, x = batch([1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    out = PolicyOutput(out.logp, torch.tensor([1.0, 3.0]), out.value, out.median)
    objective = BoundedRatio(regularizer=0.1 * EntropyBonus(), median_weight=0.0)
    result = objective(out, x)
    assert result.loss.item() == pytest.approx(-0.2)
    assert result.metrics["regularizer"].item() == pytest.approx(-0.2)
    assert result.metrics["entropy"].item() == 2.0
    assert {"output.entropy", "output.value", "output.median", "value", "old_logp"} <= objective.needs()


def test_the_value_target_is_the_lambda_return():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.5, 0.6, 0.8]))
    x = x.replace(value_target=GAE(1.0, 0.95).value_target(x), old_logp=torch.zeros(3))
    out = PolicyOutput(torch.zeros(3), value=torch.tensor([0.5, 0.6, 0.8]), median=torch.zeros(3))
    # Advantages 0.4705, 0.39, 0.2, all returns above the median.
    assert BoundedRatio()(out, x).metrics["policy_loss"].item() == pytest.approx(0.3 * (0.4705 + 0.39 + 0.2) / 3)


def test_losses_of_micro_batches_add_up():
    generator = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(9, generator=generator)

    mask = torch.rand(9, generator=generator) < 0.7
    x = Experience.from_lengths(
        [2, 3, 1, 3], [1] * 4, [4], old_logp=random(), value=random(), value_target=random(), mask=mask
    )
    outputs = [random() for _ in range(4)]
    objective = BoundedRatio(aggregation=SequenceMean(), regularizer=EntropyBonus(), critic=ValueLoss(clip=0.1))
    whole = objective(PolicyOutput(*outputs), x)
    results = []
    for rows in ([2, 0], [1, 3]):
        piece = x.microbatch(torch.tensor(rows))
        results.append(objective(PolicyOutput(*(values[piece.parent[1]] for values in outputs)), piece))
    assert sum(result.loss for result in results).item() == pytest.approx(whole.loss.item())
    for name, value in whole.metrics.items():
        assert sum(result.metrics[name] for result in results).item() == pytest.approx(value.item(), abs=1e-6), name


@pytest.mark.parametrize("poison", [math.nan, -math.inf, math.inf])
def test_whatever_masked_tokens_hold_poisons_neither_loss_nor_gradient(poison):
    mask = torch.tensor([True, False])
    said = torch.tensor([-0.5, 0.0])

    def learned(fill: float) -> tuple[float, list[list[float]]]:
        x = Experience.from_lengths(
            [2], [1], [1], mask=mask, old_logp=torch.where(mask, said, fill), value=torch.where(mask, said, fill),
            value_target=torch.where(mask, said + 1, fill),
        )  # fmt: skip
        outputs = [torch.where(mask, said, fill).requires_grad_() for _ in range(3)]
        loss = BoundedRatio()(PolicyOutput(outputs[0], value=outputs[1], median=outputs[2]), x).loss
        loss.backward()
        return loss.item(), [output.grad.tolist() for output in outputs]

    assert learned(poison) == learned(0.0)


def test_what_it_lacks_and_a_value_target_that_is_no_number_are_named():
    out, x = batch([1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match=r"needs the policy's value and median, and x\.value_target"):
        BoundedRatio()(PolicyOutput(out.logp, value=out.value), x)
    with pytest.raises(ValueError, match=r"needs the policy's value and median, and x\.value_target"):
        BoundedRatio()(out, x.replace(value_target=None))
    with pytest.raises(ValueError, match="needs finite value targets; token 1 has inf"):
        BoundedRatio()(out, x.replace(value_target=torch.tensor([0.0, math.inf])))
    for fields, expected in (
        ({"bound": 1.0}, r"bounded_ratio\.bound = 1"),
        ({"bound": 0.0}, r"bounded_ratio\.bound = 0"),
        ({"temperature": 0.0}, r"bounded_ratio\.temperature = 0"),
        ({"center": "mode"}, r"bounded_ratio\.center = 'mode'"),
    ):
        with pytest.raises(InputError, match=expected):
            BoundedRatio(**fields)


def test_with_no_bound_worth_the_name_the_gradient_at_a_ratio_of_1_is_the_plain_one():
    # Median and value agree in sign here, so the first step is that of the unclipped surrogate.
    out, x = batch([1.0, 1.0], [1.0, -2.0], [0.0, 0.0], [0.0, 0.0], advantage=torch.tensor([1.0, -2.0]))
    ours = BoundedRatio(median_weight=0.0, critic=ValueLoss(weight=0.0))(out, x).loss
    plain = PolicyGradient(gate=Unclipped())(out, x).loss
    assert torch.allclose(*(torch.autograd.grad(loss, out.logp)[0] for loss in (ours, plain)))
