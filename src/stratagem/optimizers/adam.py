"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from stratagem.parts import Optimization


@dataclass(frozen=True)
class AdamW(Optimization):
    """Adam with decoupled weight decay (arXiv 1711.05101), as in torch.

    beta1, beta2: decay of the two moments, in [0, 1).  eps: added to the root of the second.  weight_decay: per unit of
    learning rate.
    """

    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    weight_decay: Annotated[float, Ge(0)] = 0.0

    def optimizer(
        self, policy: Iterable[Tensor], critic: Iterable[Tensor], hidden: Iterable[Tensor] = ()
    ) -> torch.optim.Optimizer:
        rates = self.learning_rates()
        groups = [{"params": list(p), "lr": rate} for p, rate in zip((policy, critic), rates, strict=True)]
        return torch.optim.AdamW(
            groups, betas=(self.beta1, self.beta2), eps=self.eps, weight_decay=self.weight_decay, fused=True
        )
