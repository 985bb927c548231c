"""A softmax for every decision node of a tree, and a value beside it: the policy that knows no generalisation."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stratagem.distribution import OF_ACTIONS
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.partition import rows_of
from stratagem.parts import View
from stratagem.training.run_directory import whole_directory
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


class TabularPolicy(nn.Module):
    """``pi(a | n) = softmax(logits[n] / temperature)_a``, and a critic: ``values[n]`` and ``medians[n]`` of the return.

    logits: float [nodes, vocabulary], where learning starts. The critic starts at 0. As an output layer it reads which
    node it is at: ``hidden`` is that, one column for each node.
    """

    says: ClassVar[frozenset[str]] = frozenset(
        {"entropy", "value", "median", "mean_logp", "hidden", "hidden_square", *OF_ACTIONS}
    )
    views: ClassVar[tuple[type[View], ...]] = ()

    def __init__(self, logits: Float[Tensor, "nodes vocabulary"]) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().float().clone())
        self.values = nn.Parameter(torch.zeros(len(logits)))
        self.medians = nn.Parameter(torch.zeros(len(logits)))

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs) or x.action is None:
            raise ValueError(f"a tabular policy reads NodeInputs and actions, not {type(x.inputs).__name__}")
        node, logp = x.inputs.node, torch.log_softmax(self.logits / temperature, -1)
        return PolicyOutput(
            logp[node, x.action],
            torch.special.entr(logp.exp()).sum(-1)[node] if "entropy" in also else None,
            self.values[node] if "value" in also else None,
            self.medians[node] if "median" in also else None,
            logp.mean(-1)[node] if "mean_logp" in also else None,
            **self._without_gradient(node, logp.detach(), x.action, temperature, also),
        )

    def _without_gradient(
        self, node: Tensor, logp: Tensor, action: Tensor, temperature: float, also: Collection[str]
    ) -> dict[str, Tensor]:
        said = {name: figure(logp[node], action) for name, figure in OF_ACTIONS.items() if name in also}
        if "hidden" in also:
            said["hidden"] = torch.nn.functional.one_hot(node, len(logp)).to(logp.dtype) / temperature
        if "hidden_square" in also:
            said["hidden_square"] = torch.full_like(logp[node, action], temperature**-2)
        return said

    @property
    def device(self) -> torch.device:
        """Where the table lives."""
        return self.logits.device

    def policy_parameters(self) -> Iterator[Tensor]:
        """The logits."""
        yield self.logits

    def critic_parameters(self) -> Iterator[Tensor]:
        """Values and medians."""
        yield from (self.values, self.medians)

    def hidden_matrices(self) -> tuple[Tensor, ...]:
        """None: a table is looked up and maps nothing."""
        return ()

    def frozen(self) -> Self:
        """A copy that no longer moves."""
        return self.copy()

    def copy(self) -> Self:
        """A copy that no longer moves."""
        return copy.deepcopy(self).requires_grad_(False)

    def save(self, directory: Path, card: str) -> None:
        """Write ``policy.safetensors``, ``policy.json`` and the card as ``README.md``, all or nothing."""
        nodes, vocabulary = self.logits.shape
        with whole_directory(directory) as temporary:
            save_file(self.state_dict(), temporary / "policy.safetensors")
            shape = {"kind": "tabular", "nodes": nodes, "vocabulary": vocabulary}
            (temporary / "policy.json").write_text(json.dumps(shape) + "\n", encoding="utf-8")
            (temporary / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def from_directory(cls, directory: str | Path) -> Self:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        try:
            tensors = load_file(Path(directory) / "policy.safetensors")
            policy = cls(tensors["logits"])
            policy.load_state_dict(tensors)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"policy {directory}: no readable tabular policy ({type(error).__name__})") from None
        return policy
