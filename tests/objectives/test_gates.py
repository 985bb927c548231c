"""Gates: values and whose gradient passes."""

from __future__ import annotations

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, ClippedWeight, LogLikelihood, TowardsTarget, Unclipped
from stratagem.parts import Gate


def gated(gate: Gate, ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Surrogate, its derivative by the ratio, and whether the gate binds."""
    rho, credit = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    x = Experience.from_lengths([1], [1], [1])
    surrogate = gate(rho, credit, PolicyOutput(rho.log()), x)
    surrogate.sum().backward()
    return surrogate.item(), rho.grad.item(), bool(gate.binds(rho.detach(), credit))


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


def test_the_ungated_surrogates():
    assert gated(Unclipped(), 3.0, -2.0) == (-6.0, -2.0, False)
    assert gated(LogLikelihood(), 2.0, 3.0)[1] == pytest.approx(1.5)


def pulled(ratio: float, advantage: float, target: float) -> tuple[float, float, bool]:
    """As :func:`gated`, of the gate that pulls towards a target."""
    rho, credit = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    x = Experience.from_lengths([1], [1], [1], target=torch.tensor([target]))
    surrogate = TowardsTarget()(rho, credit, PolicyOutput(rho.log()), x)
    surrogate.sum().backward()
    return surrogate.item(), rho.grad.item(), bool(TowardsTarget().binds_in(rho.detach(), credit, x))


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
