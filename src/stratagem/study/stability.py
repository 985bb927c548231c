"""How a run began: whether answers collapsed in length, and how far the reward fell before it rose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stratagem.errors import InputError
from stratagem.training.run_directory import RunDirectory

COLLAPSE = 0.5
"""Answers that shrink to less than this share of their first length have collapsed."""


@dataclass(frozen=True)
class Dip:
    """A reward that falls and recovers ("hockey stick", arXiv 2509.00309).

    depth: ``(R_0 - min R) / |R_0|``, 0 when it never falls below the first.  lowest: step of the minimum, from 0.
    recovery: first step after it with a reward of at least ``R_0``; infinity when there is none, 0 without a dip.
    """

    depth: float
    lowest: int
    recovery: float


@dataclass(frozen=True)
class Stability:
    """How a run began: :func:`length_collapse` and :func:`reward_dip` of its metrics."""

    length_share: float
    dip: Dip

    @property
    def collapsed(self) -> bool:
        """Whether the answers shrank to less than half of their first length."""
        return self.length_share < COLLAPSE


def length_collapse(lengths: Sequence[float], share: float = 0.2) -> float:
    """``min_{t <= N} L_t / L_0`` of the mean lengths ``L_t`` of a run's answers; below 0.5 they collapsed.

    ``N`` is ``share`` of the steps, rounded up. The paper that names the phenomenon (arXiv 2509.00309) describes it in
    words; formula and bound are a reconstruction. Raises :class:`InputError` without lengths, for a first length that
    is not positive, and for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share = {share}: must lie above 0 and at most at 1")
    if not lengths or not lengths[0] > 0:
        raise InputError(f"lengths of {len(lengths)} steps: the first must be there and positive")
    early = lengths[: 1 + math.ceil(share * (len(lengths) - 1))]
    return min(early) / lengths[0]


def reward_dip(rewards: Sequence[float]) -> Dip:
    """How far a run's mean rewards fall below the first, and when they are back.

    Noise makes a small dip of any curve: smooth it first, or compare runs of the same batch size. The definition is a
    reconstruction, as for :func:`length_collapse`. Raises :class:`InputError` without rewards.
    """
    if not rewards:
        raise InputError("rewards of 0 steps: there must be one")
    first = rewards[0]
    lowest = min(range(len(rewards)), key=rewards.__getitem__)
    back = (float(step) for step in range(lowest, len(rewards)) if rewards[step] >= first)
    return Dip((first - rewards[lowest]) / max(abs(first), 1e-8), lowest, next(back, math.inf))


def stability(run: str | Path, share: float = 0.2) -> Stability:
    """Both for a run directory, from ``completions/mean_length`` and ``reward`` of its steps.

    Raises :class:`InputError` when it holds no run, or no step that was logged.
    """
    rows = RunDirectory.existing(run).rows("metrics.jsonl")
    logged = [row for row in rows if "reward" in row and "completions/mean_length" in row]
    if not logged:
        raise InputError(f"run directory {run}: has no step with a reward and a length")
    lengths = [row["completions/mean_length"] for row in logged]
    return Stability(length_collapse(lengths, share), reward_dip([row["reward"] for row in logged]))
