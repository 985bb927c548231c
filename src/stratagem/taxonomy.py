"""Words for what a technique is in a system that reasons: four slots, what there is to say of each, and nothing else.

The slots, and most of the words, are those of the survey arXiv 2412.14135: policy initialisation, reward design, search
and learning. ``limits`` holds questions it leaves open. A few words are ours; they are marked in ``TAXONOMY``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from stratagem.errors import unknown

VERSION = 1
"""Of the words. A word is never given another meaning without a new version."""

SLOTS = ("initialisation", "reward", "search", "learning")
"""The four slots, in the order of the survey."""

TAXONOMY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "initialisation": {
        "stage": ("pretraining", "instruction_tuning"),
        "behaviour": (
            "problem_analysis",
            "task_decomposition",
            "task_completion",
            "alternative_proposal",
            "self_evaluation",
            "self_correction",
        ),
    },
    "reward": {
        "granularity": ("outcome", "process"),
        # Ours: ``policy``, the policy's own votes or confidence; ``chance``, a control.
        "source": ("environment", "simulator", "preferences", "expert", "policy", "chance"),
        # Ours: ``added``, a term beside the task's reward that may change which policy is best.
        "shaping": ("outcome_to_process", "potential", "added"),
        "verifier": ("exact", "rubric", "model"),
    },
    "search": {
        "guidance": ("internal", "external"),
        "structure": ("best_of_n", "beam", "mcts", "tree", "sequential"),
        "action": ("token", "step", "solution"),
        "phase": ("training", "test"),
    },
    "learning": {
        "family": ("policy_gradient", "preference", "cloning"),
        "data": ("all_solutions", "best_only"),
        "off_policy": ("importance_weights", "cloning"),
    },
    "limits": {
        "question": ("overthinking", "generality", "multimodality", "world_models", "agency"),
    },
}
"""Slot, what is said of it, and the words for it. A tag is such a path, ``search.structure.beam``, or its beginning."""


def _paths() -> Iterable[str]:
    for slot, axes in TAXONOMY.items():
        yield slot
        for axis, words in axes.items():
            yield f"{slot}.{axis}"
            yield from (f"{slot}.{axis}.{word}" for word in words)


TAGS = tuple(_paths())
"""All tags there are, in order."""

_PLACES = {tag: place for place, tag in enumerate(TAGS)}


def check_tags(tags: Iterable[str]) -> None:
    """Raise :class:`InputError` for a tag that is not of the taxonomy, naming the nearest one."""
    for tag in tags:
        if tag not in _PLACES:
            raise unknown("tag", tag, TAGS)


def in_order(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags without repetition in the order of the taxonomy; one that only begins another of them is left out."""
    found = set(tags)
    return tuple(
        tag for tag in sorted(found, key=_PLACES.__getitem__) if not any(other.startswith(f"{tag}.") for other in found)
    )


def covers(asked: str, tags: Collection[str]) -> bool:
    """Whether one of the tags is ``asked``, or says more about it."""
    return any(tag == asked or tag.startswith(f"{asked}.") for tag in tags)
