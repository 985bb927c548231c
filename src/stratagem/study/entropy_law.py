"""How entropy falls, and the law that return follows it: ``R = -a exp(H) + b`` (arXiv 2505.22617)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.training.run_directory import RunDirectory


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


@dataclass(frozen=True)
class EntropyCourse:
    """How the entropy of a run's samples went, and what it earned at each: a report on any past run.

    steps, entropy, performance: of every batch that tells both, in order; entropy in nats.  law: fitted to all of them,
    None where they allow no fit, and then ``why_no_law`` says why.
    """

    steps: tuple[int, ...]
    entropy: tuple[float, ...]
    performance: tuple[float, ...]
    measure: str = "reward"
    law: EntropyLaw | None = None
    why_no_law: str = ""

    @classmethod
    def of_run(cls, directory: str | Path, measure: str = "reward") -> Self:
        """From ``metrics.jsonl`` of a run, finished or not. ``measure``: the metric that counts as what it earned.

        Raises :class:`InputError` when there is no run, or no batch of it tells both figures.
        """
        run = RunDirectory.existing(directory)
        rows = run.rows("metrics.jsonl")
        both = [row for row in rows if all(math.isfinite(row.get(name, math.nan)) for name in ("entropy", measure))]
        if not both:
            numbers = sorted({name for row in rows for name, value in row.items() if isinstance(value, float)})
            raise InputError(
                f"run {run.path}: no batch tells both entropy and {measure}; it tells {', '.join(numbers) or 'nothing'}"
            )
        entropy, performance = (tuple(float(row[name]) for row in both) for name in ("entropy", measure))
        law, why = None, ""
        try:
            law = EntropyLaw.fit(entropy, performance)
        except InputError as error:
            why = str(error)
        return cls(tuple(int(row["step"]) for row in both), entropy, performance, measure, law, why)

    def pieces(self, count: int = 10) -> list[tuple[int, int, float, float]]:
        """The run cut into at most ``count`` pieces of equal length: first and last step, mean entropy, mean return."""
        edges = np.unique(np.linspace(0, len(self.steps), min(count, len(self.steps)) + 1).astype(int))
        return [
            (
                self.steps[low],
                self.steps[high - 1],
                float(np.mean(self.entropy[low:high])),
                float(np.mean(self.performance[low:high])),
            )
            for low, high in pairwise(edges.tolist())
        ]

    @property
    def used_up(self) -> float:
        """Share of the entropy of the first piece that is gone in the last; below 0 when it grew, NaN when it was 0."""
        pieces = self.pieces()
        return 1 - pieces[-1][2] / pieces[0][2] if pieces[0][2] > 0 else math.nan

    def foretold(self, share: float = 0.25) -> tuple[float, float] | None:
        """What the law of the first ``share`` of the batches says of the last tenth, and what that really earned.

        None where so few batches allow no fit.
        """
        early = max(2, round(share * len(self.steps)))
        last = max(1, len(self.steps) // 10)
        try:
            law = EntropyLaw.fit(self.entropy[:early], self.performance[:early])
        except InputError:
            return None
        return law.predict(float(np.mean(self.entropy[-last:]))), float(np.mean(self.performance[-last:]))

    def to_json(self) -> dict[str, Any]:
        """As plain data; numbers that are not finite are None."""
        foretold = self.foretold()
        law = None
        if self.law is not None:
            r_squared = self.law.r_squared if math.isfinite(self.law.r_squared) else None
            law = {"a": self.law.a, "b": self.law.b, "r_squared": r_squared, "ceiling": self.law.ceiling}
        return {
            "measure": self.measure,
            "batches": len(self.steps),
            "used_up": self.used_up if math.isfinite(self.used_up) else None,
            "law": law,
            "why_no_law": self.why_no_law,
            "foretold": foretold and {"predicted": foretold[0], "measured": foretold[1]},
            "pieces": [
                {"first": first, "last": last, "entropy": entropy, self.measure: earned}
                for first, last, entropy, earned in self.pieces()
            ],
        }
