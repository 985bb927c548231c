"""Episodes as rows of a journal: written when they end, taken from there instead of being played again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stratagem.language.episodes import Episode, Turn
from stratagem.tasks.task import Observation
from stratagem.training.journal import Journal

_OUTCOME = ("components", "success", "truncated", "failure", "answer")


@dataclass
class Diary:
    """The episodes of one batch.

    An episode is known by its number, its seed and where it begins: one that differs in any of these is played.
    """

    journal: Journal
    step: int
    _known: dict[tuple[Any, ...], dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._known = {tuple(row["key"]): row for row in self.journal.rows(self.step)}

    def taken(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Enter into fresh episodes how they went, as far as it is known; those that have to be played."""
        unknown = []
        for episode in episodes:
            row = self._known.get(_key(episode))
            if row is None:
                unknown.append(episode)
                continue
            episode.turns = [_turn(turn) for turn in row["turns"]]
            for name in _OUTCOME:
                setattr(episode, name, row[name])
        return unknown

    def write(self, episodes: Sequence[Episode]) -> None:
        """Note episodes that have ended."""
        self.journal.write(self.step, map(_row, episodes))


def _key(episode: Episode) -> tuple[Any, ...]:
    return (episode.group, episode.sample, episode.seed, episode.index, *episode.earlier)


def _row(episode: Episode) -> dict[str, Any]:
    """What a task says may be of numpy's types, which JSON does not know."""
    return {
        "key": list(_key(episode)),
        "turns": [_said(turn) for turn in episode.turns],
        "components": episode.components,
        "success": bool(episode.success),
        "truncated": bool(episode.truncated),
        "failure": episode.failure,
        "answer": int(episode.answer),
    }


def _said(turn: Turn) -> dict[str, Any]:
    seen = turn.observation
    observation = {
        "text": seen.text,
        "state_key": int(seen.state_key),
        "role": int(seen.role),
        "context": int(seen.context),
        "opening": [dict(message) for message in seen.opening],
    }
    return {**vars(turn), "observation": observation, "done": bool(turn.done)}


def _turn(row: Mapping[str, Any]) -> Turn:
    seen = dict(row["observation"])
    return Turn(**{**row, "observation": Observation(**{**seen, "opening": tuple(seen["opening"])})})
