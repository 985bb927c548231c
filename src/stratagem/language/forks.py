"""Branches of episodes that were played: led to a place of theirs again, and sampled from there on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch

from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode
from stratagem.language.replayed import replayed, saved_turn
from stratagem.language.rollout import Live
from stratagem.parts import Forking
from stratagem.sampling import Branching
from stratagem.sampling.branching import as_branches, as_roots
from stratagem.seeding import derive
from stratagem.tasks.task import Split, Task
from stratagem.watched import Watch


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


@dataclass(frozen=True, eq=False)
class Grown:
    """What became of a batch whose episodes were gone on with.

    x: what to learn from.  tokens: sampled in branches.  forks: how many there were.  failed: episodes that were lost.
    """

    x: Experience
    tokens: int
    forks: int
    failed: int

    @property
    def metrics(self) -> dict[str, float]:
        """Groups on branches, trajectories that took something over, and episodes lost."""
        assert self.x.branch is not None and self.x.taken_over is not None
        return {
            "branches/groups": float((self.x.branch > 0).sum()),
            "branches/taken_over": float((self.x.taken_over > 0).sum()),
            "branches/failed": float(self.failed),
        }


def grown(
    roots: Experience,
    episodes: Sequence[Episode],
    sampler: Branching,
    go_on: Callable[[Sequence[Fork], Sequence[Episode]], None],
    pack: Callable[[Sequence[Sequence[Episode]]], Experience],
    numbered: int,
) -> Grown:
    """Fork as deep as the sampler asks; a group none of whose branches came through is left out.

    roots: the batch into which ``episodes`` were packed, in their order.  go_on: plays fresh episodes from their forks.
    pack: groups as a batch.  numbered: forks of the run so far; groups of forks have negative numbers.
    """
    newest = as_roots(roots)
    pieces = [newest] if sampler.train_roots or not sampler.branches else []
    tokens, lost, count = 0, 0, 0
    for generation in range(1, sampler.depth + 1 if sampler.branches else 1):
        forks, home = _forks(newest, episodes, sampler.at)
        if not forks:
            break
        # A place of a tree may be chosen again, and has to be gone on with otherwise.
        first = (generation - 1) * sampler.branches if sampler.together else 0
        groups = [
            [_fresh(fork, number, -(numbered + count + place)) for number in range(first, first + sampler.branches)]
            for place, fork in enumerate(forks, 1)
        ]
        count += len(forks)
        places = [fork for fork in forks for _ in range(sampler.branches)]
        played = [*chain.from_iterable(groups)]
        go_on(places, played)
        kept = {id(episode): fork.kept for fork, episode in zip(places, played, strict=True)}
        tokens += sum(max(episode.length - kept[id(episode)], 0) for episode in played)
        lost += sum(episode.failure is not None for episode in played)
        good = [usable for group in groups if (usable := [e for e in group if e.failure is None])]
        if not good:
            break
        fresh = [*chain.from_iterable(good)]
        taken_over = torch.tensor([kept[id(episode)] for episode in fresh])
        grown_by = as_branches(pack(good), taken_over, generation)
        if sampler.together:
            back = [home[place] for place, group in enumerate(groups) for e in group if e.failure is None]
            joined = torch.cat([newest.group_of_trajectory.labels, torch.tensor(back)])
            newest = newest.with_others(grown_by, torch.tensor(back))
            everyone = [*episodes, *fresh]
            episodes = [everyone[number] for number in joined.argsort(stable=True).tolist()]
            pieces = [newest]
            continue
        episodes, newest = fresh, grown_by
        pieces.append(newest)
    nothing = torch.zeros(roots.trajectories, dtype=torch.bool)
    x = Experience.concatenate(pieces) if pieces else as_roots(roots).select(nothing)
    return Grown(x, tokens, count, lost)


def _forks(x: Experience, episodes: Sequence[Episode], at: Forking) -> tuple[list[Fork], list[int]]:
    """Where to fork the episodes that were packed into a batch, and the number of each one's group."""
    places = torch.nonzero(at(x)).squeeze(1)
    kept = x.trajectory_of_token.position()[places].tolist()
    trajectories = x.trajectory_of_token.labels[places].tolist()
    forks = [Fork(episodes[trajectory], tokens) for trajectory, tokens in zip(trajectories, kept, strict=True)]
    return forks, x.group_of_token.labels[places].tolist()


def _fresh(fork: Fork, number: int, group: int) -> Episode:
    """An episode to lead to a fork."""
    seed = derive(fork.episode.seed, "branch", fork.kept, number)
    return Episode(fork.episode.index, number, seed, group=group)


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
