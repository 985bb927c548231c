"""Episodes whose failed tool calls are taken back while they are played: the text before one is written again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode
from stratagem.language.forks import Fork, branches
from stratagem.language.rollout import act, advance, finish, start
from stratagem.language.sampling import SamplingParams
from stratagem.seeding import derive
from stratagem.tasks.task import Split, Task
from stratagem.watched import Watch


@dataclass(frozen=True)
class Corrected:
    """Episodes as they ended.

    episodes: in the order of those given, each in its last version.  tries: how often each was taken back.
    sampled: tokens in all, those taken back included.
    """

    episodes: tuple[Episode, ...]
    tries: tuple[int, ...]
    sampled: int


def play_corrected(
    task: Task,
    split: Split,
    episodes: Sequence[Episode],
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
    back: int = 100,
    tries: int = 4,
) -> Corrected:
    """Play fresh ``episodes``, and take back every call that failed (self-correction, arXiv 2509.13761).

    After a turn whose call failed (``Step.ran``) the episode is left as it was before that turn, ``back`` tokens of the
    policy earlier and at the earliest at its start, and goes on from there with another seed: reasoning and call are
    written again, and the error is never read. An episode has ``tries`` of these in all; after them it goes on with the
    error, as it does when its environment cannot be led there again. A failure that ended the episode is taken back as
    well. With ``tries=0`` it is :func:`~stratagem.language.rollout.play`.

    How many tries there are is not said where the method is described; they are counted by episode here, since with
    ``back`` above 0 an earlier call can fail anew.

    Raises :class:`InputError` for numbers below 0.
    """
    for name, value in (("back", back), ("tries", tries)):
        if value < 0:
            raise InputError(f"self-correction: {name} = {value}: must be at least 0")
    last, taken = list(episodes), [0] * len(episodes)
    place = {id(episode): number for number, episode in enumerate(last)}
    live, sampled = start(task, split, episodes, chat, watch), 0
    try:
        while live:
            before = sum(one.written for one in live)
            acting = live
            act(acting, engine, params)
            sampled += sum(one.written for one in acting) - before
            live = advance(acting, chat, watch, engine)
            failed = [one for one in acting if _failed(one.episode) and taken[place[id(one.episode)]] < tries]
            again, forks = list[Episode](), list[Fork]()
            for one in failed:
                number = place[id(one.episode)]
                fresh = Episode(
                    one.episode.index,
                    one.episode.sample,
                    derive(episodes[number].seed, "corrected", taken[number]),
                    group=one.episode.group,
                )
                place[id(fresh)] = number
                again.append(fresh)
                forks.append(Fork(one.episode, max(one.episode.length - len(one.episode.turns[-1].action) - back, 0)))
            led = branches(task, split, forks, again, chat, watch, None)
            for one in led:
                number = place[id(one.episode)]
                taken[number] += 1
                last[number] = one.episode
            given_up = {id(one) for one in live if last[place[id(one.episode)]] is not one.episode}
            finish([one for one in live if id(one) in given_up], engine, watch)
            live = [one for one in live if id(one) not in given_up] + led
    finally:
        finish(live, engine, watch)
    return Corrected(tuple(last), tuple(taken), sampled)


def _failed(episode: Episode) -> bool:
    return episode.failure is None and bool(episode.turns) and episode.turns[-1].ran is False
