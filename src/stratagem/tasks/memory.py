"""The memory task: notes are read one by one, the room for them is small, and a question about some comes last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

KEYS = ("ash", "bay", "cow", "dew", "elm", "fox", "gem", "hat", "ink", "jar", "kid", "log", "map", "net", "oak", "pie")
"""What notes may be about."""

VALUES = 10
"""A note's value is a digit."""

_COMMAND = re.compile(r"\s*(?P<name>[A-Za-z]+)\s*(?P<numbers>[\d\s,]*)(?::(?P<text>.*))?\s*", re.DOTALL)
_READING = "Write `next` for the next note. The question comes after the last. `answer: 4 7` answers it, in its order."
_EDITING = (
    "There is room for {room} results. `drop 1 3` removes results 1 and 3 and what asked for them, `keep 2` all but "
    "result 2, and `prune 1 3: text` removes 1 and 3 and leaves your text."
)


class Stream(NamedTuple):
    """Notes in the order they are read, and the keys the question is about, in its order."""

    notes: tuple[tuple[str, int], ...]
    asked: tuple[str, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The right answer."""
        known = dict(self.notes)
        return tuple(known[key] for key in self.asked)


class Entry(NamedTuple):
    """Something the policy said, and the result it got, of this number."""

    number: int
    said: str
    result: str


@dataclass(frozen=True)
class MemoryTask(Task):
    """Read notes one by one and answer for the values of a few, with room for less than there is to read.

        Remember ash and fox.
        > next                    [1] cow = 3
        > next                    [2] fox = 7
        > drop 1                  [3] removed 1
        ...
        > next                    [9] What are fox and ash?
        > answer: 7 4

    Every turn has a numbered result, and stands in the context together with it until it is removed; what an edit
    said stays, as ``prune 1 3: text`` needs it to. After an edit the conversation goes on as a new one (``context``),
    which opens with what is left. An edit that names no result or one that is not there, removes nothing, or is a prune
    without text, and a command that cannot be read, get an error for a result and change nothing.

    An episode in which more results than ``room`` stand in the context, or that runs out of turns, is truncated and
    earns nothing. An answer ends it: it earns the share of values that are right in their order, once the question has
    been asked, and nothing before. Success is all of them.

    ``notes``: 2 to 16.  ``wanted``: of them, how many are asked for, 1 to 14.  ``room``: results the context holds,
    at least ``wanted + 2`` (those, the last edit, and what is read next) and at most ``notes``, so that it cannot be
    done without edits.  ``editing``: False for no edits and no limit, to compare with; such a command cannot be read.
    ``max_turns``: at least ``2 notes + 3``, which is enough to edit after every note.  ``max_new_tokens``: of a turn.

    Raises :class:`InputError` for a value out of range.
    """

    notes: Annotated[int, Field(ge=2, le=len(KEYS))] = 6
    wanted: Annotated[int, Field(ge=1, le=len(KEYS) - 2)] = 2
    room: Annotated[int, Field(ge=3, le=len(KEYS))] = 4
    editing: bool = True
    max_turns: Annotated[int, Field(ge=1, le=1000)] = 24
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 24

    name = "memory"
    description = "read notes and answer for some, with too little room to keep them all"

    def __post_init__(self) -> None:
        validate(self)
        if self.wanted >= self.notes:
            raise InputError(f"task 'memory': wanted={self.wanted} is not allowed; it must be less than {self.notes}")
        if self.editing and not self.wanted + 2 <= self.room <= self.notes:
            raise InputError(
                f"task 'memory': room={self.room} is not allowed; it must lie in {self.wanted + 2}..{self.notes}, from "
                "wanted + 2 to notes"
            )
        if self.max_turns < 2 * self.notes + 3:
            raise InputError(
                f"task 'memory': max_turns={self.max_turns} is not allowed; it must be at least {2 * self.notes + 3}"
            )

    @property
    def system(self) -> str:  # type: ignore[override]  # What it says depends on the options.
        """What the policy is told of the commands."""
        return f"{_READING} {_EDITING.format(room=self.room)}" if self.editing else _READING

    def environment(self, split: Split, index: int) -> MemoryEnvironment:
        return MemoryEnvironment(self.stream(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Read on; keep the wanted notes alone when there is no room left; answer."""
        stream, environment = self.stream(split, index), self.environment(split, index)
        environment.reset()
        while not environment.asked:
            wanted = [entry.number for entry in environment.entries if _about(entry, stream.asked)]
            full = self.editing and len(environment.entries) == self.room
            action = _edit(wanted, environment.entries) if full else "next"
            environment.step(action)
            yield action
        yield _answer(stream.values)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: a wrong value, an answer before the question, and no edit at all."""
        stream = self.stream(split, index)
        match index % 3:
            case 0:
                *actions, _ = self.solution(split, index)
                yield from actions
                yield _answer([*stream.values[:-1], (stream.values[-1] + 1) % VALUES])
            case 1:
                yield "next"
                yield _answer(stream.values)
            case _:
                yield from ["next"] * (len(stream.notes) + 1)
                # Without a limit nothing is wrong with reading on; an answer in words is.
                yield _answer(stream.values) if self.editing else "answer: I forgot"

    def answer(self, text: str) -> str | None:
        """The values it gives, in order."""
        command = _COMMAND.fullmatch(text)
        if command is None or command["name"].lower() != "answer":
            return None
        return " ".join(map(str, _values(command))) or None

    def stream(self, split: Split, index: int) -> Stream:
        """The notes and the question of this episode."""
        return draw(
            split,
            index,
            (self.name, self.notes, self.wanted),
            lambda random: _stream(random, self.notes, self.wanted),
            lambda stream: state_key(self.name, stream),
        )


class MemoryEnvironment(Environment):
    """One stream. A state is the stream, how far it has been read, and what stands in the context.

    entries: what stands in it.
    """

    def __init__(self, stream: Stream, task: MemoryTask) -> None:
        self.stream = stream
        self.task = task
        self.entries: list[Entry] = []
        self._read = self._turns = self._context = 0

    @property
    def asked(self) -> bool:
        """Whether the question has been read."""
        return self._read > len(self.stream.notes)

    def reset(self) -> Observation:
        self.entries = []
        self._read = self._turns = self._context = 0
        return self._observe(self._request())

    def step(self, action: str) -> Step:
        self._turns += 1
        command = _COMMAND.fullmatch(action)
        name = "" if command is None else command["name"].lower()
        if command is not None and name == "answer":
            return self._judge(_values(command))
        if command is not None and name in ("drop", "keep", "prune") and self.task.editing:
            result, edited = self._edit(name, command)
        else:
            result, edited = self._next() if name == "next" else "error: no such command", False
        number = self._turns
        self.entries.append(Entry(number, action, f"[{number}] {result}"))
        out_of_room = self.task.editing and len(self.entries) > self.task.room
        cut = out_of_room or self._turns >= self.task.max_turns
        self._context += edited
        return Step(self._observe(self.entries[-1].result, self._opening() if edited else ()), done=cut, truncated=cut)

    def _next(self) -> str:
        """The note, or the question, that is read next."""
        if self.asked:
            return "error: the question has been asked"
        self._read += 1
        if self._read > len(self.stream.notes):
            return f"What are {' and '.join(self.stream.asked)}?"
        key, value = self.stream.notes[self._read - 1]
        return f"{key} = {value}"

    def _edit(self, name: str, command: re.Match[str]) -> tuple[str, bool]:
        """The result of an edit, and whether there was one."""
        named = [int(number) for number in re.findall(r"\d+", command["numbers"])]
        known = [entry.number for entry in self.entries]
        unknown = [number for number in named if number not in known]
        if not named:
            return "error: name the results", False
        if unknown:
            return f"error: there is no result {unknown[0]}", False
        if name == "prune" and not (command["text"] or "").strip():
            return "error: prune needs a text", False
        gone = [number for number in known if (number in named) != (name == "keep")]
        if not gone:
            return "error: nothing to remove", False
        self.entries = [entry for entry in self.entries if entry.number not in gone]
        return f"removed {' '.join(map(str, gone))}", True

    def _judge(self, given: Sequence[int]) -> Step:
        right = self.stream.values
        score = 0.0
        if self.asked and len(given) == len(right):
            score = sum(map(int.__eq__, given, right)) / len(right)
        return Step(self._observe("the end"), score, done=True, success=score == 1.0)

    def _request(self) -> str:
        return f"Remember {' and '.join(sorted(self.stream.asked))}."

    def _opening(self) -> tuple[Mapping[str, str], ...]:
        """The messages that are left."""
        messages = [("system", self.task.system), ("user", self._request())]
        for entry in self.entries:
            messages += [("assistant", entry.said), ("user", entry.result)]
        return tuple({"role": role, "content": content} for role, content in messages)

    def _observe(self, text: str, opening: tuple[Mapping[str, str], ...] = ()) -> Observation:
        key = state_key("memory", self.stream, self._read, self.entries)
        return Observation(text, key, context=self._context, opening=opening)


def from_spec(argument: str | None, options: Mapping[str, str]) -> MemoryTask:
    """``memory[:notes=6,wanted=2,room=4,editing=true,max_turns=24,max_new_tokens=24]``."""
    return configure(MemoryTask, argument, options)


def _stream(random: Random, notes: int, wanted: int) -> Stream:
    keys = random.sample(KEYS, notes)
    return Stream(tuple((key, random.randrange(VALUES)) for key in keys), tuple(random.sample(keys, wanted)))


def _about(entry: Entry, keys: Sequence[str]) -> bool:
    """Whether the result is a note about one of these keys."""
    words = entry.result.split()
    return len(words) == 4 and words[1] in keys


def _edit(wanted: Sequence[int], entries: Sequence[Entry]) -> str:
    """Keep the wanted notes; where there is none yet, drop what there is."""
    if wanted:
        return f"keep {' '.join(map(str, wanted))}"
    return f"drop {' '.join(str(entry.number) for entry in entries)}"


def _values(command: re.Match[str]) -> list[int]:
    """The numbers an answer gives."""
    return [int(number) for number in re.findall(r"\d+", command["text"] or "")]


def _answer(values: Sequence[int]) -> str:
    return f"answer: {' '.join(map(str, values))}"
