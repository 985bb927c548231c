"""One sign of another advantage: learning from what went better alone, or from what went worse alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class Signed(Advantage):
    """``max(A, 0)`` or ``min(A, 0)`` of an advantage that was normalised before (arXiv 2508.21188, section on signs).

    The two add up to ``A``, so neither has mean 0: with ``positive`` the policy is only pulled towards what it did,
    with ``negative`` only pushed away, and the step is as long as that share of ``A``; ``grad_norm`` is logged. A batch
    that is left without any advantage costs no optimizer step.

    of: the advantage.  keep: the sign.
    """

    of: Advantage
    keep: Literal["positive", "negative"] = "positive"

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        values = self.of(x)
        return values.clamp(min=0) if self.keep == "positive" else values.clamp(max=0)
