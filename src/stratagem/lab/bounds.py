"""How far success on training tasks may be from success on tasks like them: a PAC-Bayes bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from stratagem.errors import InputError


@dataclass(frozen=True)
class PACBayesBound:
    """``loss <= empirical + sqrt((KL + log(2 sqrt(tasks) / delta)) / (2 tasks)) + shift``, for losses in [0, 1].

    McAllester's bound in Maurer's form: with probability ``1 - delta`` over the training tasks it holds for every
    posterior ``Q`` at once. (Of arXiv 2604.19857, theorem 3, only the abstract was available; the term for other task
    families is a reconstruction.)

    empirical: mean loss on the training tasks.  kl: ``KL(Q || P)`` from the prior, in nats.  tasks: their number.
    delta: probability of being wrong.  shift: total variation between the tasks trained and tested on.

    Raises :class:`InputError` for a number out of range.
    """

    empirical: float
    kl: float
    tasks: int
    delta: float = 0.05
    shift: float = 0.0

    def __post_init__(self) -> None:
        allowed = {
            "empirical": (0 <= self.empirical <= 1, "in [0, 1]"),
            "kl": (0 <= self.kl < math.inf, "finite and at least 0"),
            "tasks": (self.tasks >= 2, "at least 2"),
            "delta": (0 < self.delta < 1, "between 0 and 1"),
            "shift": (0 <= self.shift <= 1, "in [0, 1]"),
        }
        for name, (right, must) in allowed.items():
            if not right:
                raise InputError(f"pac_bayes_bound: {name} = {getattr(self, name)}: must be {must}")

    @property
    def complexity(self) -> float:
        """The square root."""
        return math.sqrt((self.kl + math.log(2 * math.sqrt(self.tasks) / self.delta)) / (2 * self.tasks))

    @property
    def value(self) -> float:
        """The bound."""
        return self.empirical + self.complexity + self.shift

    @property
    def vacuous(self) -> bool:
        """Whether it says nothing: no loss exceeds 1."""
        return self.value >= 1


def pac_bayes_bound(empirical: float, kl: float, tasks: int, delta: float = 0.05, shift: float = 0.0) -> PACBayesBound:
    """The bound with its terms; see :class:`PACBayesBound`."""
    return PACBayesBound(empirical, kl, tasks, delta, shift)


def gaussian_kl(weights: Iterable[Tensor], initial: Iterable[Tensor], sigma: float) -> float:
    """``KL(Q || P) = |theta - theta_0|^2 / (2 sigma^2)`` of Gaussians around the tuned weights and the initial ones.

    sigma: standard deviation of both, above 0. Raises :class:`InputError` otherwise.
    """
    if not sigma > 0:
        raise InputError(f"gaussian_kl: sigma = {sigma}: must be above 0")
    pairs = zip(weights, initial, strict=True)
    return sum(float((now.detach().double() - before.detach().double()).square().sum()) for now, before in pairs) / (
        2 * sigma**2
    )
