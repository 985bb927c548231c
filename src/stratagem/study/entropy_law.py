"""How entropy falls, and the law that return follows it: ``R = -a exp(H) + b`` (arXiv 2505.22617)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError


@dataclass(frozen=True)
class EntropyLaw:
    """``R = -a exp(H) + b``: what a policy earns at entropy ``H``, in nats.

    r_squared: share of the variance of the fitted returns that it explains; NaN when they were all the same.
    """

    a: float
    b: float
    r_squared: float

    @classmethod
    def fit(cls, entropy: Sequence[float], performance: Sequence[float]) -> Self:
        """By least squares, which is exact here: the law is a straight line in ``exp(H)``.

        Raises :class:`InputError` for lists of unequal length, fewer than two different entropies, or numbers that are
        not finite.
        """
        if len(entropy) != len(performance):
            raise InputError(f"entropy law: {len(entropy)} entropies, {len(performance)} returns; must be as many")
        x, y = np.exp(np.asarray(entropy, float)), np.asarray(performance, float)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError("entropy law: entropies and returns must be finite")
        if len(np.unique(x)) < 2:
            raise InputError("entropy law: needs at least two different entropies")
        away, deviation = x - x.mean(), y - y.mean()
        a = -float(away @ deviation / (away @ away))
        b = float(y.mean() + a * x.mean())
        left, total = float(np.square(deviation + a * away).sum()), float(deviation @ deviation)
        return cls(a, b, 1 - left / total if total > 0 else math.nan)

    @classmethod
    def of_metrics(
        cls, metrics: Iterable[Mapping[str, float]], entropy: str = "entropy", performance: str = "reward"
    ) -> Self:
        """Fitted to the metrics of a run, one row for each batch; rows without either figure are passed over."""
        rows = [(row[entropy], row[performance]) for row in metrics if entropy in row and performance in row]
        return cls.fit([row[0] for row in rows], [row[1] for row in rows])

    @property
    def ceiling(self) -> float:
        """``b - a``: the return at which entropy is used up."""
        return self.b - self.a

    def predict(self, entropy: float) -> float:
        """The return at this entropy."""
        return self.b - self.a * math.exp(entropy)


def entropy_change(logp: Float[Tensor, "*states actions"], move: Float[Tensor, "*states actions"]) -> Tensor:
    """``-Cov_pi(log pi, move)`` [states]: what the entropy of a softmax changes by, to first order, when its logits do.

    logp: log-probabilities of every state, normalised.  move: change of its logits. Plain policy gradient moves logits
    by ``eta pi A``, the natural one by ``eta A``: likely actions with a high advantage lower the entropy, unlikely ones
    raise it. Actions without probability add nothing.
    """
    probability = logp.exp()
    surprise: Tensor = torch.special.entr(probability)
    mean_move = (probability * move).sum(-1, keepdim=True)
    return (surprise * (move - mean_move)).sum(-1)
