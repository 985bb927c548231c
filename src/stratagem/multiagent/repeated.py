"""The repeated prisoner's dilemma with actions between defecting and cooperating, its players and its schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float64

from stratagem.errors import InputError
from stratagem.seeding import derive, numpy_generator
from stratagem.validation import validate_fields

Actions = Float64[np.ndarray, " runs"]
"""Between 0, defect, and 1, cooperate; one for each of the games side by side."""


@dataclass(frozen=True)
class ContinuousDilemma:
    """What cooperating with probabilities a and b pays: ``R ab + S a(1-b) + T (1-a)b + P (1-a)(1-b)``."""

    reward: float = 3.0
    sucker: float = 0.0
    temptation: float = 5.0
    punishment: float = 1.0

    def payoff(
        self, mine: Float64[np.ndarray, "*of"], theirs: Float64[np.ndarray, "*of"]
    ) -> Float64[np.ndarray, "*of"]:
        """What I earn. Raises :class:`InputError` for an action outside [0, 1]."""
        for who, actions in (("mine", mine), ("theirs", theirs)):
            if not np.all((actions >= 0) & (actions <= 1)):
                raise InputError(f"dilemma: an action of {who} is not in [0, 1]")
        alone, exploited = (1 - mine) * theirs, mine * (1 - theirs)
        return np.asarray(
            self.reward * mine * theirs
            + self.sucker * exploited
            + self.temptation * alone
            + self.punishment * (1 - mine) * (1 - theirs)
        )


# ---- players --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Move:
    """What a player does, and figures that say why."""

    actions: Actions
    figures: Mapping[str, Actions] = field(default_factory=dict)


Moves = Generator[Move, Actions, None]
"""A player at work: it is sent what the other did in the round of its last move."""


class Player(ABC):
    """A strategy. It may be started many times."""

    @abstractmethod
    def moves(self, first: Actions, seed: int) -> Moves:
        """Its moves. first: taken for what the other did before the first round."""


@dataclass(frozen=True)
class Constant(Player):
    """Does the same in every round."""

    action: Annotated[float, Ge(0), Le(1)] = 1.0

    def __post_init__(self) -> None:
        validate_fields(self, "constant player")

    def moves(self, first: Actions, seed: int) -> Moves:
        while True:
            yield Move(np.full_like(first, self.action))


@dataclass(frozen=True)
class TitForTat(Player):
    """Does what the other did in the round before."""

    def moves(self, first: Actions, seed: int) -> Moves:
        theirs = first
        while True:
            theirs = yield Move(theirs)


@dataclass(frozen=True)
class SmoothedTitForTat(Player):
    """Does what the other did on average: ``a = memory a' + (1 - memory) b'``, with the round before primed.

    Against an opponent who cooperates at random, independently, the variance of its actions is that of the opponent's
    times ``(1 - memory) / (1 + memory)`` in the long run.
    """

    memory: Annotated[float, Ge(0), Lt(1)] = 0.9

    def __post_init__(self) -> None:
        validate_fields(self, "smoothed tit for tat")

    def moves(self, first: Actions, seed: int) -> Moves:
        actions = first
        while True:
            theirs = yield Move(actions)
            actions = self.memory * actions + (1 - self.memory) * theirs


# ---- opponents ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """Rounds in which an opponent defects with a fixed probability, whatever the other does."""

    rounds: Annotated[int, Gt(0)]
    defects: Annotated[float, Ge(0), Le(1)] = 0.0

    def __post_init__(self) -> None:
        validate_fields(self, "phase")


@dataclass(frozen=True)
class Schedule:
    """An opponent who follows a schedule and does not react, so that nothing is gained by cooperating with it."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("schedule: needs at least one phase")

    @property
    def rounds(self) -> int:
        """How long it is."""
        return sum(phase.rounds for phase in self.phases)

    @property
    def edges(self) -> list[int]:
        """Rounds before each phase, and before what follows the last one."""
        return list(accumulate((phase.rounds for phase in self.phases), initial=0))

    def draw(self, runs: int, seed: int) -> Float64[np.ndarray, "rounds runs"]:
        """Its actions, the same for every player who meets it with this seed."""
        defects = np.repeat([phase.defects for phase in self.phases], [phase.rounds for phase in self.phases])
        drawn = numpy_generator(seed, "repeated", "schedule").random((self.rounds, runs))
        return (drawn >= defects[:, None]).astype(np.float64)


def interrupted(defection: int = 50, noisy: float = 0.3) -> Schedule:
    """Cooperation, a block of defection, cooperation, 200 noisy rounds, cooperation (arXiv 2602.20846).

    Cooperation lasts 500 rounds each time. noisy: probability of defecting in a noisy round.
    """
    return Schedule((Phase(500), Phase(defection, 1.0), Phase(500), Phase(200, noisy), Phase(500)))


# ---- games ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Match:
    """A repeated game, many times side by side. figures: what the player said of its moves, by name."""

    mine: Float64[np.ndarray, "rounds runs"]
    theirs: Float64[np.ndarray, "rounds runs"]
    payoffs: Float64[np.ndarray, "rounds runs"]
    figures: Mapping[str, Float64[np.ndarray, "rounds runs"]]


def play_repeated(
    player: Player,
    opponent: Schedule | Player,
    runs: int,
    seed: int,
    *,
    rounds: int | None = None,
    dilemma: ContinuousDilemma | None = None,
    progress: Callable[[int], None] = lambda number: None,
) -> Match:
    """Play against a schedule, or against another player, who reacts.

    A player takes it that the other did before the first round what a schedule does in it; and cooperated, where the
    other is a player.  rounds: of the game; those of the schedule by default.  progress: called with rounds played.

    Raises :class:`InputError` for no runs or rounds, and for more rounds than the schedule has.
    """
    known = opponent.rounds if isinstance(opponent, Schedule) else rounds
    length = known if rounds is None else rounds
    if runs < 1 or length is None or length < 1:
        raise InputError(f"repeated game: runs = {runs}, rounds = {length}: both must be at least 1")
    if isinstance(opponent, Schedule) and length > opponent.rounds:
        raise InputError(f"repeated game: rounds = {length}: the schedule has {opponent.rounds}")
    ones = np.ones(runs)
    scheduled = opponent.draw(runs, seed) if isinstance(opponent, Schedule) else None
    other = None if isinstance(opponent, Schedule) else opponent.moves(ones, derive(seed, "repeated", "opponent"))
    player_moves = player.moves(ones if scheduled is None else scheduled[0], seed)
    mine: list[Move] = []
    theirs: list[Actions] = []
    for number in range(length):
        move = next(player_moves) if not number else player_moves.send(theirs[-1])
        if scheduled is not None:
            answer = scheduled[number]
        else:
            assert other is not None
            answer = (next(other) if not number else other.send(mine[-1].actions)).actions
        mine.append(move)
        theirs.append(answer)
        progress(number + 1)
    taken, given = np.stack([move.actions for move in mine]), np.stack(theirs)
    figures = {name: np.stack([move.figures[name] for move in mine]) for name in mine[0].figures}
    return Match(taken, given, (dilemma or ContinuousDilemma()).payoff(taken, given), figures)
