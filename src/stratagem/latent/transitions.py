"""A policy over latent states: which state comes next is drawn from a distribution that is itself uncertain."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.policy import NodeInputs, SharedPolicy
from stratagem.parts import View
from stratagem.training.world import check_asked

LEAST, MOST = 1e-3, 1e3
"""Bounds of a concentration."""


class DirichletPolicy(SharedPolicy):
    """``a ~ Dirichlet(alpha(s))``, then the next latent state ``~ a``: ``P(k | s) = alpha_k / alpha_0``.

    The distribution ``a`` is the action of arXiv 2507.08182; how it is parametrised was not available, and this is a
    reconstruction. The total ``alpha_0`` says how sure the policy is of its distribution, which learning from drawn
    states alone cannot tell: their odds are those of the mean. It is ``alpha = softplus(logits)``, within [1e-3, 1e3].

    row: which nodes see the same state.  logits: float [kinds of nodes, latent states], where learning starts.
    """

    kind: ClassVar[str] = "dirichlet"

    def concentration(self) -> Float[Tensor, "kinds states"]:
        """``alpha``, with gradient."""
        return torch.nn.functional.softplus(self.logits).clamp(LEAST, MOST)

    def mean(self) -> Float[Tensor, "kinds states"]:
        """``P(k | s)``, with gradient."""
        alpha: Tensor = self.concentration()
        return alpha / alpha.sum(-1, keepdim=True)

    def uncertainty(self) -> Float[Tensor, " kinds"]:
        """Total variance of ``a``: ``sum_k P_k (1 - P_k) / (alpha_0 + 1)``."""
        alpha, mean = self.concentration(), self.mean()
        return (mean * (1 - mean)).sum(-1) / (alpha.sum(-1) + 1)

    def sample(self, kinds: Int[Tensor, " many"], source: torch.Generator) -> Int[Tensor, " many"]:
        """Next states from these kinds of nodes, each by a distribution drawn for it alone."""
        alpha = self.concentration().detach()[kinds]
        weights = torch._standard_gamma(alpha, generator=source)
        # All gammas of small concentrations may vanish; the limit is then a draw by the mean.
        weights = torch.where(weights.sum(-1, keepdim=True) > 0, weights, alpha)
        return torch.multinomial(weights, 1, generator=source).squeeze(-1)

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """``log P`` of every token of ``x``, which is a latent state; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs):
            raise ValueError(f"a dirichlet policy reads NodeInputs, not {type(x.inputs).__name__}")
        return self.say(x, self.concentration().log() / temperature, self.row[x.inputs.node], also)

    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """``log alpha`` in every node: logits of the mean."""
        return self.concentration().detach().log()[self.row]
