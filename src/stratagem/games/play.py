"""What every solver of games is: something that starts on a game, is advanced, and says what it found and how good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.part import Part

if TYPE_CHECKING:
    from stratagem.games.played import PlayedGame


class Play(ABC):
    """A solver at work on one game. iteration: how many are done.  finished: whether more would change nothing.

    game: an enumerated one, unless the solver was started to play.
    slow: whether an iteration takes much longer than to measure what it brought, and is to be kept at once.
    """

    iteration: int
    finished: bool = False
    slow: bool = False
    game: Any

    @property
    @abstractmethod
    def averaged(self) -> bool:
        """Whether there is an average yet."""

    @abstractmethod
    def advance(self, iterations: int = 1) -> None:
        """Play on; 0 iterations compile what needs it. Raises :class:`InputError` for a negative number."""

    @abstractmethod
    def current(self) -> tuple[Any, ...]:
        """What players play in the next iteration: strategies of an enumerated game, actors of one that is played."""

    @abstractmethod
    def average(self) -> tuple[Any, ...]:
        """What players should play now."""

    @abstractmethod
    def measured(self) -> dict[str, float]:
        """How good that is, with its ``value`` to the first player; of an enumerated game, ``exploitability``."""

    def figures(self) -> dict[str, float]:
        """What else is measured of it."""
        return {}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds beside current and average strategies."""
        return {}

    def save(self, directory: Path) -> dict[str, Any]:
        """Write what needs files of its own, and say as plain data what it takes beside tensors to go on from here."""
        return {}


class Solver(Part):
    """Finds equilibria of games.

    plays: whether it can be at work on a game that is played and not enumerated.
    """

    kind: ClassVar[str] = "equilibrium_solver"

    @property
    def plays(self) -> bool:
        return False

    def start(self, game: FlatGame) -> Play:
        """Itself at work on a game. Raises :class:`InputError` for a game that it is not made for."""
        raise NotImplementedError

    def start_playing(self, game: PlayedGame) -> Play:
        """Itself at work on a game that is not enumerated. Raises :class:`InputError` where it cannot play."""
        raise InputError(f"{self.part_name()}: needs a game that is enumerated; {game.name} is played")


def measured_exactly(game: FlatGame, average: Sequence[Strategy], current: Sequence[Strategy]) -> dict[str, float]:
    """Exploitability of average and current strategies, and what the average ones pay the first player."""
    return {
        "exploitability": float(game.exploitability(average)),
        "exploitability/current": float(game.exploitability(current)),
        "value": float(game.values(average)[0]),
    }
