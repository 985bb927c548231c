"""Reasoning Gym's procedural verifiers as single-turn tasks, one independent episode per index."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from random import Random
from typing import Any

import yaml

from stratagem.errors import InputError, unknown
from stratagem.tasks.adapter import require
from stratagem.tasks.options import check_names
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_NO_SOLUTION = "it comes without a solution, so that its verifier cannot be proven"
_UNSTABLE = "its questions or answers are not a function of its seed, so that they differ between processes"
UNSUPPORTED = {
    "boxnet": _NO_SOLUTION,
    "codeio": _UNSTABLE,
    "composite": "it needs a list of other datasets; name one of those",
    "game_of_life_halting": "its verifier takes any text for the answer True",
    "isomorphic_strings": _UNSTABLE,
    "knight_swap": _UNSTABLE,
    "polynomial_multiplication": _UNSTABLE,
    "ransom_note": _UNSTABLE,
    "rush_hour": _NO_SOLUTION,
    "word_ladder": _UNSTABLE,
}
"""Datasets of reasoning-gym 0.1.25 that are not tasks here, with the reason."""

_EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_INTEGER = re.compile(r"-?\d{1,15}")
_MARKER = re.compile(r"answer:", re.IGNORECASE)


def from_spec(argument: str | None, options: Mapping[str, str]) -> ReasoningGymTask:
    """The task ``rg:<dataset>[,key=value...]``; the keys are the fields of the dataset's own configuration.

    Values are read as YAML scalars. Raises ``InputError`` for a dataset or key that does not exist, for a value that
    the dataset refuses, and for a dataset in :data:`UNSUPPORTED`.
    """
    datasets = require("reasoning_gym.factory", "dev").DATASETS
    if argument is None:
        raise InputError(f"task rg needs a dataset, e.g. rg:chain_sum; known: {', '.join(sorted(datasets))}")
    if argument in UNSUPPORTED:
        raise InputError(f"dataset {argument!r} of reasoning-gym is not supported: {UNSUPPORTED[argument]}")
    if argument not in datasets:
        raise unknown("dataset of reasoning-gym", argument, set(datasets) - set(UNSUPPORTED))
    fields = {field.name for field in dataclasses.fields(datasets[argument][1])} - {"seed", "size"}
    check_names(f"rg:{argument}", options, sorted(fields))
    try:
        return ReasoningGymTask(argument, {key: yaml.safe_load(value) for key, value in options.items()})
    except yaml.YAMLError as broken:
        raise InputError(f"task rg:{argument}: the options {dict(options)} are not YAML scalars") from broken


def extract_answer(text: str) -> str:
    """The text inside the last ``<answer></answer>``, else after the last ``answer:``, else all of it; stripped."""
    tagged = _ANSWER.findall(text)
    return str(tagged[-1] if tagged else _MARKER.split(text)[-1]).strip()


class ReasoningGymTask(Task):
    """One dataset of Reasoning Gym.

    Reward: the dataset's own ``score_answer`` in [0, 1] on :func:`extract_answer` of the action; some datasets give
    partial credit. Success: a score of at least 1. Text that makes the dataset's scorer raise scores 0. The question's
    own hash puts one question in five into the test split. Several scorers parse the answer with sympy, which is no
    security boundary.
    """

    description = "a question of one Reasoning Gym dataset, scored by its own verifier"
    max_new_tokens = 128

    def __init__(self, dataset: str, config: Mapping[str, Any] | None = None) -> None:
        self.dataset = dataset
        self.config = dict(config or {})
        self._cached = lru_cache(maxsize=1024)(self._draw)  # some datasets take a third of a second to open
        self.name = ",".join([f"rg:{dataset}", *(f"{key}={value}" for key, value in sorted(self.config.items()))])
        try:
            self._create(0)
        except (AssertionError, TypeError, ValueError) as refusal:
            raise InputError(f"task {self.name}: reasoning-gym refuses these options: {refusal}") from refusal

    def environment(self, split: Split, index: int) -> _Question:
        """The question with this number."""
        return self._cached(split, index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The dataset's own answer (for datasets with many right answers, the example it carries)."""
        yield self.environment(split, index).oracle()

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """An answer near the right one that the verifier rejects, or any that it does not when there is none."""
        question = self.environment(split, index)
        oracle = question.oracle()
        candidates = (*_next_number(oracle), oracle[:-1], oracle[::-1], f"not {oracle}", "0", "True", "nothing")
        wrong = [candidate for candidate in candidates if question.score(candidate) < 1.0]
        yield (wrong or candidates)[0]

    def demonstration(self, split: Split, index: int, habit: float, seed: int) -> Iterator[str]:
        """What a demonstrator does who has a bad habit: in a share ``habit`` of the episodes the wrong answer near by.

        Drawn once per episode from ``seed``. Where the right answer is a whole number, the wrong one is the next.
        """
        if not 0 <= habit <= 1:
            raise InputError(f"task {self.name!r}: habit={habit!r} is not allowed; it is a probability, 0 to 1")
        gives_in = seeded("demonstration", self.name, split, index, seed).random() < habit
        return self.corrupted(split, index) if gives_in else self.solution(split, index)

    def answer(self, text: str) -> str | None:
        """What :func:`extract_answer` finds."""
        return extract_answer(text) or None

    def _draw(self, split: Split, index: int) -> _Question:
        return draw(split, index, (self.name,), self._question, lambda question: question.key)

    def _question(self, rng: Random) -> _Question:
        dataset = self._create(rng.randrange(2**31))
        return _Question(dataset, dataset[0])

    def _create(self, seed: int) -> Any:
        return require("reasoning_gym", "dev").create_dataset(self.dataset, seed=seed, size=1, **self.config)


def _next_number(text: str) -> tuple[str, ...]:
    """The whole number after the one that is all of the text; nothing where it is none."""
    return (str(int(text) + 1),) if _INTEGER.fullmatch(text) else ()


class _Question(Environment):
    """One question and its answer. It has no memory, so that the answers of a group can share it."""

    def __init__(self, dataset: Any, entry: dict[str, Any]) -> None:
        self._dataset = dataset
        self._entry = entry
        self.key = state_key(entry["question"])

    def reset(self) -> Observation:
        """The question."""
        return Observation(self._entry["question"], self.key)

    def step(self, action: str) -> Step:
        """Score the answer and end."""
        score = self.score(extract_answer(action))
        return Step(self.reset(), reward=score, done=True, success=score >= 1.0)

    def score(self, answer: str) -> float:
        """The dataset's score of ``answer``, 0 where its parser gives up."""
        try:
            return float(self._dataset.score_answer(answer, self._entry))
        except Exception:  # scorers parse free text and raise whatever their parsers raise
            return 0.0

    def oracle(self) -> str:
        """A right answer."""
        metadata = self._entry["metadata"]
        known = [self._entry["answer"], *(metadata.get(name) for name in _EXAMPLES)]
        answer = next((candidate for candidate in known if candidate is not None), None)
        if answer is None:
            raise NotImplementedError(f"{self._entry['question'][:40]!r} carries no answer")
        return answer if isinstance(answer, str) else json.dumps(answer)
