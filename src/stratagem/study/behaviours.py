"""Reasoning behaviours in text, found by rules: phrases, answers that change, tries after an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PHRASES: Mapping[str, tuple[str, ...]] = {
    "problem_analysis": (
        r"the (problem|question|task) (asks|says|states|wants|is asking)",
        r"(we|i) (are|am) (given|asked)",
        r"(we|i) (need|have|want) to (find|determine|compute|show|figure out)",
        r"let(?:'s| me| us) (understand|restate|analy[sz]e)",
    ),
    "task_decomposition": (
        r"break (this|it|that|the \w+) (down|into|up)",
        r"(first|second|third|next) (step|sub-?(goal|task|problem|question))",
        r"sub-?(goal|task|problem|question)s?",
        r"step \d+",
        r"let(?:'s| me| us) (plan|start with|begin with)",
    ),
    "task_completion": (
        r"the (final )?(answer|result|solution) is",
        r"final answer",
        r"\\boxed\s*\{",
        r"<answer>",
    ),
    "alternative_proposal": (
        r"alternatively",
        r"another (way|approach|method|option|idea|possibility)",
        r"(a|some) different (way|approach|method|idea)",
        r"on the other hand",
        r"what if",
        r"(or|instead,?) (we|i) (could|can|might)",
    ),
    "self_evaluation": (
        r"(let(?:'s| me| us)|i(?:'ll| will| should| need to)) (double[- ]?check|check|verify|re-?check|re-?examine)",
        r"(is|was) (this|that|it) (right|correct)\?",
        r"does (this|that|it) make sense",
        r"sanity check",
        r"to (verify|double[- ]?check)",
    ),
    "self_correction": (
        r"wait",
        r"(i|we) (made|have made|had) (a|an) (mistake|error)",
        r"(that|this)(?:'s| is| was) (wrong|not right|incorrect|a mistake|an error)",
        r"(let me|i(?:'ll| will| should| need to)) (correct|fix|redo)",
        r"actually,",
        r"oops",
    ),
}
"""Marker phrases of the six behaviours of arXiv 2412.14135 (its wording is not a list of phrases: these are ours)."""


def _whole_words(rule: str) -> str:
    return rule if rule[-1] in ",>{" else rf"{rule}(?!\w)"


_MARKS = {
    name: re.compile(rf"(?<![\w'])(?:{'|'.join(map(_whole_words, rules))})", re.IGNORECASE)
    for name, rules in PHRASES.items()
}

_ANSWER = re.compile(
    r"(?:<answer>\s*(?P<tag>.*?)\s*</answer>|\\boxed\s*\{(?P<box>[^{}]*)\}"
    r"|answer\s+(?:is|:)\s*:?\s*(?P<said>-?\w[\w./%-]*))",
    re.IGNORECASE | re.DOTALL,
)
_ERROR = re.compile(r"\b(error|exception|traceback|invalid|failed|failure|not allowed|cannot|can't)\b", re.IGNORECASE)

EVENTS = ("answer_change", "retry_after_error")
"""What is told from the order of what was said."""


def behaviours_of(messages: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How often each behaviour is found in a conversation; behaviours not found are not in it.

    Phrases are looked for in what the assistant said, without regard to case. ``answer_change``: the assistant states
    an answer (``<answer>``, ``\\boxed``, *the answer is*) other than the one it stated last.  ``retry_after_error``:
    after a message of others that speaks of an error, the assistant says something it did not say right before.

    messages: each with ``role`` and ``content``, as in ``samples.jsonl``; those without text are passed over.
    """
    found: Counter[str] = Counter()
    answer = said = None
    failed = False
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str):
            continue
        if message.get("role") != "assistant":
            failed = bool(_ERROR.search(content))
            continue
        found.update({name: len(mark.findall(content)) for name, mark in _MARKS.items()})
        found["retry_after_error"] += failed and said is not None and content.strip() != said
        for match in _ANSWER.finditer(content):
            stated = " ".join(next(group for group in match.groups() if group is not None).split()).rstrip(".").lower()
            found["answer_change"] += answer is not None and stated != answer
            answer = stated
        said, failed = content.strip(), False
    return +found


@dataclass(frozen=True)
class Behaviours:
    """Behaviours over rollouts.

    rollouts: that have text.  silent: rollouts without any, which are counted nowhere else.
    counts: by behaviour, how often in all.  shown: in how many rollouts at least once.
    """

    rollouts: int = 0
    silent: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Any]]) -> Behaviours:
        """Of rows of ``samples.jsonl``. They are the first few episodes of each batch, not a random sample of all."""
        spoken = [found for sample in samples if (found := _spoken(sample))]
        each = [behaviours_of(messages) for messages in spoken]
        names = (*PHRASES, *EVENTS)
        counts = {name: sum(found[name] for found in each) for name in names}
        shown = {name: sum(found[name] > 0 for found in each) for name in names}
        return cls(len(spoken), len(samples) - len(spoken), counts, shown)

    def per_rollout(self, name: str) -> float:
        """Mean count in a rollout, 0 without rollouts."""
        return self.counts.get(name, 0) / max(self.rollouts, 1)


def _spoken(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Messages of a rollout in which the assistant says something; none otherwise."""
    messages = sample.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return []
    speaks = any(message.get("role") == "assistant" and message.get("content") for message in messages)
    return messages if speaks else []
