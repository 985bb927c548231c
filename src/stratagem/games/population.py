"""Populations of strategies that grow by responses to mixtures of themselves (PSRO): meta-solver, oracle, stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.metasolvers import MetaSolver, ProjectedReplicator
from stratagem.games.models import Known, Model
from stratagem.games.oracles import BestResponse, Oracle, Round, expected, profile_payoffs
from stratagem.games.play import Play, Solver
from stratagem.part import Part

# ---- when to stop ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Growth:
    """What an iteration has brought. gains: what each player's response earns more than its mixture.

    new: whether each player's response was not in its population yet.
    """

    gains: tuple[float, ...]
    new: tuple[bool, ...]


class Stopping(Part):
    """When a population has grown enough."""

    kind: ClassVar[str] = "stopping"

    def __call__(self, growth: Growth) -> bool:
        """Whether this iteration was the last."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoGain(Stopping):
    """When no player's response gains more than ``least``, in units of utility: the mixtures are an equilibrium."""

    least: Annotated[float, Ge(0)] = 1e-9

    def __call__(self, growth: Growth) -> bool:
        return max(growth.gains) <= self.least


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

    For games of any number of players and any utilities, unless the meta-solver says otherwise.
    """

    meta: MetaSolver = ProjectedReplicator()
    final: MetaSolver | None = None
    oracle: Oracle = BestResponse()
    stopping: Stopping = NoGain()
    model: Model = Known()
    repeats: bool = True

    def start(self, game: FlatGame) -> Population:
        """Its population for a game, at its beginning."""
        return Population(self, game)


class Population(Play):
    """A population at work on one game.

    It begins with ``strategies``, rows for each player; by default the uniform strategy. What it knows of the game are
    ``worlds``: those of the solver's model by default, such as games with utilities learned from a log.

    Raises :class:`InputError` for a player without strategies and for strategies or worlds that do not fit the game.
    """

    def __init__(
        self,
        solver: PSRO,
        game: FlatGame,
        strategies: Sequence[Strategy] | None = None,
        worlds: Sequence[FlatGame] | None = None,
    ) -> None:
        self.solver, self.game, self.iteration, self.finished = solver, game, 0, False
        self.worlds = tuple(worlds) if worlds is not None else solver.model(game)
        if not self.worlds or any(world.sequence.shape != game.sequence.shape for world in self.worlds):
            raise InputError(f"population: worlds must be at least one game on the tree of {game.name}")
        begin = [one[None] for one in game.uniform()] if strategies is None else strategies
        self.strategies = tuple(_checked(game, number, rows) for number, rows in enumerate(begin))
        if len(self.strategies) != len(game.players):
            raise InputError(f"population: {len(self.strategies)} players have strategies; needs {len(game.players)}")
        self._update()

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
        self.iteration += 1
        now = Round(self.worlds, self.strategies, self.mixtures, self.iteration)
        game, players = now.expected, range(len(self.game.players))
        responses = [self.solver.oracle(player, now) for player in players]
        earned = [game.sequence_values(player, now.mixed) for player in players]
        new = tuple(not (self.strategies[p] == responses[p]).all(-1).any() for p in players)
        gains = tuple(float(earned[p] @ (game.players[p].plan(responses[p]) - now.mixed[p])) for p in players)
        self.strategies = tuple(
            np.concatenate([rows, response[None]]) if fresh or self.solver.repeats else rows
            for rows, response, fresh in zip(self.strategies, responses, new, strict=True)
        )
        self._update()
        self.finished = self.solver.stopping(Growth(gains, new))

    def _update(self) -> None:
        """The metagame of the strategies there are, and the mixtures that are answered next."""
        self._plans = self.game.plans(self.strategies)
        self._final: tuple[Mixture, ...] | None = None
        self.metagame = Metagame(profile_payoffs(self.worlds, self._plans))
        self.mixtures = self.solver.meta(self.metagame, self.iteration + 1)

    def final_mixtures(self) -> tuple[Mixture, ...]:
        """Those by which the population is judged."""
        if self._final is None:
            self._final = (self.solver.final or self.solver.meta)(self.metagame, max(1, self.iteration))
        return self._final

    def current(self) -> tuple[Strategy, ...]:
        """The strategies that play the mixtures answered next: the same chance of every ending."""
        return self.playing(self.mixtures)

    def average(self) -> tuple[Strategy, ...]:
        """The strategies that play the final mixtures."""
        return self.playing(self.final_mixtures())

    def playing(self, mixtures: Sequence[Mixture]) -> tuple[Strategy, ...]:
        """Of mixtures over the population: a strategy for each player that reaches every ending as often."""
        return tuple(
            player.normalized(mixture @ plan)
            for player, mixture, plan in zip(self.game.players, mixtures, self._plans, strict=True)
        )

    def figures(self) -> dict[str, float]:
        """Strategies of each player, how uncertain the metagame is, and its own regret of the final mixtures."""
        found = {f"strategies/player{p}": float(len(rows)) for p, rows in enumerate(self.strategies)}
        if len(self.worlds) > 1:
            mixtures, known = self.final_mixtures(), expected(self.worlds)
            found["exploitability/believed"] = float(known.exploitability(self.playing(mixtures)))
            found["regret/upper_bound"] = self.metagame.upper_regret(mixtures)
            found["payoff_width"] = float((self.metagame.upper - self.metagame.lower).max())
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Strategies by row, final mixtures, and payoffs of the metagame."""
        rows = {f"player{p}": torch.from_numpy(one) for p, one in enumerate(self.strategies)}
        mixtures = {f"player{p}": torch.from_numpy(one) for p, one in enumerate(self.final_mixtures())}
        return {
            "population": rows,
            "mixture": mixtures,
            "metagame": {"payoffs": torch.from_numpy(self.metagame.payoffs)},
        }


def _checked(game: FlatGame, number: int, rows: Strategy) -> Strategy:
    """A player's strategies, when they are some of its."""
    if number >= len(game.players):
        raise InputError(f"population: strategies for player {number}, but {game.name} has {len(game.players)} players")
    player = game.players[number]
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != player.sequences:
        raise InputError(f"population: strategies of player {number} must be rows of {player.sequences} sequences")
    if not len(rows):
        raise InputError(f"population: player {number} has no strategy; every player needs at least one")
    if not np.isfinite(rows).all() or (rows < 0).any() or not np.allclose(rows, player.normalized(rows), atol=1e-9):
        raise InputError(f"population: strategies of player {number} must be probabilities in every state")
    return rows
