"""Episodes led again to where they were: what was said is said once more to a fresh environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, Turn, step_fault
from stratagem.language.rollout import Live, reading, reset
from stratagem.tasks.mixture import owner
from stratagem.tasks.task import Environment, Split, Task

KEPT = ("read", "action", "logp", "text", "version", "versions")
"""What is needed of a turn to take it again; the rest is the environment's answer to it."""


def saved_turn(turn: Turn) -> dict[str, Any]:
    """A turn as JSON data, to be taken again."""
    return {name: getattr(turn, name) for name in KEPT}


def replayed(
    task: Task,
    split: Split,
    episode: Episode,
    turns: Sequence[Mapping[str, Any]],
    begun: Mapping[str, Any] | None,
    chat: ChatFormat,
) -> Live:
    """A fresh episode after these turns, in the middle of ``begun`` where that is one.

    Exact where an episode follows from its number and the actions, as the contract of a task demands. Raises
    ``ValueError`` when its environment shows something else than before, fails, or ends the episode; and whatever it
    raises itself.
    """
    environment = task.environment(split, episode.index)
    try:
        return _led(task, environment, episode, turns, begun, chat)
    except BaseException:
        with suppress(Exception):
            environment.close()
        raise


def _led(
    task: Task,
    environment: Environment,
    episode: Episode,
    turns: Sequence[Mapping[str, Any]],
    begun: Mapping[str, Any] | None,
    chat: ChatFormat,
) -> Live:
    owned = owner(task, episode.index)
    observation = reset(environment)
    one = Live(owned, episode, environment, observation, reading(owned, observation, [], chat))
    for turn in turns:
        _check(one, turn)
        episode.turns.append(Turn(one.observation, **turn))
        step = environment.step(turn["text"])
        if step_fault(step, owned.reward_names, len(episode.turns)) is not None or step.done:
            raise ValueError("its environment failed, or ended it")
        episode.record(step)
        one.observation = step.observation
        one.unread = reading(owned, step.observation, episode.turns, chat)
    if begun is not None:
        _check(one, begun)
        one.begun, one.unread = Turn(one.observation, **begun), []
    return one


def _check(one: Live, turn: Mapping[str, Any]) -> None:
    if one.unread != turn["read"]:
        raise ValueError("its environment shows something else")
