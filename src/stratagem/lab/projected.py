"""A table whose policy is projected on the tokens that are allowed, so that it is what acts and what learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.blueprint.constraints import holds
from stratagem.blueprint.projection import entropy
from stratagem.distribution import OF_ACTIONS
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.policy import NodeInputs, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.parts import View
from stratagem.training.world import check_asked


def allowed_tokens(tree: Tree, predicate: Callable[[Any, int], bool]) -> Bool[Tensor, "nodes vocabulary"]:
    """Of every decision node, which tokens are allowed. One for which the predicate raises is not.

    predicate: of the state in which the node's turn began and the token; it says ``True`` for what is allowed.
    """
    return torch.tensor(
        [[holds(predicate, state, token)[0] for token in range(tree.game.vocabulary)] for state in tree.states]
    )


class ProjectedPolicy(TabularPolicy):
    """``pi'(a | n) = pi(a | n) 1[a allowed in n] / pi(allowed | n)``, ``pi`` the softmax of ``logits / temperature``.

    The policy that acts, of which log-probabilities and entropies are said, and whose gradient is followed is ``pi'``:
    a recipe trained on it needs no correction, and what is forbidden has probability 0 at every temperature, before,
    while and after it learns. Logits of what is forbidden have no gradient.

    logits: [nodes, vocabulary].  allowed: of the same shape.  null: token that is taken where nothing is allowed.

    It is asked in no view, and says no figure in which a logarithm of 0 would stand.
    """

    kind: ClassVar[str] = "projected"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value", "median", *OF_ACTIONS})
    views: ClassVar[tuple[type[View], ...]] = ()

    allowed: Tensor

    def __init__(
        self, logits: Float[Tensor, "nodes vocabulary"], allowed: Bool[Tensor, "nodes vocabulary"], null: int = 0
    ) -> None:
        super().__init__(logits)
        if allowed.shape != logits.shape or not 0 <= null < logits.shape[1]:
            raise InputError(
                f"projected policy: allowed {list(allowed.shape)} and null = {null} do not fit {list(logits.shape)}"
            )
        usable = allowed.clone()
        usable[~allowed.any(-1), null] = True
        self.register_buffer("allowed", usable)

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """As every policy of the lab. A token that is not allowed has log-probability -inf and no gradient."""
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs):
            raise ValueError(f"a projected policy reads NodeInputs, not {type(x.inputs).__name__}")
        node = x.inputs.node
        logits = torch.where(self.allowed, self.logits, -torch.inf) / temperature
        out = self.say(x, logits, node, set(also) - {"entropy"})
        if "entropy" not in also:
            return out
        return dataclasses.replace(out, entropy=entropy(torch.log_softmax(logits, -1))[node])

    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """The logits, -inf where a token is not allowed."""
        return torch.where(self.allowed, self.logits, -torch.inf).detach()
