"""KL estimators by enumeration, and what their gradients are gradients of."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import KL, BlendedPenalty, EntropyBonus, Surprisal, kl_estimate

PI, REF = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.0822829), ("k2", 0.0787662), ("k3", 0.0822829)])
def test_the_expectation_of_each_estimator(estimator, expected):
    assert (PI * kl_estimate((PI / REF).log(), estimator)).sum().item() == pytest.approx(expected, abs=1e-7)


def test_k3_of_a_log_ratio_worked_by_hand():
    assert kl_estimate(torch.tensor(0.2), "k3").item() == pytest.approx(0.0187308, abs=1e-7)
    assert kl_estimate(torch.tensor(1e-4), "k3").item() == pytest.approx(5e-9, rel=1e-2)
    assert math.isfinite(kl_estimate(torch.tensor(-1000.0), "k3").item())


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_what_the_gradient_of_each_estimator_is_on_policy(estimator):
    logits = torch.tensor([0.3, -0.5, 1.1, 0.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    pi = logits.softmax(0)
    # Every action once, weighted by its probability held fixed: the expectation over samples, differentiated inside.
    x = Experience.from_lengths([1] * 4, [1] * 4, [4], ref_logp=ref.log())
    expected_penalty = (pi.detach() * KL(estimator)(PolicyOutput(logits.log_softmax(0)), x)).sum()
    (actual,) = torch.autograd.grad(expected_penalty, logits)
    truth = {"k1": 0 * pi.sum(), "k2": kl(pi, ref), "k3": kl(ref, pi)}[estimator]
    (expected,) = torch.autograd.grad(truth, logits)
    assert torch.allclose(actual, expected, atol=1e-12)
    assert expected.abs().max() > 0.01 or estimator == "k1"


@pytest.mark.parametrize("unit", ["turn", "trajectory"])
def test_kl_of_a_longer_unit_is_that_of_the_sum_of_its_log_ratios(unit):
    x = Experience.from_lengths(
        [2, 1, 1], [2, 1], [2], ref_logp=torch.tensor([-1.0, -2, -3, -1]), mask=[True, True, True, False]
    )
    out = PolicyOutput(torch.tensor([-0.9, -1.8, -2.6, math.nan]))
    sums = {"turn": [0.3, 0.3, 0.4], "trajectory": [0.7] * 3}[unit]
    expected = [math.exp(-d) - 1 + d for d in sums]
    assert KL("k3", unit)(out, x).tolist() == pytest.approx([*expected, 0.0], abs=1e-6)


def test_the_entropy_bonus_is_the_negative_entropy():
    x = Experience.from_lengths([2], [1], [1])
    assert EntropyBonus()(PolicyOutput(torch.zeros(2), entropy=torch.tensor([0.5, 1.0])), x).tolist() == [-0.5, -1.0]
    with pytest.raises(ValueError, match="needs the policy's entropy"):
        EntropyBonus()(PolicyOutput(torch.zeros(2)), x)
    with pytest.raises(ValueError, match="needs ref_logp"):
        KL()(PolicyOutput(torch.zeros(2)), x)


def test_the_kl_is_to_the_reference_or_to_the_previous_policy():
    x = Experience.from_lengths([1], [1], [1], ref_logp=torch.tensor([-1.2]), previous_logp=torch.tensor([-1.0]))
    out = PolicyOutput(torch.tensor([-1.0]))
    assert KL()(out, x).item() == pytest.approx(0.0187308, abs=1e-7)
    assert KL(to="previous")(out, x).item() == 0.0
    assert (KL().needs(), KL(to="previous").needs()) == ({"ref_logp"}, {"previous_logp"})
    with pytest.raises(ValueError, match="needs previous_logp"):
        KL(to="previous")(out, x.replace(previous_logp=None))


def test_a_blend_of_two_penalties_gives_way_from_the_one_to_the_other():
    x = Experience.from_lengths([1], [1], [1], ref_logp=torch.tensor([-1.4]), previous_logp=torch.tensor([-1.1]))
    out = PolicyOutput(torch.tensor([-1.0]))
    values = [BlendedPenalty(KL("k1"), KL("k1", to="previous"), share)(out, x).item() for share in (1.0, 0.9, 0.0)]
    assert values == pytest.approx([0.4, 0.9 * 0.4 + 0.1 * 0.1, 0.1])
    assert BlendedPenalty(KL(), EntropyBonus()).needs() == {"ref_logp", "output.entropy"}
    with pytest.raises(InputError, match=r"blended_penalty\.share = 1\.5"):
        BlendedPenalty(KL(), EntropyBonus(), 1.5)


def test_the_surprisal_imitates_what_was_sampled():
    logp = torch.tensor([-0.5, -2.0], requires_grad=True)
    x = Experience.from_lengths([2], [1], [1])
    found = Surprisal()(PolicyOutput(logp=logp), x)
    assert found.tolist() == [0.5, 2.0]
    found.sum().backward()
    assert logp.grad is not None and logp.grad.tolist() == [-1.0, -1.0]
