"""Trajectories of a group as a tree: what a step of one is, and that steps which begin alike are one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.errors import unknown
from stratagem.experience import Experience
from stratagem.part import Part
from stratagem.partition import Partition
from stratagem.seeding import scrambled

Steps = Annotated[int, Ge(1)] | Literal["turns", "blank_lines"]
"""What a step is: a turn; what blank lines separate within one; or so many tokens of one, its last step fewer."""


@dataclass(frozen=True)
class OfSteps(Part):
    """A part that looks at trajectories step by step.

    steps: what a step is. ``turns``: a turn. ``blank_lines``: a turn is cut at its blank lines, as whoever sampled has
    marked it (``x.step_start``); one without any is one step. A number: so many tokens of a turn, its last step fewer.
    """

    steps: Steps = field(default="turns", kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.steps, str) and self.steps not in ("turns", "blank_lines"):
            kind = f"{self.part_name()}.steps, beside a number of tokens:"
            raise unknown(kind, self.steps, ("turns", "blank_lines"))
        super().__post_init__()

    def needs(self) -> frozenset[str]:
        """And ``step_start``, where steps end at blank lines."""
        return super().needs() | ({"step_start"} if self.steps == "blank_lines" else frozenset())


@dataclass(frozen=True, eq=False)
class StepTree:
    """Steps of a batch, and the node each of them is.

    Steps of two trajectories of a group are one node when all that the policy said up to their ends is the same. Equal
    beginnings are recognised by 64 bits of them.

    step_of_token: tokens by step, in order.  trajectory_of_step: steps by trajectory, in order.
    node_of_step: steps by node.  parent: of every node, -1 where that is the start.
    """

    step_of_token: Partition
    trajectory_of_step: Partition
    node_of_step: Partition
    parent: Int[Tensor, " nodes"]
    group_of_node: Partition

    def mean(self, values: Float[Tensor, " trajectories"], x: Experience) -> tuple[Tensor, Tensor]:
        """Mean over the trajectories that come through each node; and through the node before it."""
        node = self.node_of_step.mean(values[self.trajectory_of_step.labels])
        start = self.group_of_node.spread(x.group_of_trajectory.mean(values))
        return node, torch.where(self.parent < 0, start, node[self.parent.clamp(min=0)])

    def to_tokens(self, values: Float[Tensor, " nodes"]) -> Float[Tensor, " tokens"]:
        """What a node has, at every token of its steps."""
        return self.step_of_token.spread(self.node_of_step.spread(values))

    def confidence(self, logp: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, " steps"]:
        """``exp(mean logp)`` over the tokens of a step that may train, in [0, 1]; 0 where there is none."""
        count = self.step_of_token.size() if x.mask is None else self.step_of_token.sum(x.mask)
        mean = self.step_of_token.sum(x.of_learnable(logp)) / count.clamp(min=1)
        return torch.where(count > 0, mean.exp(), 0.0)

    def sampled(self, x: Experience) -> Bool[Tensor, " steps"]:
        """Steps that were sampled where they stand, and not taken over from another trajectory."""
        if x.taken_over is None:
            return torch.ones(len(self.trajectory_of_step), dtype=torch.bool, device=x.device)
        place = x.trajectory_of_token.position()[self.step_of_token.first()]
        return place >= x.taken_over[self.trajectory_of_step.labels]


def step_tree(x: Experience, steps: Steps = "turns") -> StepTree:
    """The tree of every group.

    steps: as :class:`OfSteps` has it.

    Raises ``ValueError`` without actions that are indices, and for blank lines without ``x.step_start``.
    """
    if x.action is None or x.action.ndim != 1 or x.action.is_floating_point():
        raise ValueError("a tree of steps needs actions that are indices")
    step_of_token, turn, first = _steps(x, steps)
    trajectory = x.trajectory_of_token
    trajectory_of_step = Partition(trajectory.labels[first], x.trajectories)
    # What was said so far as a sum modulo 2^64: tokens, counted from 1 on, times random factors of their places, and
    # where steps begin.
    longest = int(trajectory.size().max()) if x.tokens else 0
    factor = scrambled(torch.arange(longest, device=x.device), torch.zeros(1, dtype=torch.int64, device=x.device))
    bits = trajectory.by_position(factor).mul_(x.action)
    start = trajectory.size().cumsum(0) - trajectory.size()
    for number, rows in enumerate((turn, first), 1):
        place = rows - start[trajectory.labels[rows]]
        bits[rows] += scrambled(place, place.new_tensor([number]))
    bits.cumsum_(0)
    before = torch.where(start > 0, bits[(start - 1).clamp(min=0)], 0) if x.tokens else start
    last, of_step = step_of_token.last(), trajectory_of_step.labels
    said = bits[last] - before[of_step] + factor.cumsum(0)[last - start[of_step]]
    group_of_step = Partition(x.group_of_trajectory.labels[trajectory_of_step.labels], x.groups)
    node_of_step = Partition.by(said, within=group_of_step)
    labels = node_of_step.labels
    previous = torch.where(trajectory_of_step.position() > 0, labels.roll(1), -1)
    lead = node_of_step.first()
    return StepTree(
        step_of_token,
        trajectory_of_step,
        node_of_step,
        previous[lead],
        Partition(group_of_step.labels[lead], x.groups),
    )


def _steps(x: Experience, steps: Steps) -> tuple[Partition, Int[Tensor, " filled"], Int[Tensor, " steps"]]:
    """Tokens by step, and the first token of every turn that has one, and of every step."""
    turns = x.turn_of_token
    turn, size = turns.first(), turns.size()
    if steps == "turns":
        filled = turns if len(turn) == turns.count else Partition.from_sizes(size[size > 0])
        return filled, turn, turn
    if steps == "blank_lines":
        if x.step_start is None:
            raise ValueError("steps between blank lines need x.step_start")
        begins = x.step_start.clone()
        begins[turn] = True
        first = torch.nonzero(begins).squeeze(1)
        return Partition.from_sizes(torch.diff(first, append=first.new_tensor([x.tokens]))), turn, first
    size = size[size > 0]
    of_turn = Partition.from_sizes((size + steps - 1) // steps)
    begun = of_turn.position() * steps
    return Partition.from_sizes((of_turn.spread(size) - begun).clamp(max=steps)), turn, of_turn.spread(turn) + begun
