"""Prompts from a JSON-lines file, answered in a single turn and scored by a verifier."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError, unknown
from stratagem.tasks.answers import (
    CloseNumber,
    ContainsText,
    ExactNumber,
    ExactText,
    NearNumber,
    Record,
    SimilarText,
    Verifier,
    last_number,
)
from stratagem.tasks.json_lines import prompt_text, read_lines, some_text
from stratagem.tasks.math_answers import MathAnswer
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.splits import split_of
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "exact": ExactText,
    "contains": ContainsText,
    "number": ExactNumber,
    "similar": SimilarText,
    "close": CloseNumber,
    "near": NearNumber,
    "math": MathAnswer,
}
_NUMERIC = ("number", "close", "near")


@dataclass(frozen=True)
class JsonlTask(Task):
    """One prompt per line of a file: ``{"prompt": text or chat messages, "answer": text, ...}``.

    The reward is the verifier's score; a score of 1 or more is a success. Blank lines are passed over. A prompt that
    occurs again is left out and counted in ``duplicates``. Episodes beyond the last prompt start again at the first.
    Several chat messages become one text, each as ``role: content``, with an empty line between them.

    ``path``: the file, UTF-8. ``verifier``: ``exact``, ``contains``, ``number``, ``similar``, ``close``, ``near``
    (these three also look at ``aliases``, a list of further right answers), ``math`` (needs the extra ``math``) or
    ``python:module:function``, called as ``function(response, record)`` with the line's fields and returning a number.
    ``test_share``: expected share of prompts in the test split, by a stable hash of the prompt, 0 to below 1.
    ``max_new_tokens``: 1 to 1,000,000.

    Raises :class:`InputError` naming path and line when a line cannot be used, and when a split would be empty.
    """

    path: str
    verifier: str = "exact"
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    duplicates: int = field(init=False, default=0)
    _records: dict[Split, list[Record]] = field(init=False, repr=False, compare=False)
    _verify: Verifier = field(init=False, repr=False, compare=False)

    name = "jsonl"
    description = "prompts from a JSON-lines file with a verifier"

    def __post_init__(self) -> None:
        validate(self)
        object.__setattr__(self, "_verify", _verifier(self.verifier))
        records, duplicates = _distinct(_read(self.path, numeric=self.verifier in _NUMERIC))
        object.__setattr__(self, "duplicates", duplicates)
        object.__setattr__(self, "_records", {"train": [], "test": []})
        for prompt, record in records.items():
            self._records[split_of(state_key(prompt), self.test_share)].append({**record, "prompt": prompt})
        self._require_both_splits(len(records))

    def environment(self, split: Split, index: int) -> JsonlEnvironment:
        return JsonlEnvironment(self.record(split, index), self._verify)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter([self._verify.solution(self.record(split, index))])

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([self._verify.corrupted(self.record(split, index))])

    def answer(self, text: str) -> str | None:
        return self._verify.answer(text)

    def record(self, split: Split, index: int) -> Record:
        """The fields of the line behind an episode, its prompt as one text."""
        records = self._records[split]
        if not records:
            raise InputError(f"{self.path}: test_share=0 leaves no test prompts")
        return records[index % len(records)]

    def size(self, split: Split) -> int:
        """The number of different prompts in a split."""
        return len(self._records[split])

    def start_states(self, split: Split) -> int:
        return self.size(split)

    def _require_both_splits(self, prompts: int) -> None:
        for split in ("train", "test") if self.test_share else ("train",):
            if not self._records[split]:
                share = f"test_share={self.test_share:g}"
                raise InputError(f"{self.path}: none of its {prompts} prompts falls into the {split} split at {share}")


class JsonlEnvironment(Environment):
    """One prompt; whatever the policy writes is its answer."""

    def __init__(self, record: Record, verifier: Verifier) -> None:
        self.record = record
        self.verifier = verifier

    def reset(self) -> Observation:
        prompt = self.record["prompt"]
        return Observation(prompt, state_key("jsonl", prompt))

    def step(self, action: str) -> Step:
        score = self.verifier.score(action, self.record)
        return Step(Observation("", state_key("jsonl", "end")), score, done=True, success=score >= 1)


class PythonAnswer(ExactText):
    """The score of a user's own ``function(response, record)``; its exceptions are the episode's."""

    def __init__(self, function: Callable[[str, Record], float]) -> None:
        self.function = function

    def score(self, response: str, record: Record) -> float:
        return float(self.function(response, record))


def from_spec(argument: str | None, options: Mapping[str, str]) -> JsonlTask:
    """``jsonl:PATH[,verifier=exact,test_share=0.1,max_new_tokens=256]``."""
    if not argument:
        raise InputError("task 'jsonl' needs a file: jsonl:PATH")
    check_names("jsonl", options, ["verifier", "test_share", "max_new_tokens"])
    values: dict[str, Any] = dict(options)
    return JsonlTask(argument, **values)


def _verifier(name: str) -> Verifier:
    kind, _, target = name.partition(":")
    if kind == "python":
        return PythonAnswer(_function(target))
    if name not in _VERIFIERS:
        raise unknown("verifier", name, [*_VERIFIERS, "python:module:function"])
    return _VERIFIERS[name]()


def _function(target: str) -> Callable[[str, Record], float]:
    module, _, function = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"verifier 'python:{target}' cannot be loaded: {error}") from None
    if not callable(found):
        raise InputError(f"verifier 'python:{target}' is not a function")
    return found  # type: ignore[no-any-return]


def _distinct(lines: Iterator[tuple[str, Record]]) -> tuple[dict[str, Record], int]:
    records: dict[str, Record] = {}
    count = 0
    for count, (prompt, record) in enumerate(lines, start=1):  # noqa: B007
        records.setdefault(prompt, record)
    return records, count - len(records)


def _read(path: str, numeric: bool) -> Iterator[tuple[str, Record]]:
    """The prompt, as one text, and the fields of every line that is not blank."""
    return (line for _, line in read_lines(path, partial(_parsed, numeric=numeric), _EXAMPLE))


_EXAMPLE = '{"prompt": "2 + 3?", "answer": "5"}'


def _parsed(record: Record, numeric: bool) -> tuple[str, Record]:
    prompt = prompt_text(record.get("prompt"))
    answer = some_text(record.get("answer"), "answer")
    _aliases(record.get("aliases", []))
    if numeric and last_number(answer) is None:
        raise ValueError(f"answer {answer!r} holds no number")
    return prompt, record


def _aliases(aliases: object) -> None:
    if not isinstance(aliases, list):
        raise ValueError("aliases must be a list of text")
    for alias in aliases:
        some_text(alias, "an alias")
