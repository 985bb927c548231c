"""Filters for recorded solutions with code in them, as far as they need no language model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stratagem.seeding import derive

_CODE = re.compile(r"```[ ]?python(.*?)```", re.DOTALL)
_THOUGHT = re.compile(r"<think>(.*?)</think>(.*)", re.DOTALL)
_BOX = re.compile(r"\\boxed\{(.*)\}", re.DOTALL)


@dataclass(frozen=True)
class Trace:
    """A recorded solution.

    problem: by which solutions of one problem are told.  text: all of it.  ran: of every program in it, whether it was
    carried out.  right: whether its answer is.
    """

    problem: str
    text: str
    ran: tuple[bool, ...]
    right: bool


def programs(text: str) -> list[str]:
    """The programs in it: what stands in fences marked ``python``, in order."""
    return _CODE.findall(text)


def all_ran(trace: Trace) -> bool:
    """Every program was carried out; true without any."""
    return all(trace.ran)


def is_formed(trace: Trace) -> bool:
    """One ``<think>...</think>`` with a program in it, and behind it an answer in a box that is not empty."""
    thought = _THOUGHT.search(trace.text)
    if thought is None or trace.text.count("<think>") != 1 or trace.text.count("</think>") != 1:
        return False
    box = _BOX.search(thought[2])
    return bool(programs(thought[1])) and box is not None and bool(box[1].strip())


def repeats(text: str, length: int = 20, most: int = 20) -> bool:
    """Whether some ``length`` characters in a row occur more than ``most`` times; overlapping ones count."""
    found = Counter(text[place : place + length] for place in range(len(text) - length + 1))
    return max(found.values(), default=0) > most


def is_slight(code: str, lines: int = 5) -> bool:
    """Whether a program has at most ``lines`` lines that are neither empty nor a comment."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in code.splitlines()) <= lines


def has_substance(trace: Trace, share: float = 0.4) -> bool:
    """At most ``ceil(share * n)`` of its ``n`` programs are slight (:func:`is_slight`)."""
    codes = programs(trace.text)
    return sum(map(is_slight, codes)) <= math.ceil(share * len(codes))


def kept(
    traces: Iterable[Trace],
    seed: int,
    least: int = 3000,
    checks: Sequence[Callable[[Trace], bool]] = (all_ran, is_formed, has_substance),
) -> list[Trace]:
    """Of every problem one solution, drawn by ``seed``, that is right, of at least ``least`` characters, passes all
    ``checks`` and does not repeat itself.

    These are the filters of TIRGen's released code (arXiv 2509.13761), with its numbers, but for two on the script of
    the text (paired dollar signs, no traditional characters); its length is in tokens. Who writes steps and turns them
    into code is a language model, and so is not built here.
    """
    good: dict[str, list[Trace]] = {}
    for trace in traces:
        fit = trace.right and len(trace.text) >= least and all(check(trace) for check in checks)
        if fit and not repeats(trace.text):
            good.setdefault(trace.problem, []).append(trace)
    return [some[derive(seed, problem) % len(some)] for problem, some in good.items()]
