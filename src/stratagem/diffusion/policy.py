"""A small bidirectional transformer that predicts masked tokens, and what it says of the answers in a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from stratagem.diffusion.inputs import DiffusionInputs
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import View
from stratagem.seeding import derive
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import check_asked


@dataclass(frozen=True)
class Shape:
    """Size of the network.

    vocabulary: tokens it can say; the mask is one more, with the number ``vocabulary``.  positions: of the canvas,
    prompt and answer.  width: of the hidden states, a multiple of ``heads``.  layers, heads: at least 1.

    Raises :class:`InputError` for a number out of range.
    """

    vocabulary: int
    positions: int
    width: int = 32
    layers: int = 2
    heads: int = 2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise InputError(f"diffusion policy: {name} = {value}: must be at least 1")
        if self.width % self.heads:
            raise InputError(f"diffusion policy: width = {self.width}: must be a multiple of heads, {self.heads}")


class DiffusionPolicy(ModulePolicy):
    """``pi(y_i | view)``: a prediction for every masked token at once, from all tokens that are not masked.

    The network is not told how much is masked; it sees it. ``logp`` of a token is its share of the estimated
    log-likelihood, ``sum_v weight_v 1[hidden in v] log pi(y_i | view v)``, so that the shares of an answer add up to
    the estimate. A critic reads the prompt alone, the answer masked, and starts at 0.

    seed: of the initial weights.
    """

    kind: ClassVar[str] = "diffusion"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value"})

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            self.token = nn.Embedding(shape.vocabulary + 1, shape.width)
            self.position = nn.Parameter(torch.randn(shape.positions, shape.width))
            self.blocks = nn.ModuleList(_Block(shape.width, shape.heads) for _ in range(shape.layers))
            self.norm = nn.LayerNorm(shape.width)
            self.head = nn.Linear(shape.width, shape.vocabulary)
            self.critic = nn.Linear(shape.width, 1)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    # ---- what it says ----------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Share of every answer token in its answer's log-likelihood, and ``also`` what ``says`` lists.

        ``entropy`` is weighted and summed over masked canvases as ``logp`` is. Raises ``ValueError`` when the inputs
        are not :class:`DiffusionInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, DiffusionInputs):
            raise ValueError(f"a diffusion policy reads DiffusionInputs, not {type(x.inputs).__name__}")
        logp, entropies = self._shares(x.inputs, temperature, "entropy" in also)
        return PolicyOutput(logp, entropies, self._values(x.inputs) if "value" in also else None)

    @property
    def mask(self) -> int:
        """The mask token."""
        return self.shape.vocabulary

    def logits(self, tokens: Int[Tensor, "rows positions"]) -> Float[Tensor, "rows positions vocabulary"]:
        """Of every token at every position."""
        said: Tensor = self.head(self._hidden(tokens))
        return said

    def token_logp(
        self, inputs: DiffusionInputs, temperature: float = 1.0
    ) -> Float[Tensor, "trajectories views positions"]:
        """``log pi(y_i | view)`` of the answer's tokens hidden in each view; 0 elsewhere."""
        return self._judged(inputs, temperature, False)[0]

    def _shares(self, inputs: DiffusionInputs, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        logp, entropies = self._judged(inputs, temperature, entropy)
        weight = inputs.weight.unsqueeze(-1)
        shares = (weight * logp).sum(1)[inputs.response]
        return shares, None if entropies is None else (weight * entropies).sum(1)[inputs.response]

    def _judged(self, inputs: DiffusionInputs, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        shown = inputs.tokens.unsqueeze(1).expand_as(inputs.hidden).masked_fill(inputs.hidden, self.mask)
        scored = inputs.hidden & inputs.response.unsqueeze(1)
        logp = torch.log_softmax(self.logits(shown.flatten(0, 1)) / temperature, -1)
        # Positions after the end hold the mask token, which has no probability; they are not scored.
        target = inputs.tokens.clamp(max=self.mask - 1).unsqueeze(1).expand_as(shown)
        chosen = logp.gather(-1, target.flatten(0, 1).unsqueeze(-1)).view(shown.shape)
        judged = torch.where(scored, chosen, 0.0)
        if not entropy:
            return judged, None
        return judged, torch.where(scored, -(logp.exp() * logp).sum(-1).view(shown.shape), 0.0)

    def _values(self, inputs: DiffusionInputs) -> Float[Tensor, " tokens"]:
        """The critic's value of the prompt, for every token of the answer."""
        hidden = self._hidden(inputs.tokens.masked_fill(inputs.response, self.mask))
        value: Tensor = self.critic(hidden.mean(1)).squeeze(-1)
        return value.repeat_interleave(inputs.response.sum(1))

    def _hidden(self, tokens: Tensor) -> Tensor:
        hidden = self.token(tokens) + self.position
        for block in self.blocks:
            hidden = block(hidden)
        normed: Tensor = self.norm(hidden)
        return normed

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        """Everything but the critic's last layer."""
        return (parameter for name, parameter in self.named_parameters() if not name.startswith("critic."))

    def critic_parameters(self) -> Iterator[Tensor]:
        """The critic's last layer."""
        return self.critic.parameters()

    def hidden_matrices(self) -> list[Tensor]:
        """Weights of the blocks' linear layers; queries, keys and values are one matrix."""
        return [layer.weight for layer in self.blocks.modules() if isinstance(layer, nn.Linear)]

    def arguments(self) -> dict[str, int]:
        """Its shape."""
        return dataclasses.asdict(self.shape)

    @staticmethod
    def from_directory(directory: str | Path) -> DiffusionPolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        builders = {DiffusionPolicy.kind: lambda **shape: DiffusionPolicy(Shape(**shape))}
        return read_policy(directory, "diffusion policy", builders)


class _Block(nn.Module):
    """Attention in both directions and a perceptron, each on normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        read = self.read(self.before_attention(hidden)).unflatten(-1, (3, self.heads, -1))
        query, key, value = read.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.write(mixed.transpose(1, 2).flatten(-2))
        added: Tensor = hidden + self.perceptron(self.before_perceptron(hidden))
        return added
