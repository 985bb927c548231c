"""Episodes that are not sampled: the solver's, and candidates that the task writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch

from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, Turn, step_fault
from stratagem.language.measured import episode_metrics
from stratagem.language.rollout import enter_answer, reading, reset
from stratagem.language.stage import Stage, lost, most_samples, numbers
from stratagem.sampling import Candidates, Demonstrations, Rollouts
from stratagem.seeding import derive
from stratagem.tasks.mixture import owner
from stratagem.tasks.task import Split, Task
from stratagem.training.world import Collected
from stratagem.watched import failure_of

HELD_OUT = 2**20
"""Held-out start states from this number on are validated on; evaluation counts from 0."""


def demonstrated(stage: Stage, sampler: Demonstrations, step: int) -> Collected:
    split: Split = "train"
    if sampler.held_out:
        split, first = "test", HELD_OUT + step * sampler.prompts_per_step
        indices = range(first, first + sampler.prompts_per_step)
    else:
        indices = stage.take(sampler.prompts_per_step)
    episodes = [demonstrate(stage.task, split, index, stage.chat, stage.tokenize) for index in indices]
    good = [[episode] for episode in episodes if episode.failure is None]
    batch = stage.packed(good) if good else None
    metrics = episode_metrics(episodes, stage.task.reward_names)
    tokens = sum(episode.length for episode in episodes)
    # Held-out start states have numbers of their own, which are none of the ledger's.
    begun = None if sampler.held_out else numbers(episodes)
    return Collected(batch, tokens, metrics, [e.transcript() for e in episodes], begun, numbers(lost(episodes)))


def with_demonstrations(stage: Stage, x: Experience, groups: Sequence[Episode], sampler: Rollouts) -> Experience:
    """``x`` with the solver's episodes from the start of each group, of which one episode is given.

    A group whose solver fails gets none.
    """
    most = most_samples(sampler)
    shown: list[Episode] = []
    numbers: list[int] = []
    for number, episode in enumerate(groups):
        solved = demonstrate(stage.task, "train", episode.index, stage.chat, stage.tokenize)
        for copy in range(sampler.demonstrations if solved.failure is None else 0):
            sample = most - sampler.demonstrations + copy
            seed = derive(stage.seed, "demonstration", episode.group or 0, copy)
            shown.append(dataclasses.replace(solved, sample=sample, seed=seed, group=episode.group))
            numbers.append(number)
    if not shown:
        return x
    demonstrations = stage.packed([[episode] for episode in shown], sampler)
    demonstrations = demonstrations.replace(
        behavior_logp=torch.zeros(demonstrations.tokens),
        seed=torch.tensor([episode.seed for episode in shown], dtype=torch.int64),
    )
    return x.with_demonstrations(demonstrations, torch.tensor(numbers))


def tried(stage: Stage, sampler: Candidates) -> Collected:
    """Every candidate of each start state, as the task writes it; those that fail are counted and left out."""
    indices = stage.take(sampler.prompts_per_step)
    groups = [_try_all(stage, index, sampler) for index in indices]
    episodes = [episode for group in groups for episode in group]
    good = [[episode for episode in group if episode.failure is None] for group in groups]
    good = [group for group in good if group]
    metrics = episode_metrics(episodes, stage.task.reward_names)
    batch = None
    if good:
        batch = stage.packed(good)
        keep = sampler.keep(batch)
        batch = batch.select(batch.group_of_trajectory.spread(keep))
    kept = 0 if batch is None else batch.groups
    metrics |= {"groups/kept": float(kept), "groups/rejected": float(len(groups) - kept)}
    tokens = sum(episode.length for episode in episodes)
    shown = [group[0].transcript() for group in groups if group]
    return Collected(batch, tokens, metrics, shown, numbers(episodes), numbers(lost(episodes)))


def _try_all(stage: Stage, index: int, sampler: Candidates) -> list[Episode]:
    try:
        candidates = stage.task.candidates("train", index)
    except NotImplementedError as error:
        raise InputError(
            f"sampler {sampler.part_name()}: {error}; pairs:FILE lists answers that were labelled"
        ) from None
    played = []
    for number, actions in enumerate(candidates):
        if number not in sampler.without:
            episode = demonstrate(stage.task, "train", index, stage.chat, stage.tokenize, actions)
            played.append(dataclasses.replace(episode, sample=number, group=index))
    return played


def demonstrate(
    task: Task,
    split: Split,
    index: int,
    chat: ChatFormat,
    encode: Callable[[str], list[int]],
    actions: Iterable[str] | None = None,
) -> Episode:
    """The episode as the task's solver (or whoever gives the texts of ``actions``) plays it, in the policy's format.

    Each action is encoded and ended as the policy would end it. Whatever goes wrong fails the episode.
    """
    episode, owned = Episode(index, 0, 0), owner(task, index)
    try:
        environment = task.environment(split, index)
    except BrokenRunError:
        raise
    except Exception as error:
        episode.failure = failure_of(error)
        return episode
    try:
        observation = reset(environment)
        read = reading(owned, observation, [], chat)
        for text in task.solution(split, index) if actions is None else actions:
            episode.turns.append(Turn(observation, read, [*encode(text), *chat.end_tokens], None, text))
            step = environment.step(text)
            episode.failure = step_fault(step, owned.reward_names, len(episode.turns))
            if episode.failure is not None:
                return episode
            episode.record(step)
            if step.done:
                enter_answer(episode, owned)
                return episode
            if len(episode.turns) >= owned.max_turns:
                break
            observation = step.observation
            read = reading(owned, observation, episode.turns, chat)
        episode.truncated = True
        if not episode.turns:
            episode.failure = "the demonstrator did nothing"
    except BrokenRunError:
        raise
    except Exception as error:
        episode.failure = failure_of(error)
    finally:
        with suppress(Exception):
            environment.close()
    return episode
