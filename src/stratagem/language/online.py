"""Episodes in text that branch and end in the middle of a turn, while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine, TreeEngine, Written
from stratagem.language.episodes import Episode
from stratagem.language.forks import Fork, branches
from stratagem.language.rollout import Live, advance, enter_said, finish, requested, seat, start
from stratagem.language.sampling import SamplingParams
from stratagem.sampling.growth import Growth
from stratagem.tasks.task import Split, Task
from stratagem.watched import Watch


def play_trees(
    task: Task,
    split: Split,
    roots: Sequence[Episode],
    growth: Growth,
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
) -> list[tuple[Episode, int]]:
    """Play fresh episodes as the trees that come of them.

    roots: those of ``growth``, in its order.  engine: one that is a :class:`~stratagem.language.engine.TreeEngine`.

    Returns the episodes that are left, each with how many of its first tokens it shares with one before it, group by
    group, and then those that failed. The environment of a path that came off another in the middle of an
    episode is a fresh one that was led there by the same actions; where one cannot be led, the path is lost, as those
    are whose environments fail.
    """
    assert isinstance(engine, TreeEngine)
    episodes = dict(enumerate(roots))
    begun = start(task, split, roots, chat, watch)
    number = {id(episode): path for path, episode in episodes.items()}
    growth.lose([path for path, episode in episodes.items() if episode.failure is not None])
    live = {number[id(one.episode)]: one for one in begun}
    failed = [episode for episode in roots if episode.failure is not None]
    try:
        while live:
            seat([*live.values()], engine)
            requests = [requested(one, params, params.max_new_tokens) for one in live.values()]
            written = engine.grow(requests, [*live], growth)
            fresh, lost = _came_off(task, split, live, written[len(live) :], growth, engine, chat, watch)
            episodes |= {path: one.episode for path, one in fresh.items()}
            failed += lost
            live |= fresh
            ends = [turn.path for turn in written if turn.completion.finish_reason == "cut" and turn.path in live]
            finish([live.pop(path) for path in ends], engine, watch)
            for turn in written:
                if turn.path in live:
                    one = live[turn.path]
                    enter_said(one, requested(one, params, params.max_new_tokens), turn.completion, params)
            acted, ongoing = live, advance([*live.values()], chat, watch, engine)
            going = {id(one) for one in ongoing}
            growth.lose([path for path, one in acted.items() if one.episode.failure is not None])
            failed += [one.episode for one in acted.values() if one.episode.failure is not None]
            live = {path: one for path, one in acted.items() if id(one) in going}
    finally:
        finish([*live.values()], engine, watch)
    left = [(episodes[path], held) for path, held in zip(*(rows.tolist() for rows in growth.left()), strict=True)]
    return left + [(episode, 0) for episode in failed]


def _came_off(
    task: Task,
    split: Split,
    live: Mapping[int, Live],
    written: Sequence[Written],
    growth: Growth,
    engine: Engine,
    chat: ChatFormat,
    watch: Watch,
) -> tuple[dict[int, Live], list[Episode]]:
    """Paths that came off others within the turn that these now write, led to where it begins, and the lost ones."""
    if not written:
        return {}, []
    origins = []
    for turn in written:
        path = turn.path
        while path not in live:
            path = int(growth.paths.parent[path])
        origins.append(live[path])
    episodes = [
        Episode(origin.episode.index, turn.path, turn.seed, group=origin.episode.group)
        for origin, turn in zip(origins, written, strict=True)
    ]
    wanted = [turn.completion.finish_reason != "cut" for turn in written]
    forks = [Fork(origin.episode, origin.episode.length) for origin in origins]
    led = branches(
        task,
        split,
        [fork for fork, needed in zip(forks, wanted, strict=True) if needed],
        [episode for episode, needed in zip(episodes, wanted, strict=True) if needed],
        chat,
        watch,
        None,
    )
    found = {id(one.episode): one for one in led}
    fresh: dict[int, Live] = {}
    unused, lost = list[int](), dict[int, Episode]()
    for turn, episode, needed in zip(written, episodes, wanted, strict=True):
        one = found.get(id(episode))
        if one is None:
            unused.append(turn.session)
            lost |= {turn.path: episode} if needed else {}
            continue
        one.sessions = {one.observation.context: turn.session}
        fresh[turn.path] = one
    engine.close(unused)
    growth.lose([*lost])
    return fresh, [*lost.values()]
