"""A penalty whose strength follows how far the policy has gone, for easy, medium and hard questions apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.regularizers import KL
from stratagem.parts import Regularizer

_BUCKETS = 3


@dataclass(frozen=True)
class ControlledByDifficulty(Regularizer):
    """``beta_d k_t``: a KL with a coefficient for each bucket of difficulty, raised where the KL is over its budget.

    Buckets are by ``x.pass_rate``: easy from two thirds, medium from one third, else hard. After each optimizer step
    the mean KL of a bucket's tokens enters its running mean (``decay``), and ``e = KL / budget - 1``. Every ``every``
    steps, unless ``|e|`` is below ``tolerance``, ``m <- 0.97 m + 0.03 e``, and ``log beta`` rises by
    ``rate clip(m, -most, most)``; ``beta`` stays in [1e-4, 100]. A bucket of which no token was seen keeps what
    it has. All of it is remembered. Rule and defaults are those of the released code of
    arXiv 2510.08457; its paper describes budgets by token, relaxed inside windows of high entropy, which that code does
    not have.

    of: the KL, or any penalty that is never negative.  budget: above 0, in nats per token.  rate: 0 leaves every
    ``beta`` at 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"pass_rate"})

    of: Regularizer = KL("k3")
    budget: Annotated[float, Gt(0)] = 0.01
    rate: Annotated[float, Ge(0)] = 0.05
    most: Annotated[float, Gt(0)] = 0.2
    every: Annotated[int, Ge(1)] = 100
    decay: Annotated[float, Ge(0), Le(1)] = 0.97
    tolerance: Annotated[float, Ge(0)] = 0.02
    _memory: dict[str, Tensor] = field(
        default_factory=lambda: {
            "log_beta": torch.zeros(_BUCKETS, dtype=torch.float64),
            "kl": torch.full((_BUCKETS,), math.nan, dtype=torch.float64),
            "error": torch.zeros(_BUCKETS, dtype=torch.float64),
            "steps": torch.zeros((), dtype=torch.float64),
            "total": torch.zeros(_BUCKETS, dtype=torch.float64),
            "tokens": torch.zeros(_BUCKETS, dtype=torch.float64),
        },
        init=False,
        repr=False,
        compare=False,
    )

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if x.pass_rate is None:
            raise ValueError("a penalty by difficulty needs x.pass_rate; recipe.credit(x) sets it")
        bucket = x.to_tokens(group=difficulty(x.pass_rate))
        penalty = self.of(out, x)
        with torch.no_grad():
            seen = x.of_learnable(penalty.detach()).double()
            for name, values in (("total", seen), ("tokens", x.learnable().double())):
                self._memory[name] += torch.bincount(bucket, values, _BUCKETS).cpu()
        beta = self._memory["log_beta"].exp().to(penalty.dtype).to(penalty.device)
        return beta[bucket] * penalty

    @torch.no_grad()
    def after_step(self, taken: bool) -> None:
        super().after_step(taken)
        memory = self._memory
        seen = memory["tokens"] > 0
        if taken and bool(seen.any()):
            now = memory["total"] / memory["tokens"].clamp(min=1)
            before = torch.where(memory["kl"].isnan(), now, memory["kl"])
            memory["kl"].copy_(torch.where(seen, torch.lerp(now, before, self.decay), memory["kl"]))
            memory["steps"].add_(1)
            if int(memory["steps"]) % self.every == 0:
                self._adjust(seen)
        memory["total"].zero_()
        memory["tokens"].zero_()

    def _adjust(self, seen: Tensor) -> None:
        memory = self._memory
        error = memory["kl"] / self.budget - 1
        moves = seen & (error.abs() >= self.tolerance)
        smooth = torch.where(moves, 0.97 * memory["error"] + 0.03 * error, memory["error"])
        memory["error"].copy_(smooth)
        step = torch.where(moves, self.rate * smooth.clamp(-self.most, self.most), 0.0)
        memory["log_beta"].add_(step).clamp_(math.log(1e-4), math.log(100))


def difficulty(rate: Float[Tensor, " groups"]) -> Tensor:
    """0 (easy) where at least two thirds of a group succeeded, 1 (medium) for at least one third, else 2 (hard)."""
    thirds = 3 * rate.double() + 1e-6  # Two thirds in float32 are two thirds.
    return (thirds < 2).long() + (thirds < 1).long()
