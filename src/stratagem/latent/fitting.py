"""Stage 1: transitions of latent states fitted to traces that solved their question, by the variational bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.latent.bound import SMOOTHING
from stratagem.latent.transitions import DirichletPolicy


@dataclass(frozen=True, eq=False)
class Trace:
    """A solved trace as the transitions see it.

    first: kind of node of the policy before the first step.  after: kind of node after a step in each latent state.
    posterior: ``q(s_t | x_t)``, one row for each step (:meth:`~stratagem.latent.LatentStates.posterior`).
    """

    first: int
    after: Int[Tensor, " states"]
    posterior: Float[Tensor, "steps states"]


def expected_transitions(traces: Sequence[Trace], kinds: int, states: int) -> Float[Tensor, "kinds states"]:
    """``N(n, k) = sum_t q(in n before step t) q(s_t = k)`` over all traces: all that the bound says of transitions.

    ``sum N log P`` is the bound up to what the transitions have no part in. Traces without steps add nothing.
    """
    counts = torch.zeros(kinds, states, dtype=torch.float64)
    for trace in traces:
        q = trace.posterior.double()
        if not len(q):
            continue
        counts[trace.first] += q[0]
        counts.index_add_(0, trace.after, q[:-1].T @ q[1:])
    return counts


def fit(policy: DirichletPolicy, traces: Sequence[Trace], steps: int = 200, learning_rate: float = 0.05) -> float:
    """Raise the bound over the transitions, in place, by Adam; returns ``sum N log P / sum N`` in the end.

    Where the traces never were, the transitions stay as they are. The language model has no part in it.

    Raises :class:`InputError` for traces without a single step.
    """
    kinds, states = policy.logits.shape
    counts = expected_transitions(traces, kinds, states).to(policy.logits)
    total = counts.sum()
    if not total > 0:
        raise InputError("latent transitions: no trace has a step to fit them to")
    optimizer = torch.optim.Adam([policy.logits], lr=learning_rate)

    def explained() -> Tensor:
        return (counts * policy.mean().clamp(min=SMOOTHING).log()).sum() / total

    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        (-explained()).backward()
        optimizer.step()
    with torch.no_grad():
        return float(explained())
