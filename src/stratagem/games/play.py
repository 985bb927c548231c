"""What every solver of games is: something that starts on a game, is advanced, and says which strategies it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from stratagem.games.flat import FlatGame, Strategy
from stratagem.part import Part


class Play(ABC):
    """A solver at work on one game. iteration: how many are done.  finished: whether more would change nothing."""

    game: FlatGame
    iteration: int
    finished: bool = False

    @property
    @abstractmethod
    def averaged(self) -> bool:
        """Whether there is an average yet."""

    @abstractmethod
    def advance(self, iterations: int = 1) -> None:
        """Play on; 0 iterations compile what needs it. Raises :class:`InputError` for a negative number."""

    @abstractmethod
    def current(self) -> tuple[Strategy, ...]:
        """The strategies of the next iteration."""

    @abstractmethod
    def average(self) -> tuple[Strategy, ...]:
        """The strategies to play now."""

    def figures(self) -> dict[str, float]:
        """What else is measured of it."""
        return {}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds beside current and average strategies."""
        return {}


class Solver(Part):
    """Finds equilibria of games."""

    kind: ClassVar[str] = "equilibrium_solver"

    def start(self, game: FlatGame) -> Play:
        """Itself at work on a game. Raises :class:`InputError` for a game that it is not made for."""
        raise NotImplementedError
