"""Policies on the decision nodes of a tree; the first is a softmax for every node, which knows no generalisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.distribution import OF_ACTIONS
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.routing import RoutingReplay
from stratagem.objectives.views import Perturbed
from stratagem.partition import rows_of
from stratagem.parts import View
from stratagem.training.heads import Table
from stratagem.training.module_policy import ModulePolicy
from stratagem.training.noise import fresh_seed, with_noise
from stratagem.training.world import check_asked


@dataclass(frozen=True, eq=False)
class NodeInputs:
    """The decision node of every token, trajectory after trajectory.

    lengths: tokens per trajectory.
    """

    node: Int[Tensor, " tokens"]
    lengths: Int[Tensor, " trajectories"]

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        return type(self)(self.node[rows_of(self.lengths, trajectories)], self.lengths[trajectories])

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        return type(self)(torch.cat([piece.node for piece in pieces]), torch.cat([piece.lengths for piece in pieces]))

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(self.node.to(device), self.lengths.to(device))


class NodePolicy(ModulePolicy):
    """A policy that acts in decision nodes, and a critic: ``values[n]`` and ``medians[n]`` of the return, first 0.

    It has one layer, of which the input can be perturbed, for every token on its own.
    """

    says: ClassVar[frozenset[str]] = frozenset(
        {
            "entropy",
            "value",
            "median",
            "mean_logp",
            "log_probs",
            "hidden",
            "hidden_square",
            "before",
            "after",
            *OF_ACTIONS,
        }
    )
    views: ClassVar[tuple[type[View], ...]] = (RoutingReplay, Perturbed)

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(nodes))
        self.medians = nn.Parameter(torch.zeros(nodes))
        self.log_noise: nn.Parameter | None = None

    @abstractmethod
    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """

    @abstractmethod
    def policy_parameters(self) -> Iterator[Tensor]:
        """All that is trained but the critic."""

    @abstractmethod
    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """What it says in every node: logits, without gradient, that do not change when the policy does."""

    def routes(self) -> Int[Tensor, "nodes active"] | None:
        """The experts it would choose in every node; None for a dense policy."""
        return None

    def critic_parameters(self) -> Iterator[Tensor]:
        """Values and medians."""
        yield from (self.values, self.medians)

    def hidden_matrices(self) -> list[Tensor]:
        """Weights of linear maps between hidden features; a table is looked up and maps nothing."""
        return []

    def view_parameters(self, view: View | None) -> list[nn.Parameter]:
        """Of a perturbation, ``log sigma`` [1], made when first asked for; of other views, nothing."""
        if not isinstance(view, Perturbed):
            return []
        if self.log_noise is None:
            self.log_noise = nn.Parameter(torch.full((1,), view.initial, device=self.device).log())
        return [self.log_noise]

    def perturbed(self, signal: Float[Tensor, "tokens width"], view: Perturbed) -> Float[Tensor, "tokens width"]:
        """What the layer reads, under noise. Raises :class:`InputError` for layers there are not."""
        if view.layers not in (None, (1,)):
            raise InputError(f"perturbed.layers = {view.layers}: this policy has one layer")
        [log_scale] = self.view_parameters(view)
        return with_noise(signal, log_scale[0], view.largest, fresh_seed())

    def say(
        self,
        x: Experience,
        logits: Float[Tensor, "rows vocabulary"],
        row: Int[Tensor, " tokens"],
        also: Collection[str],
        **further: Tensor | None,
    ) -> PolicyOutput:
        """What is said of tokens, given logits and the row of them that is each token's; ``further`` is said as is."""
        assert isinstance(x.inputs, NodeInputs) and x.action is not None
        node, logp = x.inputs.node, torch.log_softmax(logits, -1)
        return PolicyOutput(
            logp[row, x.action],
            torch.special.entr(logp.exp()).sum(-1)[row] if "entropy" in also else None,
            self.values[node] if "value" in also else None,
            self.medians[node] if "median" in also else None,
            logp.mean(-1)[row] if "mean_logp" in also else None,
            before=node if "before" in also else None,
            after=node * logits.shape[1] + x.action if "after" in also else None,
            log_probs=logp[row] if "log_probs" in also else None,
            **{name: figure(logp.detach()[row], x.action) for name, figure in OF_ACTIONS.items() if name in also},
            **further,
        )

    def head(self, place: Literal["before", "after"], hidden: int, source: torch.Generator) -> Table:
        """A table, with a row for every node, or for every node and token; it has no layers to be ``hidden``."""
        nodes, vocabulary = self.table().shape
        return Table(nodes if place == "before" else nodes * vocabulary)

    def weights(self) -> dict[str, Tensor]:
        """All that was learned but the width of a noise."""
        return {name: tensor for name, tensor in self.state_dict().items() if name != "log_noise"}


class TabularPolicy(NodePolicy):
    """``pi(a | n) = softmax(logits[n] / temperature)_a``.

    logits: float [nodes, vocabulary], where learning starts. Perturbed, noise is added to the logits. As an output
    layer it reads which node it is at: ``hidden`` is that, one column for each node.
    """

    kind: ClassVar[str] = "tabular"

    def __init__(self, logits: Float[Tensor, "nodes vocabulary"]) -> None:
        super().__init__(len(logits))
        self.logits = nn.Parameter(logits.detach().float().clone())

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs) or x.action is None:
            raise ValueError(f"a tabular policy reads NodeInputs and actions, not {type(x.inputs).__name__}")
        node, hidden, square = x.inputs.node, None, None
        if "hidden" in also:
            hidden = torch.nn.functional.one_hot(node, len(self.logits)).float() / temperature
        if "hidden_square" in also:
            square = torch.full(node.shape, temperature**-2, device=self.device)
        if isinstance(view, Perturbed) and torch.is_grad_enabled():
            logits, row = self.perturbed(self.logits[node], view), torch.arange(len(node), device=self.device)
        else:
            logits, row = self.logits, node
        return self.say(x, logits / temperature, row, also, hidden=hidden, hidden_square=square)

    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """The logits."""
        return self.logits.detach().clone()

    def policy_parameters(self) -> Iterator[Tensor]:
        """The logits."""
        yield self.logits

    def arguments(self) -> dict[str, int]:
        """Sizes."""
        nodes, vocabulary = self.logits.shape
        return {"nodes": nodes, "vocabulary": vocabulary}


class SharedPolicy(NodePolicy):
    """A softmax for every kind of node: nodes that look alike to who acts there share their logits.

    row: kind of every node.  logits: float [kinds, vocabulary], where learning starts.
    """

    kind: ClassVar[str] = "shared"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value", "median", "mean_logp"})
    views: ClassVar[tuple[type[View], ...]] = ()

    row: Int[Tensor, " nodes"]

    def __init__(self, row: Int[Tensor, " nodes"], logits: Float[Tensor, "kinds vocabulary"]) -> None:
        super().__init__(len(row))
        self.register_buffer("row", row)
        self.logits = nn.Parameter(logits.detach().float().clone())

    @classmethod
    def uniform(cls, states: Sequence[object], vocabulary: int, seen: Callable[[Any], Hashable]) -> Self:
        """A uniform policy in which states share logits that are ``seen`` as the same.

        For games whose turns are of one token: it does not tell apart where in a turn it is.
        """
        kinds: dict[Hashable, int] = {}
        row = torch.tensor([kinds.setdefault(seen(state), len(kinds)) for state in states])
        return cls(row, torch.zeros(len(kinds), vocabulary))

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs):
            raise ValueError(f"a shared policy reads NodeInputs, not {type(x.inputs).__name__}")
        return self.say(x, self.logits / temperature, self.row[x.inputs.node], also)

    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """The logits of every node."""
        return self.logits.detach()[self.row]

    def policy_parameters(self) -> Iterator[Tensor]:
        """The logits."""
        yield self.logits

    def arguments(self) -> dict[str, int]:
        """Sizes."""
        kinds, vocabulary = self.logits.shape
        return {"nodes": len(self.row), "kinds": kinds, "vocabulary": vocabulary}
