"""What a batch owes to the words of its texts: which tokens plan or begin a step, and which answers say the same."""

from __future__ import annotations

import re
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

_BLANK_LINES = re.compile(r"\n\s*\n\s*")
"""The end of a line, at least one line without a word, and what the next line is indented by."""


def worded(
    x: Experience, groups: Sequence[Sequence[Episode]], sampler: Rollouts, task: Task, decode: Decode
) -> Experience:
    """The batch of these episodes with ``planning`` and ``step_start`` set and answers shared, as the sampler asks."""
    turns = [turn for group in groups for episode in group for turn in episode.turns]
    if sampler.phrases is not None:
        grams = grams_of(sampler.phrases)
        plans = [*chain.from_iterable(planning_tokens(turn.action, grams, decode) for turn in turns)]
        x = x.replace(planning=torch.tensor(plans, dtype=torch.bool))
    if "step_start" in sampler.needs():
        starts = [*chain.from_iterable(step_starts(turn.action, decode) for turn in turns)]
        x = x.replace(step_start=torch.tensor(starts, dtype=torch.bool))
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


def step_starts(action: Sequence[int], decode: Decode) -> list[bool]:
    """Whether a step of a turn begins with each token: the first, and those that begin behind blank lines.

    A step is what blank lines separate; several in a row, or lines of spaces, are one border, and one before any word
    is none. A step begins with the first token whose first character that is no space lies behind the border: one that
    ends a step and begins the next is of the former. Where a character is written in several tokens, the first of them
    counts.
    """
    text = decode(action)
    begun = len(text) - len(text.lstrip())
    borders = [found.end() for found in _BLANK_LINES.finditer(text, begun) if found.end() < len(text)]
    starts = [place == 0 for place in range(len(action))]
    if not borders:
        return starts
    ends = token_ends(action, text, decode)
    begins = [0, *ends[:-1]]
    words = [end - len(text[begin:end].lstrip()) for begin, end in zip(begins, ends, strict=True)]
    place = 0
    for border in borders:
        while place < len(ends) and not border <= words[place] < ends[place]:
            place += 1
        if place == len(ends):
            break
        first = place
        while begins[first - 1] == ends[first - 1]:
            first -= 1
        starts[first] = True
    return starts


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
