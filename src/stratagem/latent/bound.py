"""How well a chain of latent states explains the steps of a trace: exactly, and from below."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError

SMOOTHING = 1e-6
"""Least odds of a transition; what the model rules out may still be what the posterior says."""


def log_likelihood(
    emission: Float[Tensor, "steps states"],
    start: Float[Tensor, " states"],
    transition: Float[Tensor, "states states"],
) -> Float[Tensor, ""]:
    """``log p(x_1..T) = log sum over s_1..T of prod_t P(s_t | s_(t-1)) p(x_t | s_t)``, by the forward recursion.

    emission: ``log p(x_t | x_<t, s_t)`` for every state.  start: ``P(s_1)``.  transition: a row for every state before.
    0 for a trace without steps.
    """
    steps = _checked(emission, start, transition)
    if not steps:
        return emission.new_zeros(())
    forward = start.log() + emission[0]
    for step in range(1, steps):
        forward = torch.logsumexp(forward.unsqueeze(1) + transition.log(), 0) + emission[step]
    return torch.logsumexp(forward, 0)


def exact_posterior(
    emission: Float[Tensor, "steps states"],
    start: Float[Tensor, " states"],
    transition: Float[Tensor, "states states"],
) -> Float[Tensor, "steps states states"]:
    """``p(s_t | s_(t-1), x_1..T)`` by the backward recursion: with it for ``q`` the bound is the likelihood.

    Rows of the first step are all ``p(s_1 | x_1..T)``.
    """
    steps = _checked(emission, start, transition)
    ahead, rows = torch.zeros_like(start), []
    for step in range(steps - 1, -1, -1):
        before = transition if step else start.expand_as(transition)
        scores = before.log() + (emission[step] + ahead)
        rows.append(torch.softmax(scores, -1))
        ahead = torch.logsumexp(scores, -1)
    return torch.stack(rows[::-1]) if rows else emission.new_zeros(0, len(start), len(start))


def mean_field(posterior: Float[Tensor, "steps states"]) -> Float[Tensor, "steps states states"]:
    """``q(s_t | x_t)`` as :func:`elbo` takes it: the same whatever the state before."""
    return posterior.unsqueeze(1).expand(-1, posterior.shape[1], -1)


def elbo(
    emission: Float[Tensor, "steps states"],
    start: Float[Tensor, " states"],
    transition: Float[Tensor, "states states"],
    posterior: Float[Tensor, "steps states states"],
    smoothing: float = SMOOTHING,
) -> Float[Tensor, ""]:
    """``sum_t E_q[log p(x_t | x_<t, s_t)] - sum_t E_q[KL(q(s_t | s_(t-1), x) || P(s_t | s_(t-1)))]``.

    Never above :func:`log_likelihood`, up to the smoothing, and equal to it for :func:`exact_posterior`. A trace
    without steps has none: 0. It is differentiable in all arguments. The formula of arXiv 2507.08182 was not
    available; this is the usual bound of a hidden Markov chain, which its abstract describes.

    posterior: ``q(s_t | s_(t-1), x)``, a row for every state before; see :func:`mean_field`.
    smoothing: least odds of a transition; 0 for none.
    """
    steps = _checked(emission, start, transition)
    if tuple(posterior.shape) != (steps, len(start), len(start)):
        raise InputError(f"elbo: posterior has shape {tuple(posterior.shape)}: must be (steps, states, states)")
    bound = emission.new_zeros(())
    held = torch.ones_like(start) / len(start)
    for step in range(steps):
        q, prior = posterior[step], (transition if step else start.expand_as(transition))
        divergence = (torch.special.xlogy(q, q) - torch.special.xlogy(q, prior.clamp(min=smoothing))).sum(-1)
        after = held @ q
        explained = torch.where(after > 0, after * emission[step], 0.0).sum()
        bound = bound + explained - (held * divergence).sum()
        held = after
    return bound


def _checked(emission: Tensor, start: Tensor, transition: Tensor) -> int:
    states = len(start)
    if emission.ndim != 2 or emission.shape[1] != states or tuple(transition.shape) != (states, states):
        raise InputError(
            f"latent states: emission has shape {tuple(emission.shape)}, start {tuple(start.shape)} and transition "
            f"{tuple(transition.shape)}: must be (steps, states), (states,) and (states, states)"
        )
    return len(emission)
