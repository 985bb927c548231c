"""Values learned on the scale of their targets, whatever the rewards are paid in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class NormalizedValues(Advantage):
    """The critic says ``v``, ``of`` reads ``V = m + s v``, and the critic's target is ``(G - m) / s``.

    It is the value normalisation of arXiv 2103.01955.

    ``m`` and ``s`` are mean and standard deviation of the targets ``G`` of all batches so far, older ones weighing less
    by ``decay``: ``m = sum_b decay^(n-b) mean_b / sum_b decay^(n-b)``, and the same of squares. A batch's advantage is
    computed with what was known before it; then its targets are counted, once, and given out on the new scale. Before
    the first batch ``m = 0`` and ``s = 1``. ``value`` and ``value_target`` are of the critic's own scale wherever else
    they are read, as by a value loss and its clip.

    of: an advantage that reads values and says their target.  decay: in [0, 1).  least: of the variance.
    """

    of: Advantage
    decay: Annotated[float, Ge(0), Lt(1)] = 0.99999
    least: Annotated[float, Gt(0)] = 1e-2
    _sums: Tensor = field(
        default_factory=lambda: torch.zeros(3, dtype=torch.float64), init=False, repr=False, compare=False
    )

    def memory(self) -> dict[str, Tensor]:
        return {"sums": self._sums}

    @property
    def scale(self) -> tuple[float, float]:
        """``m`` and ``s``."""
        weight, total, squares = self._sums.tolist()
        if weight == 0:
            return 0.0, 1.0
        mean = total / weight
        return mean, float(max(squares / weight - mean**2, self.least) ** 0.5)

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self.of(self._restored(x))

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        target = self.of.value_target(self._restored(x))
        if target is None:
            return None
        learned = x.for_critic().learnable()
        read = self.of.critic_tokens(x)
        counted = target[learned if read is None else learned & read].double()
        if len(counted):
            batch = torch.stack([torch.ones_like(counted).mean(), counted.mean(), counted.square().mean()])
            self._sums.mul_(self.decay).add_((1 - self.decay) * batch.to(self._sums.device))
        mean, deviation = self.scale
        return (target - mean) / deviation

    def _restored(self, x: Experience) -> Experience:
        """The batch with values on the scale of returns; of a state that is an end, 0."""
        mean, deviation = self.scale
        if x.value is None:
            raise ValueError(f"{self.part_name()} needs x.value")
        final = x.final_value
        if final is not None:
            final = mean + deviation * final
            if x.finished is not None:
                final = final.masked_fill(x.finished, 0.0)
        return x.replace(value=mean + deviation * x.value, final_value=final)
