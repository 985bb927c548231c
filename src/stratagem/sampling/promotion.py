"""A curriculum of questions in several formats: each begins at its easiest and is promoted when it is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float64, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.partition import Partition
from stratagem.parts import Curriculum
from stratagem.prompts import Pool, PromptHistory
from stratagem.sampling.curricula import first_of


@dataclass(frozen=True)
class Promoting(Curriculum):
    """Questions that move up, one by one, from an easy format to a harder one, and never down (arXiv 2604.04767).

    Start state ``s`` is question ``s // levels`` in format ``s mod levels``, the easiest first; a format that is not in
    the pool does not exist for that question. A question is asked in its easiest format which it has not passed, or the
    hardest one it has. It has passed a format when the mean over its last ``window`` visits there is above
    ``threshold``; what counts in a visit is the mean over all its trajectories, however many groups they were in. In
    its new format a question begins without any visits. Questions come in an order at random, each once before one
    comes again.

    levels: formats there are.  threshold: to be exceeded.
    by: ``return`` (with what the task pays for form, as in the released code) or ``success``.
    window: visits that count.  require_full: whether so many are needed; the released code does not wait for them.
    chance: of each level, what guessing earns. With ``success`` the mean ``m`` is corrected to ``(m - c) / (1 - c)``;
    none: it is not. This guard is not the paper's.
    best: the largest mean there can be; with ``success`` it is 1.

    Raises :class:`InputError` for a threshold that cannot be exceeded, and for chances that are not one for each level.
    """

    window: Annotated[int, Ge(1)] = 1
    levels: Annotated[int, Ge(1)] = 4
    threshold: FiniteFloat = 0.5
    by: Literal["return", "success"] = "return"
    require_full: bool = False
    chance: tuple[Annotated[float, Ge(0), Lt(1)], ...] = ()
    best: FiniteFloat = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        best = 1.0 if self.by == "success" else self.best
        if self.threshold >= best:
            raise InputError(
                f"{self.part_name()}.threshold = {self.threshold}: must be below {best:g}, the most there is to earn, "
                "or nothing is ever promoted"
            )
        if self.chance and (len(self.chance) != self.levels or self.by != "success"):
            raise InputError(
                f"{self.part_name()}.chance = {self.chance}: must be one number for each of {self.levels} levels, with "
                "by = success"
            )

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        questions = Partition.by(pool.number // self.levels)
        level = pool.number % self.levels
        open_still = ~self.passed(pool.known) | (level == questions.spread(questions.max(level)))
        present = questions.min(level.where(open_still, self.levels))
        place = (level == questions.spread(present)).nonzero().squeeze(1)
        # Of the pool, which is in order, this is one place for each question, in the order of the questions.
        asked = questions.sum(pool.known.draws)
        return place[first_of(asked.double(), groups, source)]

    def passed(self, known: PromptHistory) -> Bool[Tensor, " prompts"]:
        """Which start states did well enough in their last visits."""
        enough = known.visits >= (self.window if self.require_full else 1)
        return enough & (self.mean(known).nan_to_num(-torch.inf) > self.threshold)

    def mean(self, known: PromptHistory) -> Float64[Tensor, " prompts"]:
        """What is compared with the threshold; NaN before the first visit."""
        if self.by == "return":
            return known.recent_return(self.window)
        mean = known.recent_score(self.window)
        if not self.chance:
            return mean
        guessed = torch.tensor(self.chance, dtype=mean.dtype)[known.number % self.levels]
        return (mean - guessed) / (1 - guessed)

    def figures(self, pool: Pool) -> dict[str, float]:
        """``upgrades`` in this batch; by level, ``level_n/questions`` there are at it by now, ``level_n/return`` in it.

        A question that has passed a format is counted at the next number until it is asked again.
        """
        known, last = pool.known, self.levels - 1
        level, passed = known.number % self.levels, self.passed(pool.known)
        now = known.step == pool.step
        questions = Partition.by(known.number // self.levels)
        reached = questions.max(torch.maximum(level, (level + passed).clamp(max=last)))
        figures = {"upgrades": float((now & passed & (level < last)).sum())}
        for number in range(self.levels):
            figures[f"level_{number}/questions"] = float((reached == number).sum())
            here = now & (level == number)
            if bool(here.any()):
                figures[f"level_{number}/return"] = float(known.recent_returns[here, 0].mean())
        return figures
