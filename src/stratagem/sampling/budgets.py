"""How many rollouts each prompt is worth, given the success rates that are expected of the prompts."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float64, Int, Int64
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.parts import Curriculum
from stratagem.prompts import Pool
from stratagem.sampling.curricula import Shuffled
from stratagem.sampling.predictors import Features, Logistic, Predictor, TextFeatures

Method = Literal["greedy", "exact", "uniform"]


def group_gain(size: np.ndarray, rate: np.ndarray) -> Float64[np.ndarray, "..."]:
    """What a group of ``size`` rollouts teaches: ``U(B, p) = B (1 - p) [1 - (1 - p)^(B - 1)]`` (arXiv 2602.03584).

    The failures expected in groups that have both successes and failures, ``E[(B - k) 1{0 < k < B}]`` with ``k``
    successes. It is 0 for a size of 1 and for a rate of 0 or 1. For small rates each further rollout adds more than the
    one before: it is not concave in the size. The formula is as reported by others; the paper's text was not available.
    """
    failed = 1.0 - np.asarray(rate, dtype=np.float64)
    size = np.asarray(size, dtype=np.float64)
    gain: np.ndarray = size * failed * (1.0 - failed ** np.maximum(size - 1.0, 0.0))
    return np.where(size >= 1, gain, 0.0)


def allocate(
    rate: np.ndarray, total: int, least: int = 2, most: int = 128, method: Method = "greedy"
) -> Int64[np.ndarray, " prompts"]:
    """Group sizes in ``[least, most]`` with a large sum of :func:`group_gain`, at most ``total`` in all.

    greedy: from ``least`` each, one rollout at a time to the prompt that gains most by it, the first of equals, as is
    reported of the paper. Since the gain is not concave this need not be the best.  exact: the best there is, by a
    dynamic program, ``O(prompts total (most - least))``.  uniform: the same for each, the first ones one more.

    All of ``total`` is given away as long as groups have room. Where it does not suffice for ``least`` each, prompts of
    the lowest ``U(least, p)`` get 0, the last of equals first.

    Raises :class:`InputError` for bounds that are out of order, and rates that are none.
    """
    rate = np.asarray(rate, dtype=np.float64)
    if not 1 <= least <= most or total < 0:
        bounds = f"least = {least}, most = {most}, total = {total}"
        raise InputError(f"allocate: {bounds}: must be 1 <= least <= most and total >= 0")
    if not bool(((rate >= 0) & (rate <= 1)).all()):
        raise InputError("allocate: rates must lie in [0, 1]")
    kept = np.arange(len(rate))
    if total < least * len(rate):
        order = np.argsort(-group_gain(np.full(len(rate), least), rate), kind="stable")
        kept = np.sort(order[: total // least])
    sizes = np.zeros(len(rate), dtype=np.int64)
    if len(kept):
        spare = min(total, most * len(kept)) - least * len(kept)
        how = {"greedy": _greedy, "exact": _exact, "uniform": _uniform}[method]
        sizes[kept] = least + how(rate[kept], spare, least, most - least)
    return sizes


def _greedy(rate: np.ndarray, spare: int, least: int, room: int) -> np.ndarray:
    table = group_gain(least + np.arange(room + 1)[None, :], rate[:, None])
    step = np.diff(table, axis=1)
    more = np.zeros(len(rate), dtype=np.int64)
    queue = [(-step[prompt, 0], prompt) for prompt in range(len(rate)) if room]
    heapq.heapify(queue)
    for _ in range(spare):
        _, prompt = heapq.heappop(queue)
        more[prompt] += 1
        if more[prompt] < room:
            heapq.heappush(queue, (-step[prompt, more[prompt]], prompt))
    return more


def _exact(rate: np.ndarray, spare: int, least: int, room: int) -> np.ndarray:
    """``best[j] = max_k best'[j - k] + U(least + k, p)``, prompt after prompt; the ``k`` are kept for the way back."""
    room = min(room, spare)
    best = np.full(spare + 1, -np.inf)
    best[0] = 0.0
    chosen = np.zeros((len(rate), spare + 1), dtype=np.int64)
    for prompt, p in enumerate(rate[:, None]):
        gain = group_gain(least + np.arange(room + 1), p)
        padded = np.concatenate([np.full(room, -np.inf), best])
        # Row j: best[j - room] ... best[j].
        windows = np.lib.stride_tricks.sliding_window_view(padded, room + 1)[:, ::-1] + gain
        chosen[prompt] = windows.argmax(1)
        best = windows.max(1)
    more, left = np.zeros(len(rate), dtype=np.int64), spare
    for prompt in range(len(rate) - 1, -1, -1):
        more[prompt] = chosen[prompt, left]
        left -= more[prompt]
    return more


def _uniform(rate: np.ndarray, spare: int, least: int, room: int) -> np.ndarray:
    share, rest = divmod(spare, len(rate))
    return share + (np.arange(len(rate)) < rest)


@dataclass(frozen=True)
class Budgeted(Curriculum):
    """Group sizes by the success that is predicted of each prompt, from what the policy did on others (2602.03584).

    The context is the last ``context`` start states that came back before this batch, each with the mean score of its
    last visit; nothing of the batch that is planned is in it. The predictor is not trained on the policy: it reads the
    context, so it goes with the policy as that changes. What it predicts is clipped, so that no prompt starves, and
    rollouts are shared out by :func:`allocate`; ``prompts_per_step * group_size`` of a batch stay what they are.

    of: chooses the prompts.  predictor: of the success rates.  features: what it reads of a prompt.
    method: ``greedy`` (as published), ``exact`` or ``uniform``.  least, most: rollouts of a group.
    clip: predictions lie in ``[clip, 1 - clip]``.
    lowest, highest: of the scores, which are mapped to [0, 1].

    Raises :class:`InputError` where groups of ``group_size`` on average cannot lie between ``least`` and ``most``, and
    in a world whose start states show no text.
    """

    of: Curriculum = Shuffled()
    predictor: Predictor = Logistic()
    features: Features = TextFeatures()
    context: Annotated[int, Ge(1)] = 256
    method: Method = "greedy"
    least: Annotated[int, Ge(1)] = 2
    most: Annotated[int, Ge(1)] = 128
    clip: Annotated[float, Gt(0), Lt(0.5)] = 0.01
    lowest: FiniteFloat = 0.0
    highest: FiniteFloat = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < self.least:
            raise InputError(f"{self.part_name()}.most = {self.most}: must be at least least = {self.least}")
        if self.highest <= self.lowest:
            raise InputError(f"{self.part_name()}.highest = {self.highest}: must be above lowest = {self.lowest}")

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        return self.of.choose(pool, groups, source)

    def sizes(
        self, pool: Pool, chosen: Int[Tensor, " groups"], group_size: int, source: torch.Generator
    ) -> Int[Tensor, " groups"]:
        total = len(chosen) * group_size
        rate = self.predicted(pool, pool.number[chosen]).clamp(self.clip, 1 - self.clip).numpy()
        return torch.from_numpy(allocate(rate, total, self.least, self.most, self.method))

    def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
        if not self.least <= group_size <= self.most:
            raise InputError(
                f"{self.part_name()}: group_size = {group_size}: must lie between least = {self.least} and most = "
                f"{self.most}"
            )
        return self.least, min(self.most, groups * group_size - self.least * (groups - 1))

    def domain(self, number: Int[Tensor, " groups"]) -> Int[Tensor, " groups"] | None:
        return self.of.domain(number)

    def figures(self, pool: Pool) -> dict[str, float]:
        """``unanimous``: share of the batch's start states whose trajectories earned the same; and those of ``of``."""
        now = pool.known.step == pool.step
        same = pool.known.variance[now] == 0
        return {**self.of.figures(pool), "unanimous": float(same.double().mean())}

    def predicted(self, pool: Pool, number: Int[Tensor, " asked"]) -> Float64[Tensor, " asked"]:
        """The success rate expected of these start states, by what came back so far."""
        if pool.read is None:
            raise InputError(f"curriculum {self.part_name()}: start states show no text here, by which to predict")
        seen = pool.history.at(pool.history.number[pool.history.visits > 0])
        newest = (-seen.step).argsort(stable=True)[: self.context]
        score = (seen.recent_scores[newest, 0] - self.lowest) / (self.highest - self.lowest)
        known = self.features(seen.number[newest], pool.read)
        return self.predictor(known, score.clamp(0, 1), self.features(number, pool.read))
