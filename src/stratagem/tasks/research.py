"""The research task: relations to follow through a graph of facts, with a report as the only memory between rounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

PEOPLE = (
    "ana", "ben", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "jill", "kai", "lena",
    "max", "nina", "otto", "pia", "quin", "rosa", "sam", "tess", "udo", "vera", "will", "zoe",
)  # fmt: skip
"""Who there may be."""

RELATIONS = ("boss", "friend", "mentor", "rival", "neighbor", "doctor")
"""What one may be to another."""

NOTHING = "none"
"""Stands for a report, or a result, that there is not yet."""

LONGEST_NAME = 16
"""Characters of a name that are looked at, and repeated in a result."""

_PART = re.compile(r"^[ \t]*(report|look|answer)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_WRITE = (
    "Follow the relations from the person named first. Write a report of what you know, then look somebody up or "
    "answer, as in `report: dan > rival` and, in the next line, `look: dan` or `answer: eva`."
)
_FORGET = " Of all you wrote, only the last report will be shown again."


class Query(NamedTuple):
    """A person, relations to follow from there, and the world in which they are as they are."""

    start: str
    relations: tuple[str, ...]
    world: int

    def __str__(self) -> str:
        return " > ".join((self.start, *self.relations))


class Said(NamedTuple):
    """What a round says: a new report, whom to look up, and the answer; None for what it does not say."""

    report: str | None
    look: str | None
    answer: str | None

    @property
    def well_formed(self) -> bool:
        """Whether there is a report, and something to do."""
        return self.report is not None and not (self.look is None and self.answer is None)


@dataclass(frozen=True)
class ResearchTask(Task):
    """Follow relations from person to person and answer with the last; people have to be looked up, one each round.

    A round shows the question, the report written last, and the last action with its result:

        Question: ana > friend > rival
        Report: dan > rival
        Result of look dan: boss ana; friend gus; rival eva

    and is a conversation of its own (``context``), so that the text depends on these and nothing earlier and its length
    has a bound whatever the number of rounds (the workspace of arXiv 2511.07327). A turn writes ``report: ...`` and
    ``look: NAME`` or ``answer: NAME``, each beginning a line; of several the first counts, and an answer before a look.
    White space in a report is one space, and of a longer one the first ``max_report`` characters are kept. Without a
    report the old one stays. A turn without a report, or with neither look nor answer, is not ``well_formed``.

    Whoever is looked up has each relation to somebody; the facts are listed in no particular order, and only a few are
    on the way. An answer ends the episode and earns 1 when it is right, which is success. ``format``, the share of
    turns that were well formed, is noted and counts nothing in the return. Out of turns, an episode is truncated and
    earns 0.

    ``hops``: relations to follow, 1 to 8.  ``people``: more than ``hops``, up to 24.  ``relations``: of everybody, 2 to
    6.  ``iterative``: False for one conversation that goes on and shows results alone; reports then change nothing.
    ``max_report``: characters, 8 to 10,000.  ``max_turns``: more than ``hops``, up to 4,096.  ``max_new_tokens``: of a
    turn, 1 to 100,000. Questions, people and wording are our own.

    Raises :class:`InputError` for a number out of range.
    """

    hops: Annotated[int, Field(ge=1, le=8)] = 3
    people: Annotated[int, Field(ge=4, le=len(PEOPLE))] = 12
    relations: Annotated[int, Field(ge=2, le=len(RELATIONS))] = 4
    iterative: bool = True
    max_report: Annotated[int, Field(ge=8, le=10_000)] = 120
    max_turns: Annotated[int, Field(ge=2, le=4096)] = 12
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64

    name = "research"
    description = "follow relations through a graph of facts, remembering no more than a report written anew each round"
    reward_names = ("reward", "format")
    reward_weights = (1.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        for option in ("people", "max_turns"):
            if getattr(self, option) <= self.hops:
                raise InputError(
                    f"task {self.name!r}: {option}={getattr(self, option)} is not allowed; it should be more than "
                    f"hops={self.hops}"
                )

    @property
    def system(self) -> str:  # type: ignore[override]  # What it says depends on the options.
        """What the policy is told."""
        return _WRITE + _FORGET if self.iterative else _WRITE

    def environment(self, split: Split, index: int) -> ResearchEnvironment:
        return ResearchEnvironment(self.query(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Look up one after the other, report where that has led and what is left to follow, and answer."""
        query = self.query(split, index)
        path = self.path(query)
        for hop, person in enumerate(path[:-1]):
            left = " > ".join((person, *query.relations[hop:]))
            yield f"report: {left}\nlook: {person}"
        yield f"report: {path[-1]}\nanswer: {path[-1]}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: the last person but one, somebody else, and no name at all."""
        *looks, answer = self.solution(split, index)
        path = self.path(self.query(split, index))
        others = [person for person in PEOPLE[: self.people] if person != path[-1]]
        misses = (path[-2], others[index % len(others)], "I do not know")
        yield from looks
        yield answer.replace(f"answer: {path[-1]}", f"answer: {misses[index % len(misses)]}")

    def answer(self, text: str) -> str | None:
        """The name it gives."""
        return read(text).answer

    def query(self, split: Split, index: int) -> Query:
        """The question of this episode. Equal questions are in one split, whatever the world."""
        return draw(
            split,
            index,
            (self.name, self.hops, self.people, self.relations),
            self._generate,
            lambda query: state_key(self.name, str(query)),
        )

    def facts(self, world: int, person: str) -> dict[str, str]:
        """Who is what to this person, in the order in which it is told."""
        shown = sorted(RELATIONS[: self.relations], key=lambda relation: state_key(world, person, relation, "order"))
        return {relation: self._related(world, person, relation) for relation in shown}

    def path(self, query: Query) -> tuple[str, ...]:
        """Everybody on the way, the one to answer with last."""
        found = [query.start]
        for relation in query.relations:
            found.append(self._related(query.world, found[-1], relation))
        return tuple(found)

    def _related(self, world: int, person: str, relation: str) -> str:
        return PEOPLE[state_key(world, person, relation) % self.people]

    def _generate(self, random: Random) -> Query | None:
        start = random.choice(PEOPLE[: self.people])
        relations = tuple(random.choice(RELATIONS[: self.relations]) for _ in range(self.hops))
        query = Query(start, relations, random.getrandbits(48))
        # Nobody twice, or a shorter way would lead there as well.
        return query if len(set(self.path(query))) == self.hops + 1 else None


class ResearchEnvironment(Environment):
    """One question. A state is the question and its world, the report, and the last action with its result."""

    def __init__(self, query: Query, task: ResearchTask) -> None:
        self.query = query
        self.task = task
        self._gold = task.path(query)[-1]
        self._restart()

    def _restart(self) -> None:
        self.report, self._result = NOTHING, f"Result: {NOTHING}"
        self._turns = self._well_formed = 0

    def reset(self) -> Observation:
        self._restart()
        return self._observe()

    def step(self, action: str) -> Step:
        said = read(action)
        self._turns += 1
        self._well_formed += said.well_formed
        if said.report is not None:
            self.report = said.report[: self.task.max_report]
        right = said.answer == self._gold
        self._result = self._told(said)
        out_of_turns = said.answer is None and self._turns >= self.task.max_turns
        done = said.answer is not None or out_of_turns
        return Step(
            self._observe(),
            float(right),
            done=done,
            truncated=out_of_turns,
            success=right,
            components={"format": self._well_formed / self._turns} if done else {},
            well_formed=said.well_formed,
        )

    def _told(self, said: Said) -> str:
        """The last action and what it led to."""
        if said.answer is not None:
            return f"Result of answer {said.answer}: {'right' if said.answer == self._gold else 'wrong'}"
        if said.look is None:
            return "Result: error: write look: or answer:"
        if said.look not in PEOPLE[: self.task.people]:
            return f"Result of look {said.look}: error: nobody has this name"
        facts = self.task.facts(self.query.world, said.look)
        return f"Result of look {said.look}: " + "; ".join(map(" ".join, facts.items()))

    def _observe(self) -> Observation:
        question = f"Question: {self.query}"
        key = state_key("research", question, self.query.world, self.report, self._result)
        if self.task.iterative:
            return Observation(f"{question}\nReport: {self.report}\n{self._result}", key, context=self._turns)
        return Observation(self._result if self._turns else question, key)


def read(text: str) -> Said:
    """The parts of a turn: each reaches to the next one, and of several the first counts. An empty one is none."""
    parts: dict[str, str] = {}
    found = list(_PART.finditer(text))
    ends = [part.start() for part in found[1:]] + [len(text)]
    for part, end in zip(found, ends, strict=False):  # Without a part there is an end all the same.
        content = " ".join(text[part.end() : end].split())
        if content:
            parts.setdefault(part[1].lower(), content)
    look, answer = (_name(parts.get(name)) for name in ("look", "answer"))
    return Said(parts.get("report"), look, answer)


def from_spec(argument: str | None, options: Mapping[str, str]) -> ResearchTask:
    """``research[:hops=3,people=12,relations=4,iterative=true,max_report=120,max_turns=12,max_new_tokens=64]``."""
    return configure(ResearchTask, argument, options)


def _name(text: str | None) -> str | None:
    """As it is compared and shown: in small letters, and no longer than a name."""
    return None if text is None else text.lower()[:LONGEST_NAME].rstrip()
