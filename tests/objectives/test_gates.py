"""Gates: values and whose gradient passes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    ByOrigin,
    CenteredClip,
    Clip,
    ClippedWeight,
    LogLikelihood,
    Saturating,
    TokenRatio,
    TowardsTarget,
    Unclipped,
)
from stratagem.parts import Gate


def gated(gate: Gate, ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Surrogate, its derivative by the ratio, and whether the gate binds."""
    rho, credit = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    x = Experience.from_lengths([1], [1], [1])
    surrogate = gate(rho, credit, PolicyOutput(rho.log()), x)
    surrogate.sum().backward()
    return surrogate.item(), rho.grad.item(), bool(gate.binds(rho.detach(), credit, PolicyOutput(rho.log()), x))


def batch(seed: int) -> tuple[Tensor, Tensor, PolicyOutput, Experience]:
    """Forty tokens with ratios from far below to far above 1 and advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    log_ratio, advantage = 3 * torch.randn(40, generator=generator), torch.randn(40, generator=generator)
    return log_ratio.exp(), advantage, PolicyOutput(log_ratio - 1), Experience.from_lengths([40], [1], [1])


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [(1.5, 1, 1.2, 0), (1.5, -1, -1.5, -1), (0.5, 1, 0.5, 1), (0.5, -1, -0.8, 0), (1.1, 2, 2.2, 2), (1.0, 0, 0, 0)],
)
def test_the_clip_takes_the_worse_and_stops_the_gradient_only_there(ratio, advantage, surrogate, slope):
    value, derivative, bound = gated(Clip(0.2, 0.2), ratio, advantage)
    assert value == pytest.approx(surrogate)
    assert derivative == pytest.approx(slope)
    assert bound == (slope == 0 and advantage != 0)


def test_the_dual_clip_stops_the_gradient_of_a_bad_action_that_became_far_too_likely():
    assert gated(Clip(dual=3.0), 5.0, -1.0) == (-3.0, 0.0, True)
    assert gated(Clip(dual=3.0), 2.0, -1.0) == (-2.0, -1.0, False)
    assert gated(Clip(dual=3.0), 5.0, 1.0)[0] == pytest.approx(1.2)


def test_bounds_may_differ():
    assert gated(Clip(0.2, 0.28), 1.25, 1.0) == (1.25, 1.0, False)
    assert gated(Clip(0.2, 0.28), 1.3, 1.0)[0] == pytest.approx(1.28)
    assert gated(Clip(0.1, 0.28), 0.85, -1.0)[0] == pytest.approx(-0.9)


def test_the_clipped_weight_keeps_the_gradient_of_every_token():
    # d/d rho of sg(clip(rho)) A log rho is clip(rho) A / rho.
    for ratio, weight, binds in ((10.0, 5.0, True), (2.0, 2.0, False), (0.1, 0.1, False)):
        value, derivative, bound = gated(ClippedWeight(high=4.0), ratio, -2.0)
        assert value == pytest.approx(weight * -2.0 * torch.tensor(ratio).log().item())
        assert derivative == pytest.approx(-2.0 * weight / ratio)
        assert bound == binds
    assert gated(ClippedWeight(low=0.2), 0.5, 1.0)[2]


FOUR_BOUNDS = ClippedWeight(low=0.2, high=10.0, wrong_low=1.0, wrong_high=100.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight"),
    [(0.5, 1, 0.8), (1, 1, 1), (20, 1, 11), (0.5, -1, 0.5), (1, -1, 1), (20, -1, 20), (200, -1, 101), (1e-3, -1, 1e-3)],
)
def test_weights_of_right_and_wrong_tokens_have_bounds_of_their_own(ratio, advantage, weight):
    value, derivative, bound = gated(FOUR_BOUNDS, float(ratio), float(advantage))
    assert derivative == pytest.approx(advantage * weight / ratio)
    assert value == pytest.approx(advantage * weight * math.log(ratio), rel=1e-5)
    assert bound == (weight != ratio)


def test_an_advantage_of_zero_adds_nothing_whatever_the_ratio():
    assert gated(FOUR_BOUNDS, 4e8, 0.0)[:2] == (0.0, 0.0)


@settings(deadline=None)
@given(*[st.floats(0, 1)] * 2, *[st.floats(0, 50)] * 2, st.integers(0, 1000))
def test_bounds_of_wrong_tokens_do_not_reach_right_ones_nor_the_other_way(low, other_low, high, other_high, seed):
    ratio, advantage, out, x = batch(seed)
    mine = ClippedWeight(low, high, 0.5, 3.0)(ratio, advantage, out, x)
    theirs = ClippedWeight(other_low, other_high, 0.5, 3.0)(ratio, advantage, out, x)
    assert torch.equal(mine[advantage < 0], theirs[advantage < 0])
    mine = ClippedWeight(0.5, 3.0, low, high)(ratio, advantage, out, x)
    theirs = ClippedWeight(0.5, 3.0, other_low, other_high)(ratio, advantage, out, x)
    assert torch.equal(mine[advantage > 0], theirs[advantage > 0])


@settings(deadline=None)
@given(st.floats(0, 50), st.integers(0, 1000))
def test_equal_bounds_are_one_pair_of_bounds_to_the_last_bit(high, seed):
    ratio, advantage, out, x = batch(seed)
    pair = ClippedWeight(low=None, high=high)
    for gate in (
        ClippedWeight(1.0, high, 1.0, high),
        ClippedWeight(None, high, wrong_low=1.0),
        ClippedWeight(1.0, high),
    ):
        assert torch.equal(gate(ratio, advantage, out, x), pair(ratio, advantage, out, x))
        assert torch.equal(gate.binds(ratio, advantage, out, x), pair.binds(ratio, advantage, out, x))


def test_a_wrong_token_may_be_one_of_an_answer_without_success():
    # Two answers, the first right; the second token of each has an advantage of the other sign.
    x = Experience.from_lengths([2, 2], [1, 1], [2], success=[True, False])
    ratio, advantage = torch.full((4,), 0.5), torch.tensor([1.0, -1.0, -1.0, 1.0])
    out = PolicyOutput(torch.ones(4))
    by_sign = ClippedWeight(0.2, 10.0, 1.0, 100.0)
    by_success = ClippedWeight(0.2, 10.0, 1.0, 100.0, wrong="success")
    assert by_sign(ratio, advantage, out, x).tolist() == pytest.approx([0.8, -0.5, -0.5, 0.8])
    assert by_success(ratio, advantage, out, x).tolist() == pytest.approx([0.8, -0.8, -0.5, 0.5])
    assert by_sign.binds(ratio, advantage, out, x).tolist() == [True, False, False, True]
    assert by_success.binds(ratio, advantage, out, x).tolist() == [True, True, False, False]
    assert (by_sign.needs(), by_success.needs()) == (frozenset(), {"success"})
    with pytest.raises(ValueError, match=r"needs x\.success"):
        by_success(ratio, advantage, out, x.replace(success=None))


@pytest.mark.parametrize("field", ["low", "wrong_low"])
def test_a_lower_bound_below_zero_is_refused(field):
    with pytest.raises(InputError, match=rf"clipped_weight\.{field} = 1\.5: input should be less than or equal to 1"):
        ClippedWeight(**{field: 1.5})
    with pytest.raises(InputError, match=r"clipped_weight\.wrong_high = -1\.0"):
        ClippedWeight(wrong_high=-1.0)


def test_the_ungated_surrogates():
    assert gated(Unclipped(), 3.0, -2.0) == (-6.0, -2.0, False)
    assert gated(LogLikelihood(), 2.0, 3.0)[1] == pytest.approx(1.5)


def pulled(ratio: float, advantage: float, target: float) -> tuple[float, float, bool]:
    """As :func:`gated`, of the gate that pulls towards a target."""
    rho, credit = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    x = Experience.from_lengths([1], [1], [1], target=torch.tensor([target]))
    surrogate = TowardsTarget()(rho, credit, PolicyOutput(rho.log()), x)
    surrogate.sum().backward()
    return (
        surrogate.item(),
        rho.grad.item(),
        bool(TowardsTarget().binds(rho.detach(), credit, PolicyOutput(rho.log()), x)),
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "target", "surrogate", "slope", "bound"),
    [
        (1.0, 1.5, 1.3, -0.45, 1.5, False),  # as A rho does
        (1.5, 1.0, 1.2, -0.3, -1.0, True),  # where the clip has no gradient, it points back
        (0.5, -2.0, 0.75, -0.5, 2.0, True),
        (1.0, -2.0, 0.75, -0.5, -2.0, False),
        (1.0, -0.5, 1.0, 0.0, 0.0, True),  # held, though the advantage is negative
        (1.25, 0.0, 1.5, 0.0, 0.0, False),
    ],
)
def test_the_ratio_is_pulled_to_its_target_from_either_side(ratio, advantage, target, surrogate, slope, bound):
    value, derivative, binds = pulled(ratio, advantage, target)
    assert value == pytest.approx(surrogate)
    assert derivative == pytest.approx(slope)
    assert binds == bound


def test_without_a_target_there_is_nothing_to_pull_to():
    with pytest.raises(ValueError, match=r"needs x\.target, which an advantage such as group_quantile_target sets"):
        gated(TowardsTarget(), 1.0, 1.0)


# ---- a clip around where the update starts ---------------------------------------------------------------------------


def centered(ratio: float, center: float, advantage: float, gate: CenteredClip) -> tuple[float, float, bool]:
    """Surrogate, its derivative by the ratio, whether the gate binds: for a token whose ratio began at ``center``."""
    rho, credit = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    x = Experience.from_lengths([1], [1], [1], old_logp=torch.tensor([center]).log(), behavior_logp=torch.zeros(1))
    surrogate = gate(rho, credit, PolicyOutput(rho.log()), x)
    surrogate.sum().backward()
    return surrogate.item(), rho.grad.item(), bool(gate.binds(rho.detach(), credit, PolicyOutput(rho.log()), x))


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [(1.6, 1, 1.5, 0), (1.45, 1, 1.45, 1), (1.0, -1, -1.1, 0), (1.6, -1, -1.6, -1), (1.0, 1, 1.0, 1)],
)
def test_a_centered_clip_lets_a_ratio_move_as_far_from_where_it_began(ratio, advantage, surrogate, slope):
    value, derivative, bound = centered(ratio, 1.3, advantage, CenteredClip(0.2, 0.2))
    assert value == pytest.approx(surrogate)
    assert derivative == pytest.approx(slope)
    assert bound == (slope == 0)


def test_the_bounds_around_the_center_may_differ_and_the_lower_one_may_be_negative():
    assert centered(1.7, 1.3, 1.0, CenteredClip(0.2, 0.5))[:2] == (pytest.approx(1.7), 1.0)
    assert centered(1e-6, 0.1, -1.0, CenteredClip(0.2, 0.2)) == (pytest.approx(-1e-6), -1.0, False)


def test_a_cap_on_the_center_stops_good_tokens_that_have_become_far_more_likely():
    assert centered(30.0, 30.0, 1.0, CenteredClip(cap=10.0)) == (pytest.approx(10.2), 0.0, True)
    assert centered(30.0, 30.0, -1.0, CenteredClip(cap=10.0)) == (pytest.approx(-30.0), -1.0, False)
    assert centered(30.0, 30.0, 1.0, CenteredClip()) == (pytest.approx(30.0), 1.0, False)
    with pytest.raises(InputError, match=r"centered_clip\.cap = 0"):
        CenteredClip(cap=0.0)


def test_where_the_update_starts_no_token_is_clipped_however_old_it_is():
    generator = torch.Generator().manual_seed(0)
    old, behavior = -torch.rand(1000, generator=generator), -3 * torch.rand(1000, generator=generator)
    credit = torch.randn(1000, generator=generator)
    x = Experience.from_lengths([1000], [1], [1], old_logp=old, behavior_logp=behavior)
    out = PolicyOutput(old.clone().requires_grad_())
    ratio, gate = TokenRatio("behavior")(out, x), CenteredClip()
    assert not bool(gate.binds(ratio, credit, out, x).any())
    (slope,) = torch.autograd.grad(gate(ratio, credit, out, x).sum(), out.logp)
    torch.testing.assert_close(slope, (old - behavior).exp() * credit)
    # Around 1, every good token that has become likelier, and every bad one that has become less likely, is lost.
    lost = Clip().binds(ratio.detach(), credit, out, x)
    assert 0.3 < float(lost.float().mean()) < 0.6


@pytest.mark.parametrize("bounds", [(0.2, 0.2), (0.2, 0.28), (0.13, 0.37)])
def test_on_fresh_tokens_a_centered_clip_is_the_clip_to_the_last_bit(bounds):
    generator = torch.Generator().manual_seed(1)
    old, credit = -torch.rand(5000, generator=generator), torch.randn(5000, generator=generator)
    x = Experience.from_lengths([5000], [1], [1], old_logp=old, behavior_logp=old)

    def learned(gate: Gate, denominator: str) -> tuple[torch.Tensor, ...]:
        out = PolicyOutput((old + 0.3 * torch.randn(5000, generator=generator.manual_seed(2))).requires_grad_())
        ratio = TokenRatio(denominator)(out, x)
        surrogate = gate(ratio, credit, out, x)
        return surrogate, gate.binds(ratio, credit, out, x), *torch.autograd.grad(surrogate.sum(), out.logp)

    for ours, theirs in zip(learned(CenteredClip(*bounds), "behavior"), learned(Clip(*bounds), "old"), strict=True):
        assert torch.equal(ours, theirs)


def test_a_center_that_is_not_known_is_refused_and_never_taken_for_1():
    ratio, credit, out = torch.ones(2), torch.ones(2), PolicyOutput(torch.tensor([-1.0, -2.0]))
    x = Experience.from_lengths([2], [1], [1], behavior_logp=-torch.ones(2), version=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="needs old_logp for tokens of several versions"):
        CenteredClip()(ratio, credit, out, x)
    with pytest.raises(ValueError, match="needs behavior_logp"):
        CenteredClip()(ratio, credit, out, x.replace(behavior_logp=None))
    # Of one version, without old_logp: the policy has not moved, so that the center is its own ratio.
    fresh = x.replace(version=torch.tensor([3, 3]))
    assert CenteredClip()(ratio, credit, out, fresh).tolist() == pytest.approx([1.0, 0.2 + 0.3678794])


# ---- saturating, by origin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "shaped", "slope"), [(0.1, 0.5, 2.5), (1.0, 0.90909, 0.08264), (2.0, 0.95238, 0.02268)]
)
def test_a_saturating_ratio_learns_most_where_the_policy_finds_a_token_unlikely(ratio, shaped, slope):
    for advantage in (1.0, -2.0):
        value, derivative, binds = gated(Saturating(), ratio, advantage)
        assert value == pytest.approx(advantage * shaped, abs=2e-5)
        assert derivative == pytest.approx(advantage * slope, abs=2e-4)
        assert not binds


@given(st.floats(-20, 20), st.floats(0.001, 10))
def test_a_saturating_ratio_lies_between_nothing_and_one(log_ratio, scale):
    value, _, _ = gated(Saturating(scale), math.exp(log_ratio), 1.0)
    assert 0 < value <= 1


def marked_batch(resampled: list[bool] | None) -> Experience:
    return Experience.from_lengths([1, 1], [1, 1], [2], resampled=resampled)


def test_only_what_was_resampled_is_shaped_and_the_rest_is_clipped():
    rho, credit = torch.tensor([1.5, 1.5], requires_grad=True), torch.ones(2)
    x, out = marked_batch([False, True]), PolicyOutput(torch.zeros(2))
    gate = ByOrigin()
    surrogate = gate(rho, credit, out, x)
    surrogate.sum().backward()
    torch.testing.assert_close(surrogate, torch.tensor([1.2, 1.5 / 1.6]))
    torch.testing.assert_close(rho.grad, torch.tensor([0.0, 0.1 / 1.6**2]))
    assert gate.binds(rho.detach(), credit, out, x).tolist() == [True, False]


def test_a_batch_without_marks_is_clipped_as_a_whole():
    ratio, advantage, out, x = batch(0)
    assert torch.equal(ByOrigin()(ratio, advantage, out, x), Clip()(ratio, advantage, out, x))
    assert torch.equal(ByOrigin().binds(ratio, advantage, out, x), Clip().binds(ratio, advantage, out, x))


def test_a_scale_of_nothing_is_refused():
    with pytest.raises(InputError, match="scale"):
        Saturating(0.0)
