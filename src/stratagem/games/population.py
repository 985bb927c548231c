"""Populations of strategies that grow by responses to mixtures of themselves (PSRO): meta-solver, oracle, stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.metasolvers import MetaSolver, ProjectedReplicator
from stratagem.games.models import Known, Model
from stratagem.games.oracles import BestResponse, Oracle
from stratagem.games.play import Play, Solver
from stratagem.games.played import PlayedGame
from stratagem.games.rosters import ExactRoster, Growth, PlayedRoster, Roster, Trials
from stratagem.part import Part

# ---- when to stop ---------------------------------------------------------------------------------------------------


class Stopping(Part):
    """When a population has grown enough."""

    kind: ClassVar[str] = "stopping"

    def __call__(self, growth: Growth) -> bool:
        """Whether an iteration that brought this is a reason to stop."""
        raise NotImplementedError

    def over(self, grown: Sequence[Growth]) -> bool:
        """Whether the newest iteration was the last. grown: what each so far has brought."""
        return self(grown[-1])


@dataclass(frozen=True)
class NoGain(Stopping):
    """When no player's response is shown to gain more than ``least``, in units of utility.

    With best responses the mixtures are an equilibrium then. Of estimated gains so many standard ``deviations`` are
    taken off, and ``patience`` iterations in a row have to be without gain, since a response that was learned may just
    have been learned badly.
    """

    least: Annotated[float, Ge(0)] = 1e-9
    deviations: Annotated[float, Ge(0)] = 2.0
    patience: Annotated[int, Ge(1)] = 1

    def __call__(self, growth: Growth) -> bool:
        return growth.shown(self.deviations) <= self.least

    def over(self, grown: Sequence[Growth]) -> bool:
        newest = grown[-self.patience :]
        return len(newest) == self.patience and all(map(self, newest))


@dataclass(frozen=True)
class NothingNew(Stopping):
    """When every response is in its population already."""

    def __call__(self, growth: Growth) -> bool:
        return not any(growth.new)


@dataclass(frozen=True)
class Never(Stopping):
    """Only when the iterations that were asked for are over."""

    def __call__(self, growth: Growth) -> bool:
        return False


# ---- the solver -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PSRO(Solver):
    """Policy-space response oracles: play a metagame among strategies found so far, add responses, repeat.

    meta: the mixtures that responses are found against.  final: those by which the population is judged; by default as
    ``meta``.  oracle: finds responses.  stopping: ends it early.  model: the worlds in which all this happens.
    repeats: add a response that is in the population already, which changes mixtures that weigh all strategies alike.
    trials: how payoffs are estimated in a game that is played because it cannot be enumerated.

    For games of any number of players and any utilities, unless the meta-solver says otherwise. With an oracle that
    learns by playing, also for games too large to enumerate.
    """

    meta: MetaSolver = ProjectedReplicator()
    final: MetaSolver | None = None
    oracle: Oracle = BestResponse()
    stopping: Stopping = NoGain()
    model: Model = Known()
    repeats: bool = True
    trials: Trials = Trials()

    @property
    def plays(self) -> bool:
        """Whether its oracle does, and what the game pays is not to be learned from a log."""
        return self.oracle.plays and isinstance(self.model, Known)

    def start(self, game: FlatGame) -> Population:
        """Its population for a game, at its beginning."""
        return Population(self, ExactRoster(game, worlds=self.model(game)))

    def start_playing(self, game: PlayedGame) -> Population:
        if not self.plays:
            super().start_playing(game)
        return Population(self, PlayedRoster(game, self.trials))


class Population(Play):
    """A population at work. roster: its strategies, on an enumerated game or on one that is played.

    grown: what each iteration has brought.
    """

    def __init__(self, solver: PSRO, roster: Roster) -> None:
        self.solver, self.roster, self.game, self.iteration = solver, roster, roster.game, 0
        self.grown: list[Growth] = []
        self.slow = solver.oracle.plays
        self._update()

    @property
    def strategies(self) -> tuple[Any, ...]:
        """By player: rows of an enumerated game, actors of one that is played."""
        return self.roster.strategies

    @property
    def metagame(self) -> Metagame:
        """What its strategies earn against each other."""
        return self.roster.metagame

    @property
    def averaged(self) -> bool:
        """Whether the final mixtures are known; they always are."""
        return True

    def advance(self, iterations: int = 1) -> None:
        """Grow by this many responses of every player, or until the stopping rule ends it."""
        if iterations < 0:
            raise InputError(f"iterations = {iterations}: must be at least 0")
        for _ in range(iterations):
            if self.finished:
                return
            self._grow()

    def _grow(self) -> None:
        responses, growth = self.roster.respond(self.solver.oracle, self.mixtures, self.iteration + 1)
        self.roster.add(responses, [self.solver.repeats or new for new in growth.new])
        # Whoever is interrupted before this has lost an iteration and nothing else.
        self.iteration += 1
        self.grown.append(growth)
        self._update()
        self.finished = self.solver.stopping.over(self.grown)

    def _update(self) -> None:
        """The mixtures that are answered next."""
        self._final: tuple[Mixture, ...] | None = None
        self.mixtures = self.solver.meta(self.metagame, self.iteration + 1)

    def final_mixtures(self) -> tuple[Mixture, ...]:
        """Those by which the population is judged."""
        if self._final is None:
            self._final = (self.solver.final or self.solver.meta)(self.metagame, max(1, self.iteration))
        return self._final

    def current(self) -> tuple[Any, ...]:
        """What plays the mixtures answered next; of an enumerated game, with the same chance of every ending."""
        return self.playing(self.mixtures)

    def average(self) -> tuple[Any, ...]:
        """What plays the final mixtures."""
        return self.playing(self.final_mixtures())

    def playing(self, mixtures: Sequence[Mixture]) -> tuple[Any, ...]:
        """What plays mixtures over the population, by player."""
        return self.roster.playing(mixtures)

    def measured(self) -> dict[str, float]:
        """As the roster measures it."""
        return self.roster.measured(self.final_mixtures(), self.mixtures)

    def figures(self) -> dict[str, float]:
        """Strategies of each player, and of the newest responses what they gain.

        Gains are over the mixtures that were answered. A mixture cannot be less exploitable than what a response gains
        on average over players; of estimated gains that bound is ``exploitability/at_least``, with its standard error.
        """
        found = {f"strategies/player{p}": float(size) for p, size in enumerate(self.metagame.sizes)}
        if self.grown and self.slow:
            newest = self.grown[-1]
            players = len(newest.gains)
            found |= {f"gain/player{p}": gain for p, gain in enumerate(newest.gains)}
            found |= {f"gain/error{p}": error for p, error in enumerate(newest.errors)}
            found["exploitability/at_least"] = sum(newest.gains) / players
            if newest.errors:
                found["exploitability/at_least_error"] = sum(error**2 for error in newest.errors) ** 0.5 / players
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Strategies or payoffs as the roster has them, and final mixtures."""
        mixtures = {f"player{p}": torch.from_numpy(one) for p, one in enumerate(self.final_mixtures())}
        return {**self.roster.tensors(), "mixture": mixtures}

    def save(self, directory: Path) -> dict[str, Any]:
        """The roster's files, and what the iterations have brought."""
        members = self.roster.save(directory)
        grown = [[list(one.gains), list(one.new), list(one.errors)] for one in self.grown]
        return {} if members is None else {"members": members, "grown": grown}

    def load(self, iteration: int, told: Mapping[str, Any]) -> None:
        """Go on from where :meth:`save` was asked, on a roster that has been restored."""
        self.iteration = iteration
        self.grown = [Growth(tuple(gains), tuple(new), tuple(errors)) for gains, new, errors in told["grown"]]
        self._update()
        self.finished = bool(self.grown) and self.solver.stopping.over(self.grown)
