"""Advantages of steps in trees: what came of all trajectories that share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage
from stratagem.step_tree import OfSteps, step_tree


@dataclass(frozen=True)
class NodeStandardized(OfSteps, Advantage):
    """``A(s) = (p(s) - mean_g R) / (std_g R + eps)`` with ``p(s)`` the mean return of all that came through step ``s``.

    The global advantage of IB-TPO (arXiv 2605.28109). A node is a step with all that was said before it
    (:func:`stratagem.step_tree.step_tree`). Where no two trajectories of a group begin alike, this is
    :class:`GroupStandardized`; exactly 0 in a group of equal returns.

    correction, eps: as in :class:`GroupStandardized`.  steps: what a step is (:class:`stratagem.step_tree.OfSteps`).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"action"})
    minimum_group: ClassVar[int] = 2

    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        standardized = x.group_of_trajectory.standardize(x.returns, self.correction, self.eps)
        tree = step_tree(x, self.steps)
        return tree.to_tokens(tree.mean(standardized, x)[0])


@dataclass(frozen=True)
class InformationGain(OfSteps, Advantage):
    """``A(s) = (p(s) / p(s_p) - (1 + 1 / beta)) pi_ref(s)``: whether step ``s`` made success likelier than before it.

    The local advantage of IB-TPO (arXiv 2605.28109). ``p`` is the share of successes among the trajectories of the
    group that come through a node, ``s_p`` the node before ``s``. It is 0 where no trajectory through ``s_p`` succeeded
    and in groups of equal returns, of which nothing can be learned.

    The paper was available in summaries only. ``pi_ref(s)`` is the geometric mean over the tokens of the step that may
    train: a reconstruction, since the product over a long step is next to nothing.

    beta: what is paid for information, above 0: a step that changes nothing gets ``-pi_ref / beta``.
    steps: what a step is (:class:`stratagem.step_tree.OfSteps`).

    Raises ``ValueError`` without ``success`` or ``ref_logp``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"action", "success", "ref_logp"})
    minimum_group: ClassVar[int] = 2

    beta: Annotated[float, Gt(0)] = 5.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.success is None or x.ref_logp is None:
            raise ValueError(f"{self.part_name()} needs x.success and x.ref_logp")
        tree = step_tree(x, self.steps)
        here, before = tree.mean(x.success.to(torch.promote_types(x.ref_logp.dtype, torch.float32)), x)
        gain = here / before.where(before > 0, 1.0) - (1 + 1 / self.beta)
        group = x.group_of_trajectory
        differ = tree.group_of_node.spread(group.max(x.returns) > group.min(x.returns))
        told = tree.node_of_step.spread(torch.where((before > 0) & differ, gain, 0.0))
        return tree.step_of_token.spread(told * tree.confidence(x.ref_logp, x))
