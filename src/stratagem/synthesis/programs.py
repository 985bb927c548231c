"""Environments written as programs: what one must be able to do, and how it is run outside this process."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from stratagem.sandbox import Limits, Result, run_python
from stratagem.synthesis import program_worker
from stratagem.tasks.task import state_key

_MEMORY_BYTES = 192 * 2**20
_OUTPUT_BYTES = 8 * 2**20
_STARTING = 2.0
"""Seconds that a sandbox may take beside the program."""

SEEDS = (
    "base_conversion",
    "bracket_matching",
    "calendar_arithmetic",
    "edit_distance",
    "graph_coloring",
    "knights_and_knaves",
    "matrix_path",
    "shortest_path",
    "sorting_steps",
    "subset_sum",
)
"""Environments that ship with the package, written by hand."""


class ProgramError(RuntimeError):
    """A program that had been admitted did not do what it is asked. One line; it fails the episode and nothing else."""


@dataclass(frozen=True)
class Instance:
    """An episode of a program.  content: plain data, which is scored.  prompt: what is read.  reference: the answer."""

    content: Any
    prompt: str
    reference: str


@dataclass(frozen=True)
class Samples:
    """What a program did at one level, an entry for every seed.

    repeats: whether it made the same again.  same: scores of the right answer, with space around it, and in every
    other form the program says is as good.  nothing: of no answer.  wrong: of answers that are not the reference.
    again: of the right answer once more.  planted: whether there may be other right answers.
    """

    level: int
    seconds: float
    instances: tuple[Instance, ...]
    repeats: bool
    same: tuple[tuple[float, ...], ...]
    nothing: tuple[tuple[float, ...], ...]
    wrong: tuple[tuple[float, ...], ...]
    again: tuple[float, ...]
    planted: bool


@dataclass(frozen=True)
class Trace:
    """What came of running a program.

    problems: found in its text, which then was not run.  tokens: of the text (:func:`program_worker.tokens`).
    samples: of the levels it did in time, lowest first.  error: what it raised, and at which level; None for nothing.
    stopped: why it was stopped before the last level; None when it was not.
    """

    problems: tuple[str, ...]
    tokens: tuple[str, ...]
    samples: tuple[Samples, ...]
    error: str | None
    stopped: str | None


@dataclass(frozen=True)
class Program:
    """An environment as text: a Python class ``Environment`` with four methods.

    ``generate(seed, level)`` makes an instance, plain data that follows from its arguments alone; ``prompt(instance)``
    and ``reference(instance)`` say what is asked and the answer, as text; ``score(instance, response)`` is in [0, 1].

    It may import ``bisect collections fractions functools heapq itertools math random`` and use built-in functions that
    neither see nor change anything else. ``kind = "planted"`` says that there may be other right answers than the
    reference; ``unordered = True`` that the words of an answer may stand in any order; ``alternative(instance, seed)``
    is another right answer. ``level`` is 1 or more, and harder the higher.

    Nothing of it ever runs in this process, nor is it parsed here.
    """

    source: str

    @property
    def key(self) -> int:
        """A stable key of the text."""
        return state_key("program", self.source)

    def trace(self, levels: Sequence[int], seeds: Sequence[int], seconds: float = 2.0) -> Trace:
        """Run it in the sandbox as the gates want it run: at these levels, of ``seconds`` each, with these seeds."""
        request = {"source": self.source, "levels": list(levels), "seeds": list(seeds), "seconds": seconds}
        result = _ran(request, len(levels) * seconds + _STARTING)
        head, *lines = _messages(result) or [{"problems": [f"could not be read: {_why(result)}"], "tokens": []}]
        samples = [_samples(line) for line in lines if "error" not in line]
        error = next((f"level {line['level']}: {line['error']}" for line in lines if "error" in line), None)
        through = bool(head["problems"]) or error is not None or len(samples) == len(levels)
        return Trace(
            tuple(head["problems"]), tuple(head["tokens"]), tuple(samples), error, None if through else _why(result)
        )

    def instances(self, asked: Sequence[tuple[int, int]], seconds: float = 2.0) -> list[Instance]:
        """Instances of these seeds and levels. Raises :class:`ProgramError` where it fails."""
        return [_instance(one) for one in self._answered(seconds, episodes=asked)["episodes"]]

    def scores(self, asked: Sequence[tuple[Instance, str]], seconds: float = 2.0) -> list[float]:
        """Scores of answers, in [0, 1]. Raises :class:`ProgramError` where it fails or one is not."""
        scores = self._answered(seconds, answers=[(one.content, text) for one, text in asked])["scores"]
        if not all(0 <= score <= 1 for score in scores):
            raise ProgramError(f"environment {self.key}: a score is not in [0, 1]")
        return [float(score) for score in scores]

    def _answered(self, seconds: float, episodes: Sequence[Any] = (), answers: Sequence[Any] = ()) -> dict[str, Any]:
        result = _ran(
            {"source": self.source, "episodes": list(episodes), "answers": list(answers)}, seconds + _STARTING
        )
        reply = (_messages(result) or [{"error": _why(result)}])[0]
        if "error" in reply:
            raise ProgramError(f"environment {self.key}: {reply['error']}")
        return reply


@cache
def seed_programs() -> dict[str, Program]:
    """The environments that ship with the package, by name."""
    folder = files("stratagem.synthesis") / "environments"
    return {name: Program((folder / f"{name}.py").read_text("utf-8")) for name in SEEDS}


@cache
def _worker() -> str:
    return Path(program_worker.__file__).read_text("utf-8")


def _ran(request: Mapping[str, Any], seconds: float) -> Result:
    limits = Limits(seconds, _MEMORY_BYTES, processes=2, output_bytes=_OUTPUT_BYTES, file_bytes=0)
    return run_python(_worker(), json.dumps(request), limits)


def _messages(result: Result) -> list[dict[str, Any]]:
    """The lines that are whole."""
    return [json.loads(line) for line in result.stdout.splitlines(keepends=True) if line.endswith("\n")]


def _why(result: Result) -> str:
    if result.limit is not None:
        return f"too much {result.limit}"
    return "too much time" if result.status == 0 else f"ended with status {result.status}"


def _instance(plain: Mapping[str, Any]) -> Instance:
    return Instance(plain["instance"], plain["prompt"], plain["reference"])


def _samples(line: Mapping[str, Any]) -> Samples:
    rows = line["scores"]

    def column(name: str) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row[name]) for row in rows)

    return Samples(
        line["level"],
        line["seconds"],
        tuple(_instance(one) for one in line["episodes"]),
        line["repeats"],
        column("same"),
        column("nothing"),
        column("wrong"),
        tuple(row["again"] for row in rows),
        line["planted"],
    )


def in_range(score: float) -> bool:
    """Whether it is a score: a number from 0 to 1."""
    return math.isfinite(score) and 0 <= score <= 1
