"""Episodes whose first prompt begins with something else, and which are learned from as if it had not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode
from stratagem.language.rollout import Live, play_on, reading, start
from stratagem.language.sampling import SamplingParams
from stratagem.tasks.task import Observation, Split, Task, restated
from stratagem.watched import Watch

Before = Callable[[str], str]
"""All that stands before a question, given the words of its nonsense."""


def preceded(observation: Observation, text: str) -> Observation:
    """The observation with this before its text, or before the first question of its opening."""
    return restated(observation, lambda question: text + question)


def play_perturbed(
    task: Task,
    split: Split,
    episodes: Sequence[Episode],
    nonsense: Sequence[str],
    before: Before,
    longest: int | None,
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
) -> None:
    """Play fresh episodes as :func:`~stratagem.language.rollout.play` does, each after its own nonsense.

    When they are over, their first turns say that the prompt as it is was read; ``logp`` is still of the one that was.

    longest: tokens of a perturbed prompt; the last words are left out until it fits, or none is left.
    """
    words = {id(episode): text for episode, text in zip(episodes, nonsense, strict=True)}
    live = start(task, split, episodes, chat, watch)
    clean = [(one.episode, one.unread) for one in live]
    for one in live:
        one.unread = _read(one, words[id(one.episode)].split(" "), before, longest, chat)
    play_on(live, engine, chat, params, watch)
    for episode, read in clean:
        if episode.turns:
            episode.turns[0].read = read


def _read(one: Live, words: Sequence[str], before: Before, longest: int | None, chat: ChatFormat) -> list[int]:
    """Tokens of the perturbed prompt, with as many of these words as there is room for."""

    def read(count: int) -> list[int]:
        text = before(" ".join(words[:count]))
        return reading(one.task, preceded(one.observation, text), [], chat)

    tokens = read(len(words))
    if longest is None or len(tokens) <= longest:
        return tokens
    fits, too_many = 0, len(words)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if len(read(middle)) <= longest else (fits, middle)
    return read(fits)
