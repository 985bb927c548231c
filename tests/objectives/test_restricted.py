"""Sums of losses, and losses on a part of the batch."""

from __future__ import annotations

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import LogLikelihood, PolicyGradient, Restricted, SequenceMean, TokenMean
from stratagem.parts import Objective

LIKELIHOOD = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())


def batch(**fields) -> Experience:
    """A rollout of two tokens, a demonstration of one, a rollout of three."""
    given = {"demonstrated": [False, True, False], "advantage": torch.tensor([1.0, 2, 3, 4, 5, 6])}
    return Experience.from_lengths([2, 1, 3], [1, 1, 1], [3], **(given | fields))


def gradient(objective: Objective, x: Experience) -> list[float]:
    logp = torch.full((x.tokens,), -1.0, requires_grad=True)
    objective(PolicyOutput(logp), x).loss.backward()
    return logp.grad.tolist()


def test_normalisers_see_nothing_but_the_part():
    # Five tokens of rollouts, one of a demonstration.
    assert gradient(Restricted(LIKELIHOOD, "rollouts"), batch()) == pytest.approx([-0.2, -0.4, 0, -0.8, -1.0, -1.2])
    assert gradient(Restricted(LIKELIHOOD, "demonstrations"), batch()) == [0, 0, -3.0, 0, 0, 0]


def test_latents_are_tokens_that_are_marked_so():
    latent = torch.tensor([False, True, False, True, False, False])
    assert gradient(Restricted(LIKELIHOOD, "latents"), batch(latent=latent)) == [0, -1.0, 0, -2.0, 0, 0]
    assert gradient(Restricted(LIKELIHOOD, "tokens"), batch(latent=latent)) == [-0.25, 0, -0.75, 0, -1.25, -1.5]


def test_a_batch_that_does_not_tell_is_all_rollouts_and_all_tokens():
    plain = batch(demonstrated=None)
    for share in ("rollouts", "tokens"):
        assert gradient(Restricted(LIKELIHOOD, share), plain) == gradient(LIKELIHOOD, plain)
    for share in ("demonstrations", "latents"):
        assert gradient(Restricted(LIKELIHOOD, share), plain) == [0.0] * 6
        assert not Restricted(LIKELIHOOD, share).has_signal(plain)


def test_what_may_not_train_stays_out():
    mask = torch.tensor([True, False, True, True, True, True])
    assert gradient(Restricted(LIKELIHOOD, "rollouts"), batch(mask=mask)) == [-0.25, 0, 0, -1.0, -1.25, -1.5]


def test_pieces_add_up_to_the_whole():
    x = batch()
    mixed = Restricted(LIKELIHOOD, "rollouts") + 0.5 * Restricted(
        PolicyGradient(gate=LogLikelihood(), aggregation=SequenceMean()), "demonstrations"
    )
    pieces = [x.microbatch(torch.tensor(rows)) for rows in ([0], [1, 2])]
    found = [value for piece in pieces for value in gradient(mixed, piece)]
    assert found == pytest.approx(gradient(mixed, x))


def test_sums_and_multiples_of_losses():
    x, out = batch(), PolicyOutput(torch.full((6,), -1.0))
    one, other = Restricted(LIKELIHOOD, "rollouts"), Restricted(LIKELIHOOD, "demonstrations")
    both = one + 2.0 * other
    assert both(out, x).loss == one(out, x).loss + 2 * other(out, x).loss
    metrics = both(out, x).metrics
    assert metrics["policy_loss"] == one(out, x).loss
    assert metrics["demonstrations/policy_loss"] == other(out, x).loss
    twice = (LIKELIHOOD + LIKELIHOOD)(out, x)
    assert twice.metrics["policy_loss"] == twice.metrics["policy_gradient_1/policy_loss"]
    assert (one + other + one).terms == (one, other, one)
    assert not (0.0 * one).has_signal(x)
    assert (0.0 * one + other).has_signal(x)
