"""Normalisation of another advantage over the whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class BatchWhitened(Advantage):
    """``(A - mean A) / (std A + eps)`` over all tokens of the batch that may train (REINFORCE++, arXiv 2501.03262).

    of: the advantage to whiten.  correction: 0 for the population's standard deviation, 1 for the sample's.
    """

    of: Advantage
    correction: Literal[0, 1] = 0
    eps: Annotated[float, Ge(0)] = 1e-8

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        values = self.of(x)
        if x.mask is None:
            return Partition.whole(x.tokens, x.device).standardize(values, self.correction, self.eps)
        kept = values[x.mask]
        whitened = Partition.whole(len(kept), x.device).standardize(kept, self.correction, self.eps)
        return torch.zeros_like(values).masked_scatter(x.mask, whitened)
