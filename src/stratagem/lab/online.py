"""Trees of trajectories that grow while they are written, on the leaves of an enumerated tree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.lab.policy import NodeInputs
from stratagem.lab.ranges import within
from stratagem.sampling import OnlineTree
from stratagem.sampling.growth import Growth


@dataclass(frozen=True, eq=False)
class Nodes:
    """The decision nodes of a game's leaves.

    leaves: all trajectories, with the ``behavior_logp`` of every token.  probability: of each.
    """

    leaves: Experience
    probability: Float64[Tensor, " leaves"]

    @cached_property
    def node(self) -> Int[Tensor, " tokens"]:
        """In which every token was chosen."""
        assert isinstance(self.leaves.inputs, NodeInputs)
        return self.leaves.inputs.node

    @cached_property
    def logp(self) -> Float64[Tensor, "nodes vocabulary"]:
        """What is said in every node: every token is on the way to some leaf."""
        leaves = self.leaves
        assert leaves.action is not None and leaves.behavior_logp is not None
        table = torch.full((int(self.node.max()) + 1, int(leaves.action.max()) + 1), -torch.inf, dtype=torch.float64)
        return table.index_put((self.node, leaves.action), leaves.behavior_logp.double())

    @cached_property
    def begin(self) -> Int[Tensor, " leaves"]:
        """The first token of every leaf."""
        return self.leaves.trajectory_of_token.first()

    @cached_property
    def by_token(self) -> tuple[Int[Tensor, "nodes vocabulary"], Int[Tensor, "nodes vocabulary"]]:
        """The first and the last leaf that comes by a token of a node; they follow one another."""
        assert self.leaves.action is not None
        shape = self.logp.shape
        leaf, place = self.leaves.trajectory_of_token.labels, self.node * shape[1] + self.leaves.action
        first = torch.full((shape.numel(),), len(leaf)).scatter_reduce(0, place, leaf, "amin")
        return first.view(shape), torch.zeros_like(first).scatter_reduce(0, place, leaf, "amax").view(shape)


def grown(
    nodes: Nodes,
    roots: Int[Tensor, " roots"],
    sampler: OnlineTree,
    sizes: Int[Tensor, " groups"],
    source: torch.Generator,
) -> tuple[Growth, Int[Tensor, " left"], Int[Tensor, " left"]]:
    """Trees off these leaves: how they grew, the leaves that are left group by group, and what each took over.

    roots: leaves to begin with, ``min(sampler.roots, size)`` for each group.  sizes: leaves of each group at most.

    A path follows a leaf that was drawn for it, which has the same law as if every token were drawn when it is due, and
    goes over to another one that comes by the same node where it comes off.
    """
    growth = Growth(sampler, sizes.tolist(), nodes.logp.shape[1])
    leaf, going = roots, torch.arange(len(roots))
    length = nodes.leaves.trajectory_of_token.size()
    while len(going):
        node = nodes.node[nodes.begin[leaf[going]] + growth.paths.length[going]]
        step = growth.shown(going, nodes.logp[node])
        steered = torch.nonzero(step.token >= 0).squeeze(1)
        at = torch.cat([node[steered], node[step.place]])
        token = torch.cat([step.token[steered], step.first])
        first, last = nodes.by_token
        uniform = torch.rand((len(at), 1), dtype=torch.float64, generator=source)
        fresh = within(nodes.probability, first[at, token], last[at, token], uniform).squeeze(1)
        leaf = torch.cat([leaf.index_copy(0, going[steered], fresh[: len(steered)]), fresh[len(steered) :]])
        going = torch.cat([going[~step.cut], step.path])
        going = going[growth.paths.length[going] < length[leaf[going]]]
    path, taken_over = growth.left()
    return growth, leaf[path], taken_over
