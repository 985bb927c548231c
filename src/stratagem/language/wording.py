"""What a batch owes to the words of its texts: which tokens plan, and which answers say the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain

import torch

from stratagem.clusters import text_clusters
from stratagem.experience import Experience
from stratagem.grams import Grams, grams_of, semantic_entropy
from stratagem.language.episodes import Episode
from stratagem.language.offsets import Decode, label, token_ends
from stratagem.sampling import Rollouts
from stratagem.tasks.mixture import owner
from stratagem.tasks.task import Task


def worded(
    x: Experience, groups: Sequence[Sequence[Episode]], sampler: Rollouts, task: Task, decode: Decode
) -> Experience:
    """The batch of these episodes with ``planning`` set and answers shared, as far as the sampler asks for them."""
    if sampler.phrases is not None:
        grams = grams_of(sampler.phrases)
        turns = (turn for group in groups for episode in group for turn in episode.turns)
        plans = [*chain.from_iterable(planning_tokens(turn.action, grams, decode) for turn in turns)]
        x = x.replace(planning=torch.tensor(plans, dtype=torch.bool))
    if sampler.similar_answers is not None:
        keys = chain.from_iterable(shared_answers(group, sampler.similar_answers, task) for group in groups)
        x = x.replace(answer=torch.tensor([*keys], dtype=torch.int64))
    return x


def planning_tokens(action: Sequence[int], grams: Grams, decode: Decode) -> list[bool]:
    """Whether a phrase has one of its characters in each token of a turn."""
    text = decode(action)
    found = grams.occurrences(text)
    if not found:
        return [False] * len(action)
    marks = [0] * len(action)
    label(marks, token_ends(action, text, decode), ((begin, end, 1) for begin, end, _ in found))
    return [bool(mark) for mark in marks]


def shared_answers(group: Sequence[Episode], alike: float, task: Task) -> list[int]:
    """Keys of the answers of a group: those worded alike share that of the first of them; -1 stays what it is."""
    keys = [episode.answer for episode in group]
    said = {
        episode.answer: owner(task, episode.index).answer(episode.turns[-1].text) or ""
        for episode in group
        if episode.answer >= 0
    }
    clusters = text_clusters(list(said.values()), 1 - alike, linkage="average")
    first: dict[int, int] = {}
    shared = {key: first.setdefault(cluster, key) for key, cluster in zip(said, clusters, strict=True)}
    return [shared.get(key, key) for key in keys]


def strategy_entropy(groups: Sequence[Sequence[Episode]], phrases: str, decode: Decode) -> float:
    """Entropy of the strategies that these episodes use, in nats; 0, and a warning, where they use none."""
    grams = grams_of(phrases)
    turns = (turn for group in groups for episode in group for turn in episode.turns)
    counts = grams.counts(decode(turn.action) for turn in turns)
    if not any(counts):
        warnings.warn(f"no phrase of {phrases} is in this batch: nothing in it plans", stacklevel=2)
    return semantic_entropy(counts)


def planning_metrics(x: Experience) -> dict[str, float]:
    """``planning``: share of tokens that plan. ``entropy/planning`` and ``entropy/execution``: mean surprise of a token
    that does, or does not, in nats; its exponential is the perplexity."""
    if x.planning is None or x.behavior_logp is None:
        return {}
    metrics = {"planning": float(x.planning.float().mean())}
    for name, tokens in (("planning", x.planning), ("execution", ~x.planning)):
        if bool(tokens.any()):
            metrics[f"entropy/{name}"] = -float(x.behavior_logp[tokens].mean())
    return metrics
