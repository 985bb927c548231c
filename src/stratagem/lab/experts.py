"""A mixture of experts small enough for the lab, whose routing can be recorded and replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.policy import NodeInputs, NodePolicy, TabularPolicy
from stratagem.lab.routing import CardPolicy
from stratagem.objectives.routing import RoutingReplay
from stratagem.objectives.views import Perturbed
from stratagem.parts import View
from stratagem.seeding import generator
from stratagem.training.module_policy import read_policy
from stratagem.training.world import check_asked


class ExpertsPolicy(NodePolicy):
    """``logits[n] = U sum_{e in top(n)} g_e tanh(W_e f_n)``.

    ``f_n`` is a fixed random vector for every node, so that what is learned in one node changes others. The router
    scores the experts, ``R f_n``; ``top(n)`` are the ``active`` ones of the highest scores, ``g`` is the softmax of
    theirs. Perturbed, noise is added to ``f_n``, which experts and router read; ``hidden`` is what ``U`` multiplies.

    nodes, vocabulary: of the game.  experts: in all.  active: per token.  width: of ``f_n``.  seed: of all initial
    weights and of ``f``.  spread: scale of the initial logits, about their standard deviation.

    Raises :class:`InputError` for a number out of range.
    """

    kind: ClassVar[str] = "experts"
    says: ClassVar[frozenset[str]] = NodePolicy.says | {"experts"}

    def __init__(
        self,
        nodes: int,
        vocabulary: int,
        experts: int = 4,
        active: int = 2,
        width: int = 16,
        seed: int = 0,
        spread: float = 1.0,
    ) -> None:
        if not 1 <= active <= experts or width < 1:
            raise InputError(
                f"experts policy: active = {active}, experts = {experts}, width = {width}: "
                "needs 1 <= active <= experts and width >= 1"
            )
        super().__init__(nodes)
        self.active = active
        source = generator(seed, "experts")

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(shape, generator=source)

        narrow = 1 / math.sqrt(width)
        self.features: Tensor
        self.register_buffer("features", normal(nodes, width))
        self.router = nn.Parameter(normal(width, experts, scale=narrow))
        self.experts = nn.Parameter(normal(experts, width, width, scale=narrow))
        # Of a mean of two tanh of standard normal numbers, width squares add up to about width / 5.
        self.unembedding = nn.Parameter(normal(width, vocabulary, scale=spread * narrow * math.sqrt(5)))

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Under a :class:`RoutingReplay` the experts are those of ``x.experts`` where they are recorded. Raises
        ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say and for
        records of another number of experts.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs) or x.action is None:
            raise ValueError(f"an experts policy reads NodeInputs and actions, not {type(x.inputs).__name__}")
        features = self.features[x.inputs.node]
        if isinstance(view, Perturbed) and torch.is_grad_enabled():
            features = self.perturbed(features, view)
        mixed, chosen = self._mixed(features, x.experts if isinstance(view, RoutingReplay) else None)
        hidden = mixed.detach() / temperature
        return self.say(
            x,
            mixed @ self.unembedding / temperature,
            torch.arange(len(mixed), device=self.device),
            also,
            experts=chosen if "experts" in also else None,
            hidden=hidden if "hidden" in also else None,
            hidden_square=hidden.square().sum(1) if "hidden_square" in also else None,
        )

    def _mixed(
        self, features: Float[Tensor, "rows width"], record: Int[Tensor, "rows active"] | None
    ) -> tuple[Float[Tensor, "rows width"], Int[Tensor, "rows active"]]:
        """What the chosen experts say together, and which they are."""
        scores = features @ self.router
        chosen = scores.detach().topk(self.active).indices
        if record is not None:
            chosen = torch.where(self._checked(record), record, chosen)
        weights = scores.gather(1, chosen).softmax(-1)
        said = torch.einsum("rw,ewh->reh", features, self.experts).tanh()
        return (weights.unsqueeze(-1) * said.take_along_dim(chosen.unsqueeze(-1), 1)).sum(1), chosen

    def _checked(self, record: Tensor) -> Tensor:
        """Rows of a record that are complete, as a column. Raises :class:`InputError` for one of another policy."""
        experts = len(self.experts)
        if record.ndim != 2 or record.shape[1] != self.active or bool((record >= experts).any()):
            raise InputError(
                f"routing replay: a record of shape {tuple(record.shape)} with experts up to "
                f"{int(record.max()) if record.numel() else -1} does not fit {self.active} of {experts} experts"
            )
        return (record >= 0).all(1, keepdim=True)

    @torch.no_grad()
    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """The logits of every node."""
        return self._mixed(self.features, None)[0] @ self.unembedding

    @torch.no_grad()
    def routes(self) -> Int[Tensor, "nodes active"]:
        """The experts of every node."""
        return self._mixed(self.features, None)[1]

    def policy_parameters(self) -> Iterator[Tensor]:
        """Router, experts and unembedding."""
        yield from (self.router, self.experts, self.unembedding)

    def arguments(self) -> dict[str, int]:
        """Sizes."""
        nodes, width = self.features.shape
        experts, vocabulary = len(self.experts), self.unembedding.shape[1]
        return {"nodes": nodes, "vocabulary": vocabulary, "experts": experts, "active": self.active, "width": width}


def read_node_policy(directory: str | Path) -> NodePolicy:
    """A saved policy of the lab, of whichever kind. Raises :class:`InputError` when there is none."""
    builders: dict[str, Callable[..., NodePolicy]] = {
        TabularPolicy.kind: lambda nodes, vocabulary: TabularPolicy(torch.zeros(nodes, vocabulary)),
        ExpertsPolicy.kind: ExpertsPolicy,
        CardPolicy.kind: CardPolicy.blank,
    }
    return read_policy(directory, "policy of the lab", builders)
