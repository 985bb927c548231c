"""Proximal policies: their numbers, and the one that is tensor code alone."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    Clip,
    Interpolated,
    MaskedImportance,
    MovingAverage,
    PolicyGradient,
    SamplingVersion,
    TokenMean,
    TruncatedImportance,
    Unclipped,
)

LOGP = torch.tensor([-0.5, -1.0, -2.0], dtype=torch.float64)
BEHAVIOR = torch.tensor([-0.7, -1.4, -1.9], dtype=torch.float64)


def batch(**fields) -> Experience:
    return Experience.from_lengths(
        [3], [1], [1], behavior_logp=BEHAVIOR, advantage=torch.ones(3, dtype=torch.float64), **fields
    )


def test_the_decay_puts_the_mean_lag_in_the_middle_of_the_window():
    assert MovingAverage(window=8).decay == pytest.approx(0.8)
    assert MovingAverage(window=0).decay == 0
    assert MovingAverage(window=math.inf).decay == 1
    for window in (1.0, 2.0, 8.0):
        decay = MovingAverage(window).decay
        assert decay / (1 - decay) == pytest.approx(window / 2)


@pytest.mark.parametrize("space", ["log", "probability"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_staleness_times_discrepancy_is_the_ratio_to_the_behaviour_policy(alpha, space):
    """With neither clip nor mask the loss is ``-mean r_d r_s A``, whatever stands between the two policies."""
    free = PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), correction=TruncatedImportance(high=math.inf))
    loss = Interpolated(free, alpha, space)(PolicyOutput(LOGP), batch()).loss
    assert loss.item() == pytest.approx(-(LOGP - BEHAVIOR).exp().mean().item(), abs=1e-7)


def test_between_the_policies_the_ratio_is_a_power_of_the_whole_one():
    """``pi / pi_old = (pi / mu)^alpha``: for alpha = 1/2 the clip binds at (1 + high)^2 of the whole ratio."""
    clip = PolicyGradient(gate=Clip(0.2, 0.2), aggregation=TokenMean())
    x = batch()
    for whole, bound in ((1.2**2 - 0.01, 0.0), (1.2**2 + 0.01, 1.0)):
        out = PolicyOutput(BEHAVIOR + math.log(whole))
        assert Interpolated(clip, 0.5)(out, x).metrics["clip_fraction"].item() == bound


def test_in_the_space_of_probabilities_the_mean_is_of_probabilities():
    found = Interpolated(PolicyGradient(), 0.25, "probability")._between(BEHAVIOR, LOGP)
    expected = 0.25 * BEHAVIOR.exp() + 0.75 * LOGP.exp()
    torch.testing.assert_close(found.exp(), expected)


def test_the_proximal_policy_between_carries_no_gradient():
    logp = LOGP.clone().requires_grad_()
    free = PolicyGradient(gate=Unclipped(), aggregation=TokenMean())
    Interpolated(free, 0.5)(PolicyOutput(logp), batch()).loss.backward()
    ratio = (0.5 * (LOGP - BEHAVIOR)).exp()
    torch.testing.assert_close(logp.grad, -ratio / 3, rtol=1e-6, atol=0)


def test_without_the_behaviour_policy_nothing_is_between():
    with pytest.raises(ValueError, match="needs behavior_logp"):
        Interpolated(PolicyGradient())(PolicyOutput(LOGP), batch().replace(behavior_logp=None))
    assert "behavior_logp" in Interpolated(PolicyGradient()).needs()


def test_what_is_wrapped_decides_whether_there_is_anything_to_learn():
    wrapped = Interpolated(PolicyGradient())
    assert wrapped.has_signal(batch()) and not wrapped.has_signal(batch().replace(advantage=torch.zeros(3)))


def test_an_objective_says_how_many_tokens_are_active_and_how_far_the_proximal_policy_is_off():
    """Of four tokens one is clipped, and one other removed by the correction."""
    x = Experience.from_lengths(
        [4], [1], [1],
        behavior_logp=torch.tensor([-1.0, -1.0, -1.0, -3.0]), old_logp=torch.full((4,), -1.0),
        version_logp=torch.tensor([-1.0, -1.0, -1.0, -2.5]), advantage=torch.ones(4),
    )  # fmt: skip
    out = PolicyOutput(torch.tensor([0.5, -1.0, -1.0, -1.0]))
    metrics = PolicyGradient(aggregation=TokenMean(), correction=MaskedImportance())(out, x).metrics
    assert metrics["clip_fraction"].item() == 0.25
    assert metrics["active_fraction"].item() == 0.5
    assert metrics["proximal_error"].item() == pytest.approx(1.5 / 4)
    # k3 of mu to pi_old: 0 but for the last, where log mu - log pi_old is -2.
    assert metrics["kl_behavior"].item() == pytest.approx((math.exp(2) - 1 - 2) / 4)


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: MovingAverage(window=-1), "moving_average.window = -1"),
        (lambda: MovingAverage(reset_below=1.1), "moving_average.reset_below = 1.1"),
        (lambda: SamplingVersion(keep=0), "sampling_version.keep = 0"),
        (lambda: SamplingVersion("guessed"), "sampling_version.route = 'guessed'"),
        (lambda: SamplingVersion(missing="newest"), "sampling_version.missing = 'newest'"),
        (lambda: Interpolated(PolicyGradient(), 1.5), "interpolated.alpha = 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(build, problem):
    with pytest.raises(InputError, match=problem):
        build()
