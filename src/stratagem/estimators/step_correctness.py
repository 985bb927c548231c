"""How likely a step is to be on the way to a right answer: a process reward model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Estimator, Head


@dataclass(frozen=True)
class StepCorrectness(Estimator):
    """``mean_u -(l_u log p_u + (1 - l_u) log(1 - p_u))``: two classes, right and wrong, with soft labels ``l_u``.

    ``p_u`` is read after the last token of turn ``u`` and is its ``turn_action_value`` [turns, 1]. ``l_u`` in [0, 1] is
    ``x.value_target`` there; nothing is learned from turns whose last token is not in ``critic_mask`` (or, without
    one, in ``mask``). At ``l = 1/2`` the loss is least, ``ln 2``, at ``p = 1/2``.

    Figures: ``cross_entropy``, and ``agreement``, the share of labels on the same side of one half as ``p``.

    Raises ``ValueError`` where the batch has no labels, and for a label outside [0, 1].
    """

    says: ClassVar[frozenset[str]] = frozenset({"turn_action_value"})
    heads: ClassVar[Mapping[str, Head]] = {"correct": Head("after")}

    def loss(self, said: Mapping[str, Tensor], slow: Mapping[str, Tensor], x: Experience) -> Float[Tensor, ""]:
        labels, learned = self._labels(x)
        logits = said["correct"].squeeze(1)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        return torch.where(learned, losses, 0.0).sum() / learned.sum().clamp(min=1)

    def fill(self, said: Mapping[str, Tensor], x: Experience) -> Experience:
        return x.replace(turn_action_value=said["correct"].sigmoid())

    def figures(self, said: Mapping[str, Tensor], x: Experience) -> dict[str, float]:
        labels, learned = self._labels(x)
        if not bool(learned.any()):
            return {}
        same = (said["correct"].squeeze(1) > 0) == (labels > 0.5)
        return {
            "cross_entropy": float(self.loss(said, said, x)),
            "agreement": float(same[learned].float().mean()),
        }

    def _labels(self, x: Experience) -> tuple[Float[Tensor, " turns"], Bool[Tensor, " turns"]]:
        """Of every turn its label, 0 where nothing is learned from it, and whether something is."""
        if x.value_target is None:
            raise ValueError(f"{self.part_name()} needs x.value_target, the labels of steps")
        values, x = x.value_target, x.for_critic()
        filled = torch.nonzero(x.turn_of_token.size() > 0).squeeze(1)
        last = x.turn_of_token.last()
        learned = torch.zeros(x.turns, dtype=torch.bool, device=x.device).index_copy(0, filled, x.learnable()[last])
        labels = values.new_zeros(x.turns).index_copy(0, filled, values[last])
        labels = torch.where(learned, labels, 0.0)
        if not bool(((labels >= 0) & (labels <= 1)).all()):
            bad = int(torch.nonzero(~((labels >= 0) & (labels <= 1)))[0])
            raise ValueError(f"{self.part_name()}: turn {bad} has label {float(labels[bad])}: must be in [0, 1]")
        return labels, learned
