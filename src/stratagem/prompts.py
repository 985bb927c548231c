"""What a run knows of start states: one row of flat tensors for each, and the pool that a curriculum chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition

Reader = Callable[[Sequence[int]], list[str]]
"""The texts that start states show first, by their numbers."""


class Probed(NamedTuple):
    """What came of trying start states: a score for each and every trial.

    agent: of the policy that learns.  control: of a weak one it is compared with.
    """

    agent: Float64[Tensor, "tasks episodes"]
    control: Float64[Tensor, "tasks episodes"]


Prober = Callable[[Int[Tensor, " tasks"], int], Probed]
"""Tries start states, by their numbers, so many times each."""


@dataclass(frozen=True, eq=False)
class PromptHistory:
    """Past rollouts by start state, in rows.

    A trajectory's *score* is 1 for a success and 0 for none where the batch tells, and its return elsewhere. A *visit*
    is all that came of a start state in one round of rollouts, however many groups that was.

    number: of the start state, ascending in a history of one's own.
    draws: groups that were asked for, of which some may be under way, or lost.
    visits, trajectories: that came back.
    scores, returns: sums over these trajectories, of the task's own rewards, before a recipe shapes them.
    variance: of the returns in the last visit (population), NaN before the first.
    step: of the last visit, -1 before the first.
    recent_scores, recent_returns: means of the last visits, the newest first; NaN where there were no more.
    """

    number: Int[Tensor, " prompts"]
    draws: Int[Tensor, " prompts"]
    visits: Int[Tensor, " prompts"]
    trajectories: Int[Tensor, " prompts"]
    scores: Float64[Tensor, " prompts"]
    returns: Float64[Tensor, " prompts"]
    variance: Float64[Tensor, " prompts"]
    step: Int[Tensor, " prompts"]
    recent_scores: Float64[Tensor, "prompts window"]
    recent_returns: Float64[Tensor, "prompts window"]

    @classmethod
    def blank(cls, number: Int[Tensor, " prompts"], window: int = 8) -> PromptHistory:
        """Start states of which nothing is known; ``window``: visits remembered one by one."""

        def column(value: float, *further: int) -> Tensor:
            return torch.full((len(number), *further), value, dtype=torch.float64)

        return cls(
            number=number,
            draws=torch.zeros_like(number),
            visits=torch.zeros_like(number),
            trajectories=torch.zeros_like(number),
            scores=column(0),
            returns=column(0),
            variance=column(torch.nan),
            step=torch.full_like(number, -1),
            recent_scores=column(torch.nan, window),
            recent_returns=column(torch.nan, window),
        )

    def __len__(self) -> int:
        return len(self.number)

    @property
    def window(self) -> int:
        """Visits remembered one by one."""
        return self.recent_scores.shape[1]

    # ---- reading ---------------------------------------------------------------------------------------------------

    def at(self, number: Int[Tensor, " asked"]) -> PromptHistory:
        """Rows of these start states, in their order; blank ones for those never heard of."""
        blank = PromptHistory.blank(number, self.window)
        if not len(self):
            return blank
        row = torch.searchsorted(self.number, number).clamp(max=len(self) - 1)
        known = self.number[row] == number
        columns = {
            name: torch.where(known if mine.ndim == 1 else known[:, None], mine[row], getattr(blank, name))
            for name, mine in vars(self).items()
        }
        return PromptHistory(**columns)

    def recent_score(self, visits: int | None = None) -> Float64[Tensor, " prompts"]:
        """Mean of the mean scores of the last visits, as many as there were; NaN before the first.

        visits: so many at most; None: as many as are remembered.
        """
        return self.recent_scores[:, :visits].nanmean(1)

    def recent_return(self, visits: int | None = None) -> Float64[Tensor, " prompts"]:
        """The same of returns."""
        return self.recent_returns[:, :visits].nanmean(1)

    def success_rate(self, visits: int | None = None, prior: float = 1.0) -> Float64[Tensor, " prompts"]:
        """Recent score in [0, 1], drawn to a half: ``(s + prior) / (n + 2 prior)`` with ``n`` trajectories.

        ``s`` is the recent score times ``n``, for which the mean number of trajectories of a visit counts. Start states
        never visited have 0.5, whatever the prior.
        """
        seen = self.visits > 0
        remembered = (~self.recent_scores[:, :visits].isnan()).sum(1)
        count = self.trajectories * remembered / self.visits.clamp(min=1)
        solved = self.recent_score(visits).clamp(0, 1).where(seen, 0.0) * count
        rate = (solved + prior) / (count + 2 * prior).where(seen | (prior > 0), 1.0)
        return rate.where(seen, 0.5)

    @property
    def difficulty(self) -> Float64[Tensor, " prompts"]:
        """``1 - recent score``, in [0, 1]; NaN before the first visit."""
        return 1 - self.recent_score().clamp(0, 1)

    # ---- writing ---------------------------------------------------------------------------------------------------

    def drawn(self, number: Int[Tensor, " groups"]) -> PromptHistory:
        """The history with one more draw for each of these groups."""
        names, groups = number.unique(return_counts=True)
        kept = self._with(names)
        draws = kept.draws.clone()
        draws[torch.searchsorted(kept.number, names)] += groups
        return kept._changed(draws=draws)

    def noted(self, number: Int[Tensor, " groups"], x: Experience, step: int) -> PromptHistory:
        """The history with what came of a round of rollouts, given the start state of each of its groups.

        Groups of one start state are one visit. Trajectories whose return is no finite number are not counted, and
        what the policy did not do itself (demonstrations) neither.
        """
        returns = x.returns.double().cpu()
        counted = returns.isfinite() & x.played().cpu()
        score = returns if x.success is None else x.success.double().cpu()
        group = x.group_of_trajectory.labels.cpu()[counted]
        returns, score = returns[counted], score[counted]
        names, label = number[group].unique(return_inverse=True)
        by = Partition(label, len(names))
        count, mean_score, mean_return = by.size(), by.mean(score), by.mean(returns)
        kept = self._with(names)
        row = torch.searchsorted(kept.number, names)

        def added(column: Tensor, values: Tensor) -> Tensor:
            return column.index_add(0, row, values)

        def pushed(column: Tensor, values: Tensor) -> Tensor:
            changed = column.clone()
            changed[row] = torch.cat([values[:, None], column[row, :-1]], 1)
            return changed

        return kept._changed(
            visits=added(kept.visits, torch.ones_like(count)),
            trajectories=added(kept.trajectories, count),
            scores=added(kept.scores, by.sum(score)),
            returns=added(kept.returns, by.sum(returns)),
            variance=kept.variance.index_copy(0, row, by.var(returns, correction=0)),
            step=kept.step.index_fill(0, row, step),
            recent_scores=pushed(kept.recent_scores, mean_score),
            recent_returns=pushed(kept.recent_returns, mean_return),
        )

    def windowed(self, window: int) -> PromptHistory:
        """The history with so many visits remembered one by one; those it never remembered are NaN."""
        if window == self.window:
            return self
        lacking = torch.full((len(self), max(window - self.window, 0)), torch.nan, dtype=torch.float64)
        return self._changed(
            recent_scores=torch.cat([self.recent_scores[:, :window], lacking], 1),
            recent_returns=torch.cat([self.recent_returns[:, :window], lacking], 1),
        )

    def _with(self, names: Int[Tensor, " more"]) -> PromptHistory:
        """Rows for these start states, too."""
        both = torch.cat([self.number, names]).unique()
        return self if len(both) == len(self) else self.at(both)

    def _changed(self, **columns: Tensor) -> PromptHistory:
        return PromptHistory(**{**vars(self), **columns})

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All of it, by column."""
        return dict(vars(self))

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> PromptHistory:
        """What :meth:`state_dict` returned. Raises ``KeyError`` for a column that is missing."""
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Pool:
    """The start states a curriculum chooses from, and what is known of them.

    number: of each, ascending.  known: a row for each, in this order.
    history: of all start states there were, those outside the pool included.
    step: of the batch.
    read: the texts that start states show first, by their numbers; None where the policy reads no text.
    probe: tries start states before they are chosen; None where the world does not.
    """

    number: Int[Tensor, " pool"]
    known: PromptHistory
    history: PromptHistory
    step: int = 0
    read: Reader | None = None
    probe: Prober | None = None

    def __len__(self) -> int:
        return len(self.number)

    def at(self, place: Int[Tensor, " places"]) -> Pool:
        """A smaller pool: what is at these places, in their order."""
        rows = PromptHistory(**{name: column[place] for name, column in vars(self.known).items()})
        return Pool(self.number[place], rows, self.history, self.step, self.read, self.probe)
