"""RMSprop, which deep Q-learning was published with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from stratagem.parts import Optimization


@dataclass(frozen=True)
class RMSprop(Optimization):
    """``w -= learning_rate g / (sqrt(v) + eps)`` with ``v = decay v + (1 - decay) g^2``, as in torch.

    decay: in [0, 1).  eps: above 0.
    """

    decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    eps: Annotated[float, Gt(0)] = 1e-5

    def optimizer(
        self, policy: Iterable[Tensor], critic: Iterable[Tensor], hidden: Iterable[Tensor] = ()
    ) -> torch.optim.Optimizer:
        rates = self.learning_rates()
        groups = [{"params": list(p), "lr": rate} for p, rate in zip((policy, critic), rates, strict=True)]
        return torch.optim.RMSprop(groups, alpha=self.decay, eps=self.eps)
