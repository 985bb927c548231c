"""Elections: workers vote on who sets the tax rates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64, Int

from stratagem.economy.economy import MOST_SCHEDULES, OfWorkers, Outcome, TaxEconomy
from stratagem.economy.planners import MOVES
from stratagem.economy.taxes import Rates
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator


def plurality(votes: Sequence[int] | Int[np.ndarray, " voters"], generator: np.random.Generator) -> int:
    """The candidate with the most votes; one of them, drawn by ``generator``, where several have as many.

    Raises :class:`InputError` when nobody votes.
    """
    if not len(votes):
        raise InputError("election: nobody votes")
    candidates, counts = np.unique(np.asarray(votes), return_counts=True)
    return int(generator.choice(candidates[counts == counts.max()]))


class ElectedPlanner:
    """Rates are set by the candidate whom most workers vote for.

    At each decision some workers, drawn anew, run for office. A candidate's platform is the schedule within ``MOVES``
    of the present one that is best for the candidate, all workers responding best to it; every worker votes for the
    platform that is best for them, the candidate drawn first among equals. Plurality decides, and ties are drawn.

    In the paper language models decide who runs, with which platform, and for whom to vote; that workers here foresee
    what each schedule brings them is ours.

    seed: of all it draws.  candidates: how many workers run; None: all. Then everybody votes for a platform that is
    best for them, which most others may share.
    Raises :class:`InputError` for less than one candidate or more than there are workers.
    """

    def __init__(self, seed: int, candidates: int | None = 5) -> None:
        if candidates is not None and candidates < 1:
            raise InputError(f"election: candidates = {candidates}: must be at least 1, or None for all workers")
        self.candidates = candidates
        self._generator = numpy_generator(seed, "election")

    def __call__(self, economy: TaxEconomy, skills: OfWorkers, past: Sequence[Outcome]) -> Rates:
        """The platform that wins, in every economy."""
        rates, workers = past[-1].rates, skills.shape[-1]
        if len(MOVES) ** len(economy.brackets) > MOST_SCHEDULES:
            raise InputError(f"election: too many platforms for {len(economy.brackets)} brackets")
        flat = zip(skills.reshape(-1, workers), rates.reshape(-1, rates.shape[-1]), strict=True)
        return np.array([self._elect(economy, *each) for each in flat]).reshape(rates.shape)

    def _elect(
        self, economy: TaxEconomy, skills: Float64[np.ndarray, " workers"], rates: Float64[np.ndarray, " brackets"]
    ) -> Float64[np.ndarray, " brackets"]:
        count = len(skills) if self.candidates is None else self.candidates
        if count > len(skills):
            raise InputError(f"election: {count} candidates among {len(skills)} workers")
        moves = np.array(list(product(MOVES, repeat=len(rates))))
        schedules = np.unique(np.clip(rates + moves, 0, 100), axis=0)
        utility = np.concatenate([outcome.utility for outcome in economy.responses(skills, schedules)])
        running = self._generator.permutation(len(skills))[:count]
        # Candidates with one platform are one choice, else they would split the votes of those who want it.
        platforms, first = np.unique(utility[:, running].argmax(0), return_index=True)
        platforms = platforms[np.argsort(first)]
        votes = utility[platforms].argmax(0)
        return np.asarray(schedules[platforms[plurality(votes, self._generator)]])
