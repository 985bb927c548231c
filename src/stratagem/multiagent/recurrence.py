"""What agents remember from turn to turn: a GRU before the last layer of a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from stratagem.partition import Partition

RecurrenceName = Literal["none", "gru"]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Trajectories of turns, one behind another, as recurrent networks read them: all side by side, without padding.

    lengths: turns of each, at least 1.  begin: what was remembered before its first turn.
    """

    lengths: Int[Tensor, " trajectories"]
    begin: Float[Tensor, "trajectories memory"]

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows turn by turn, the longest trajectory first; where each row went; trajectories of a turn; by length."""
        by_length = self.lengths.argsort(descending=True, stable=True)
        turn_of = Partition.from_sizes(self.lengths)
        rank = torch.empty_like(by_length)
        rank[by_length] = torch.arange(len(by_length), device=by_length.device)
        time = torch.arange(len(turn_of), device=by_length.device) - turn_of.spread(turn_of.first())
        order = (time * len(by_length) + turn_of.spread(rank)).argsort()
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return order, back, torch.bincount(time).cpu(), by_length

    def read(
        self, cell: nn.GRU, features: Float[Tensor, "turns width"], columns: slice
    ) -> tuple[Float[Tensor, "turns width"], Float[Tensor, "trajectories width"]]:
        """What is remembered after each turn, and after the last one of each trajectory. columns: of ``begin``."""
        if not len(self.lengths):
            return features, self.begin[:, columns]
        order, back, together, by_length = self._layout
        packed = PackedSequence(features[order], together, by_length)
        remembered, last = cell(packed, self.begin[:, columns].unsqueeze(0).contiguous())
        return remembered.data[back], last.squeeze(0)


class Recurrence(nn.Module):
    """A GRU of ``width`` units, with orthogonal weights in every gate and zero biases.

    It stands in a perceptron as any layer does, and is asked for by :func:`answers`, which knows which turns follow
    which. Its matrices are stacks of three gates, so they are not among those an optimizer steps as a whole
    (``hidden_matrices``).
    """

    def __init__(self, width: int, source: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.GRU(width, width, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in self.cell.named_parameters():
                if name.startswith("weight"):
                    for gate in parameter.chunk(3):
                        nn.init.orthogonal_(gate, 1.0, source)
                else:
                    nn.init.zeros_(parameter)


def with_memory(network: nn.Sequential, width: int, source: torch.Generator) -> nn.Sequential:
    """The network with a GRU before its last layer."""
    *before, last = network
    return nn.Sequential(*before, Recurrence(width, source), last)


def recurrence(network: nn.Sequential) -> Recurrence | None:
    """What a network remembers by; None for one without a memory."""
    before = network[-2]
    return before if isinstance(before, Recurrence) else None


def answers(
    network: nn.Sequential, rows: Float[Tensor, "turns features"], turns: Sequences | None, columns: slice = slice(None)
) -> tuple[Float[Tensor, "turns outputs"], Float[Tensor, "trajectories width"] | None]:
    """What a network says in every turn, having read those before it if it remembers, and what it remembers at the end.

    columns: of ``turns.begin`` that are its own. Raises ``ValueError`` for a memory that is not told which turns follow
    which.
    """
    memory = recurrence(network)
    if memory is None:
        return network(rows), None
    if turns is None:
        raise ValueError("agents with a memory read whole trajectories, from what they remembered before each")
    kept, last = turns.read(memory.cell, network[:-2](rows), columns)
    return network[-1](kept), last


def of_members(
    lengths: Int[Tensor, " trajectories"], member: Int[Tensor, " trajectories"], begin: Tensor, members: int
) -> list[Sequences]:
    """The trajectories of each of several networks, in their order; of a single one, all."""
    if members == 1:
        return [Sequences(lengths, begin)]
    own = [member == number for number in range(members)]
    return [Sequences(lengths[mine], begin[mine]) for mine in own]
