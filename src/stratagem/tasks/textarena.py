"""TextArena's single-player games."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError, unknown
from stratagem.tasks.adapter import episode_seed, require
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


def from_spec(argument: str | None, options: Mapping[str, str]) -> TextArenaTask:
    """The task ``textarena:<id>[,success=1,max_turns=32,max_new_tokens=64]``."""
    if argument is None:
        raise InputError("task textarena needs the id of a game, e.g. textarena:FrozenLake-v0-raw")
    check_names("textarena", options, ["success", "max_turns", "max_new_tokens"])
    return TextArenaTask(argument, **options)  # type: ignore[arg-type]  # validated and converted on construction


@dataclass(frozen=True)
class TextArenaTask(Task):
    """A game of TextArena for one player.

    The policy's text is the move; what a game makes of an invalid one is its own rule. The reward comes with the end of
    the game, in most games from 0 to 1 by progress. Success: a reward of at least ``success``. Training games have even
    seeds and test games odd ones. There is no solver. TextArena draws from Python's global generator; each game here
    keeps a state of its own for it and leaves the process's as it was.
    """

    id: str
    success: float = 1.0
    max_turns: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 64

    name = "textarena"
    description = "a TextArena game for one player"

    def __post_init__(self) -> None:
        validate(self)
        library = require("textarena", "text")
        games = require("textarena.envs.registration", "text").ENV_REGISTRY
        if self.id not in games:
            raise unknown("TextArena game", self.id, games)
        object.__setattr__(self, "name", f"textarena:{self.id}")
        try:
            game = self.environment("train", 0)
            game.reset()
        except (AssertionError, LookupError, TypeError, ValueError) as refusal:
            reason = " ".join(str(refusal).split())[:200]
            raise InputError(f"TextArena game {self.id!r} does not start with one player: {reason}") from refusal
        if not isinstance(game.state, library.SinglePlayerState):
            raise InputError(f"TextArena game {self.id!r} is not for one player")

    def environment(self, split: Split, index: int) -> TextArenaGame:
        """The game with this number."""
        return TextArenaGame(self.id, episode_seed(split, index), self.success)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: TextArena brings no solver."""
        raise NotImplementedError(f"{self.name} brings no solver")

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: without a solution there is none to corrupt."""
        raise NotImplementedError(f"{self.name} brings no solver")


class TextArenaGame(Environment):
    """One game."""

    def __init__(self, game: str, seed: int, success: float) -> None:
        self._seed = seed
        self._success = success
        self._random = random.Random(seed).getstate()
        with self._own_random():
            self._game = require("textarena", "text").make(game)

    @property
    def state(self) -> Any:
        """TextArena's own state of the game."""
        return self._game.state

    def reset(self) -> Observation:
        """Start the game."""
        with self._own_random():
            self._game.reset(num_players=1, seed=self._seed)
            return self._observe()

    def step(self, action: str) -> Step:
        """Make a move."""
        with self._own_random():
            done, _ = self._game.step(action=action)
            observation = self._observe()
        reward = float((self.state.rewards or {}).get(0, 0.0)) if done else 0.0
        return Step(observation, reward, bool(done), success=bool(done) and reward >= self._success)

    def _observe(self) -> Observation:
        _, seen = self._game.get_observation()
        text = seen if isinstance(seen, str) else "\n".join(message for _, message, _ in seen)
        return Observation(text, state_key(text))

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        outside = random.getstate()
        random.setstate(self._random)
        try:
            yield
        finally:
            self._random = random.getstate()
            random.setstate(outside)
