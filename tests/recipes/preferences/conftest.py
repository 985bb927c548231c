"""Batches in which every answer is as frequent as the policy makes it: sums over them are expectations."""

from __future__ import annotations

import torch
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Preference
from stratagem.preferences.oracles import table
from stratagem.recipe import Recipe


def oracle(wins: Tensor) -> Preference:
    """The oracle of a game whose responses are the answers 0, 1, 2, ..."""
    return table(range(len(wins)), wins)


def expected_batch(policy: Tensor, reference: Tensor, copies: int = 10) -> Experience:
    """One group of one-token answers, ``copies`` in all, each as often as ``policy`` gives it."""
    counts = (policy * copies).round().long()
    assert torch.allclose(counts.double() / copies, policy), "copies must make whole counts"
    action = torch.repeat_interleave(torch.arange(len(policy)), counts)
    ones = torch.ones(copies, dtype=torch.int64)
    return Experience.from_lengths(
        ones,
        ones,
        [copies],
        action=action,
        answer=action,
        reward=torch.zeros(copies, dtype=torch.float64),
        seed=1009 * torch.arange(copies),
        behavior_logp=policy.log()[action],
        old_logp=policy.log()[action],
        ref_logp=reference.log()[action],
    )


def loss_of(recipe: Recipe, x: Experience, logp: Tensor) -> Tensor:
    """The recipe's loss when the policy is the table ``logp``."""
    assert x.action is not None
    return recipe.objective(PolicyOutput(logp=logp[x.action]), recipe.prepare(x)).loss


def gradient(recipe: Recipe, x: Experience, logits: Tensor) -> Tensor:
    """Of that loss by the logits."""
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss_of(recipe, x, torch.log_softmax(logits, -1)), logits)[0]
