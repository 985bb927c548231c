"""How well stated probabilities are calibrated, step by step of an episode."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.partition import Partition


class Calibration(NamedTuple):
    """By step, those without a claim left out: number of the step, claims, Brier score, expected calibration error."""

    step: Int[Tensor, " steps"]
    claims: Int[Tensor, " steps"]
    brier: Float[Tensor, " steps"]
    ece: Float[Tensor, " steps"]


def calibration_by_step(
    probability: Float[Tensor, " claims"],
    true: Bool[Tensor, " claims"],
    step: Int[Tensor, " claims"],
    bins: Annotated[int, Ge(1)] = 10,
) -> Calibration:
    """Brier ``mean (p - y)^2`` and ECE ``sum_b n_b / n |mean_b p - mean_b y|`` of the claims made at each step.

    Bins are of equal width, ``[b / bins, (b + 1) / bins)``, the last one with 1.

    probability: in [0, 1].  true: whether the claim is.  step: at which it was made, at least 0.

    Raises ``ValueError`` for figures of different lengths, a probability outside [0, 1] and fewer than one bin.
    """
    if not len(probability) == len(true) == len(step):
        raise ValueError(f"{len(probability)} probabilities, {len(true)} truths and {len(step)} steps: must be as many")
    if bins < 1:
        raise ValueError(f"bins = {bins}: must be at least 1")
    outside = ~((probability >= 0) & (probability <= 1))
    if bool(outside.any()):
        raise ValueError(f"probability = {float(probability[outside][0])}: must lie in [0, 1]")
    said, held = probability.double(), true.double()
    steps, label = torch.unique(step, return_inverse=True)
    at = Partition(label, len(steps))
    binned = Partition.by((said * bins).long().clamp(max=bins - 1), within=at)
    gap = binned.sum(said - held).abs()
    error = torch.zeros(len(steps), dtype=torch.float64, device=said.device)
    error.index_add_(0, label[binned.first()], gap)
    return Calibration(steps, at.size(), at.mean((said - held).square()).double(), error / at.size())
