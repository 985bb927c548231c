"""Where to grow a tree: at the nodes that promise most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Forking
from stratagem.seeding import uniform
from stratagem.step_tree import OfSteps, StepTree, step_tree


@dataclass(frozen=True)
class RandomNodes(OfSteps, Forking):
    """At nodes of each group's tree, drawn at random among those that trajectories went on from, the start included.

    Nodes are steps with all that was said before them (:func:`stratagem.step_tree.step_tree`). For a tree that grows
    within its group (``Branching(together=True)``); what is drawn follows from the ``seed`` of the trajectories.

    nodes: chosen of each group in every round, as far as there are so many.  most: ways on from a node; one that has
    been sampled so often is not chosen.  steps: what a step is (:class:`stratagem.step_tree.OfSteps`).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"action", "seed"})

    nodes: Annotated[int, Ge(1)] = 1
    most: Annotated[int, Ge(1)] | None = 4

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        if x.seed is None:
            raise ValueError(f"{self.part_name()} needs x.seed")
        tree = step_tree(x, self.steps)
        home = _left(tree)
        places = tree.step_of_token.first()
        chosen = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        if not len(home):
            return chosen
        lead = home.first()
        trajectory = tree.trajectory_of_step.labels[lead]
        depth = tree.trajectory_of_step.position()[lead]
        ways = home.sum(tree.sampled(x).long())
        free = torch.ones_like(ways, dtype=torch.bool) if self.most is None else (ways < self.most) | (depth == 0)
        # Rounds differ in how much has grown, and so in what is drawn.
        drawn = uniform(x.seed[trajectory], _DRAW + depth * 2**20 + ways)
        score = self.score(x, tree, home)
        order = drawn.argsort()
        for key in (lead, depth):
            order = order[key.where(score > -torch.inf, 0)[order].argsort(stable=True)]
        order = order[score[order].argsort(stable=True, descending=True)]
        group = x.group_of_trajectory.labels[trajectory]
        order = order[free[order]]
        order = order[group[order].argsort(stable=True)]
        taken = Partition(group[order], x.groups).position() < self.nodes
        chosen[places[lead[order[taken]]]] = True
        return chosen

    def figures(self, x: Experience) -> dict[str, float]:
        """``tree/effective``: share of groups whose returns differ.  ``tree/return``: mean over all trajectories.
        ``tree/tokens``: sampled for a group, shared ones once.
        """
        if not x.groups:
            return {}
        group, returns = x.group_of_trajectory, x.returns
        return {
            "tree/effective": float((group.max(returns) > group.min(returns)).double().mean()),
            "tree/return": float(returns.mean()),
            "tree/tokens": float(x.learnable_tokens) / x.groups,
        }

    def score(self, x: Experience, tree: StepTree, home: Partition) -> Float[Tensor, " homes"]:
        """How much each node promises; minus infinity: chance decides, once no other is left."""
        return torch.full((home.count,), -torch.inf, device=x.device)


@dataclass(frozen=True)
class InformativeNodes(RandomNodes):
    """At the nodes with the highest information-bottleneck score (IB-Score, arXiv 2605.28109).

    ``score(s) = (1 + beta) / B sum_b eta1(s_b) eta2(s_b)`` over the ``B`` steps that were sampled after ``s``, with the
    gain in information ``eta1 = p(s_b) / p(s) - (1 + 1 / beta)`` and the policy's confidence ``eta2 = pi(s_b | s)``.
    ``p`` is the share of successes among the trajectories that come through a node. A node is chosen where confidence
    lies on steps that lead to success. Of equal scores the shallower node comes first, then the one seen first.

    The paper was available in summaries only. ``pi`` of a whole step is next to nothing, so that it is the geometric
    mean over its tokens here, under the policy that sampled; that, the bound on the ways on from a node (``most``), and
    that nodes without a success come last, at random among themselves, are reconstructions.

    beta: what is paid for information, above 0.

    Raises ``ValueError`` without ``success`` or ``behavior_logp``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"action", "seed", "success", "behavior_logp"})

    beta: Annotated[float, Gt(0)] = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta < float("inf"):
            raise InputError(f"{self.part_name()}.beta = {self.beta}: must be finite")

    def figures(self, x: Experience) -> dict[str, float]:
        """And ``tree/informed``: mean covariance of ``eta1`` and ``eta2`` at nodes with several ways on."""
        tree = step_tree(x, self.steps)
        gain, confidence, known = gains(x, tree, self.beta)
        kept = tree.sampled(x) & known
        rows = torch.nonzero(kept).squeeze(1)
        home = Partition(_left(tree).labels[rows], _left(tree).count)
        several = home.size() > 1
        together = home.mean(gain[rows] * confidence[rows]) - home.mean(gain[rows]) * home.mean(confidence[rows])
        figures = super().figures(x)
        return figures | {"tree/informed": float(together[several].mean())} if bool(several.any()) else figures

    def score(self, x: Experience, tree: StepTree, home: Partition) -> Float[Tensor, " homes"]:
        gain, confidence, known = gains(x, tree, self.beta)
        own = tree.sampled(x)
        total = home.sum(torch.where(own, gain * confidence, 0.0))
        score = (1 + self.beta) * total / home.sum(own.long()).clamp(min=1)
        hopeless = home.max((~known).long()) > 0
        return torch.where(hopeless, -torch.inf, score)


def gains(
    x: Experience, tree: StepTree, beta: float
) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"], Bool[Tensor, " steps"]]:
    """``eta1`` and ``eta2`` of every step, and whether there is a success behind the node before it.

    Where there is none, the ratio in ``eta1`` is 0.
    """
    if x.success is None or x.behavior_logp is None:
        raise ValueError("the gain in information needs x.success and x.behavior_logp")
    here, before = tree.mean(x.success.double(), x)
    ratio = torch.where(before > 0, here / before.where(before > 0, 1.0), 0.0)
    spread = tree.node_of_step.spread
    return spread(ratio) - (1 + 1 / beta), tree.confidence(x.behavior_logp, x).double(), spread(before) > 0


def _left(tree: StepTree) -> Partition:
    """Steps by the node they went on from; the starts of groups are nodes, too."""
    labels = tree.node_of_step.labels
    group = tree.group_of_node.labels[labels]
    return Partition.by(torch.where(tree.parent[labels] < 0, -1 - group, tree.parent[labels]))


_DRAW = -(2**60)
"""No draw of another part has a number from here on."""
