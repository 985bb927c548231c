"""Branches of episodes that were played: led to a place of theirs again, and sampled from there on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode
from stratagem.language.replayed import replayed, saved_turn
from stratagem.language.rollout import Live
from stratagem.language.watched import Watch
from stratagem.tasks.task import Split, Task


@dataclass(frozen=True)
class Fork:
    """A place in an episode.

    episode: which was played.  kept: tokens of the policy before the place, fewer than the episode has.
    """

    episode: Episode
    kept: int

    def said(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """The turns before the place, and what the turn it lies in began with; None where it lies before a turn."""
        whole, left = [], self.kept
        for turn in self.episode.turns:
            if left < len(turn.action):
                break
            whole.append(saved_turn(turn))
            left -= len(turn.action)
        if not left:
            return whole, None
        begun = saved_turn(self.episode.turns[len(whole)])
        for name in ("action", "logp", "versions"):
            begun[name] = None if begun[name] is None else begun[name][:left]
        return whole, begun


def branches(
    task: Task,
    split: Split,
    forks: Sequence[Fork],
    episodes: Sequence[Episode],
    chat: ChatFormat,
    watch: Watch,
    turns: int | None,
) -> list[Live]:
    """Fresh ``episodes``, one for each of ``forks``, led to its place; one that cannot be led there has failed.

    turns: of its own that a branch may have, the one it begins in the middle of among them; None: as many as it likes.
    """
    calls = []
    for fork, episode in zip(forks, episodes, strict=True):
        whole, begun = fork.said()
        calls.append(partial(replayed, task, split, episode, whole, begun, chat))
    led = []
    for episode, outcome in zip(episodes, watch.run(calls), strict=True):
        if outcome.value is None:
            episode.failure = f"branch: {outcome.failure}"
            continue
        one = outcome.value
        one.most_turns = None if turns is None else len(episode.turns) + turns
        led.append(one)
    return led
