"""One estimator, of which the known methods are choices: a test for every row of the paper's table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    Clip,
    ClippedWeight,
    GeometricMeanRatio,
    LogLikelihood,
    PolicyGradient,
    SequenceMean,
    TokenMean,
    UnifiedGradient,
)
from stratagem.parts import Objective
from stratagem.seeding import generator


def batch(spread: float = 0.4) -> tuple[Experience, Tensor]:
    """Trajectories of one to six tokens, and what a policy says of them that is far from the old one."""
    source = generator(0, "unified")
    lengths = [1, 6, 3, 2, 4, 1]
    old = -1 - torch.rand(sum(lengths), generator=source, dtype=torch.float64)
    logp = old + spread * torch.randn(len(old), generator=source, dtype=torch.float64)
    x = Experience.from_lengths(
        lengths,
        [1] * 6,
        [3, 3],
        old_logp=old,
        behavior_logp=old + 0.1,
        advantage=torch.randn(len(old), generator=source, dtype=torch.float64),
    )
    return x, logp


def gradient(objective: Objective, x: Experience, logp: Tensor) -> Tensor:
    leaf = logp.clone().requires_grad_()
    objective(PolicyOutput(leaf), x).loss.backward()
    return leaf.grad


ROWS = {
    "SFT": (UnifiedGradient("current", "none"), PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean()), 1.0),
    "REINFORCE": (UnifiedGradient("current", "none"), PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean()), 0),
    "PPO": (UnifiedGradient("old", "clip"), PolicyGradient(gate=Clip(), aggregation=TokenMean()), 0),
    "GRPO": (
        UnifiedGradient("old", "clip", aggregation=SequenceMean()),
        PolicyGradient(gate=Clip(), aggregation=SequenceMean()),
        0,
    ),
    "DAPO": (
        UnifiedGradient("old", "clip", high=0.28),
        PolicyGradient(gate=Clip(0.2, 0.28), aggregation=TokenMean()),
        0,
    ),
    "CISPO": (
        UnifiedGradient("old", "weight", high=0.3),
        PolicyGradient(gate=ClippedWeight(high=0.3), aggregation=TokenMean()),
        0,
    ),
}


@pytest.mark.parametrize("method", ROWS)
def test_a_row_of_the_table_has_the_gradient_of_the_method_s_own_loss(method):
    unified, own, advantage = ROWS[method]
    x, logp = batch()
    if advantage:
        x = x.replace(advantage=torch.full_like(x.advantage, advantage))
    torch.testing.assert_close(gradient(unified, x, logp), gradient(own, x, logp), rtol=1e-9, atol=1e-12)


def test_the_row_of_gspo_is_the_sequence_s_ratio_before_the_length_divides_it():
    # Per token GSPO's own gradient is the mean over the trajectory of what each token's surrogate gives, that is s A.
    x, logp = batch(0.05)
    x = x.replace(advantage=x.to_tokens(trajectory=torch.randn(6, generator=generator(1, "a"), dtype=torch.float64)))
    own = PolicyGradient(ratio=GeometricMeanRatio(), gate=Clip(0.02, 0.02), aggregation=SequenceMean())
    unified = UnifiedGradient("sequence", "clip", 0.02, 0.02, SequenceMean())
    found = gradient(unified, x, logp)
    torch.testing.assert_close(found, gradient(own, x, logp), rtol=1e-6, atol=1e-9)
    assert bool((found == 0).any())
    assert bool((found != 0).any())


def test_the_offline_rows_weigh_a_token_by_how_likely_it_is():
    x, logp = batch()
    coefficient, stable = UnifiedGradient("one", "none").coefficients(PolicyOutput(logp), x)
    torch.testing.assert_close(coefficient, logp.exp() * x.advantage)
    assert stable.tolist() == [1.0] * x.tokens
    unlikely = UnifiedGradient("one", "none").coefficients(PolicyOutput(logp - 20), x)[0]
    assert float(unlikely.abs().max()) < 1e-8


def test_coefficients_worked_by_hand():
    logp = torch.tensor([0.2]).log()
    x = Experience.from_lengths([1], [1], [1], old_logp=torch.tensor([0.25]).log(), advantage=torch.tensor([1.5]))
    out = PolicyOutput(logp)
    assert UnifiedGradient("old", "clip").coefficients(out, x)[0].item() == pytest.approx(1.2)
    assert UnifiedGradient("one", "none").coefficients(out, x)[0].item() == pytest.approx(0.3)
    sft = x.replace(advantage=torch.ones(1))
    assert UnifiedGradient("current", "none").coefficients(out, sft)[0].item() == 1.0
    # A trajectory of one token: the sequence's ratio is PPO's.
    assert UnifiedGradient("sequence", "clip").coefficients(out, x)[0].item() == pytest.approx(1.2)


def test_its_expectation_is_the_exact_gradient_of_a_bandit():
    # pi = (.6, .4), R = (1, 0): the gradient by the logit gap is p (1 - p) = .24.
    logits = torch.tensor([0.6, 0.4]).log().requires_grad_()
    x = Experience.from_lengths([1, 1], [1, 1], [2], advantage=torch.tensor([1.0, 0.0]))
    logp = torch.log_softmax(logits, 0)
    coefficient, _ = UnifiedGradient("current", "none").coefficients(PolicyOutput(logp), x)
    (logp.exp().detach() * coefficient * logp).sum().backward()
    assert (logits.grad[0] - logits.grad[1]).item() / 2 == pytest.approx(0.24)


def test_the_kl_to_the_demonstrator_has_the_gradient_of_supervision():
    demonstrator, logits = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, -0.3, 0.5], requires_grad=True)
    logp = torch.log_softmax(logits, 0)
    (divergence,) = torch.autograd.grad(-(demonstrator * (demonstrator.log() - logp)).sum(), logits, retain_graph=True)
    (supervised,) = torch.autograd.grad((demonstrator * logp).sum(), logits)
    torch.testing.assert_close(divergence, supervised)


def test_without_advantage_it_says_so():
    with pytest.raises(ValueError, match=r"needs x\.advantage"):
        UnifiedGradient()(PolicyOutput(torch.zeros(1)), Experience.from_lengths([1], [1], [1]))
