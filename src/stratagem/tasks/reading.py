"""The reading task: a document longer than what is shown at once, read part by part with a memory, then a question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.tasks.mixture import Mixture
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.tags import contents
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

Kind = Literal["lookup", "choice", "hops", "latest", "sum"]

KINDS: tuple[Kind, ...] = ("lookup", "choice", "hops", "latest", "sum")
"""A value; one of four options; a value two steps away; the last of several; the sum of three."""

VALUES = 10
"""A value is a digit."""

_READING = (
    "You read a document part by part and see no part twice. After each part write what to remember in "
    "<memory></memory>, at most {room} words, and what to look for next in <plan></plan>. When you are asked to "
    "answer, write <answer></answer>."
)
_WHOLE = "Read the document and write <answer></answer>."
_LETTERS = "ABCD"


class Document(NamedTuple):
    """Lines; what is asked of them, and how to answer; the answer, and the lines that give it."""

    lines: tuple[str, ...]
    question: str
    format: str
    answer: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class ReadingTask(Task):
    """Read a document part by part, each in a conversation of its own with the question and a memory, and answer.

        Question: What is kavo?  Memory: (empty)  Plan: (none)  Part 1 of 5: budi = 3 ...
        > <memory>kavo is not there yet</memory><plan>look for kavo</plan>
        ...
        Question: What is kavo? Answer with a digit.  Memory: kavo = 7
        > <answer>7</answer>

    ``(m_t, p_t) ~ pi(. | m_{t-1}, p_{t-1}, x_t, q)`` and ``y ~ pi(. | m_K, q, f)``: the format ``f`` of the answer is
    told only in the end (the memory agent of QwenLong-L1.5, arXiv 2512.12967). What is read at once is bounded by
    ``part`` and ``room``, however long the document is. A memory of more words loses those at its end; a turn without
    one, or with several, leaves memory and plan as they were. Either is not ``well_formed``. An answer that comes too
    early is such a turn. The answer ends the episode: 1 when it is right, else 0.

    ``kind``: of question. On the command line ``kind=mixed`` is a mixture of all five, each a task of its own.
    ``lines``: of the document, at least 6.  ``part``: lines of each part.  ``room``: words of the memory, and of the
    plan, at least 12, which is enough for all the evidence.  ``whole``: the whole document at once and no memory, to
    compare with.  ``max_new_tokens``: of a turn.

    Raises :class:`InputError` for a value out of range.
    """

    kind: Kind = "lookup"
    lines: Annotated[int, Field(ge=6, le=4000)] = 40
    part: Annotated[int, Field(ge=1, le=4000)] = 8
    room: Annotated[int, Field(ge=12, le=10_000)] = 24
    whole: bool = False
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 96

    name = "reading"
    description = "answer for a document that is read part by part, with a memory and a plan"

    def __post_init__(self) -> None:
        validate(self)

    @property
    def max_turns(self) -> int:  # type: ignore[override]  # It follows from the options.
        """A turn for each part, and the answer."""
        return 1 if self.whole else 1 + -(-self.lines // self.part)

    @property
    def system(self) -> str:  # type: ignore[override]
        """What the policy is told of tags."""
        return _WHOLE if self.whole else _READING.format(room=self.room)

    def document(self, split: Split, index: int) -> Document:
        """The document and the question of this episode."""
        return draw(
            split,
            index,
            (self.name, self.kind, self.lines),
            lambda random: _document(random, self.kind, self.lines),
            lambda document: state_key(self.name, document),
        )

    def environment(self, split: Split, index: int) -> ReadingEnvironment:
        return ReadingEnvironment(self.document(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Remember the evidence as it comes, and answer."""
        document = self.document(split, index)
        seen: list[str] = []
        for lines in _parts(document, self):
            seen += [line for line in lines if line in document.evidence]
            yield written(", ".join(seen), "read on")
        yield f"<answer>{document.answer}</answer>"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: a wrong answer, and no answer."""
        *reading, answer = self.solution(split, index)
        yield from reading
        yield answer.replace(">", ">not ", 1) if index % 2 else "I do not know"

    def answer(self, text: str) -> str | None:
        """What stands in the answer tag."""
        return _answer(text)


class ReadingEnvironment(Environment):
    """One document. A state is the document, how far it has been read, memory and plan; each turn is a conversation.

    memory, plan: as they are now.
    """

    def __init__(self, document: Document, task: ReadingTask) -> None:
        self.document, self.task = document, task
        self._parts = _parts(document, task)
        self.memory = self.plan = ""
        self._read = 0

    def reset(self) -> Observation:
        self.memory = self.plan = ""
        self._read = 0
        return self._observe()

    def step(self, action: str) -> Step:
        if self._read < len(self._parts):
            fits = self._remember(action)
            self._read += 1
            return Step(self._observe(), well_formed=fits)
        right = _answer(action) == self.document.answer
        end = Observation("the end", state_key("reading", self.document, "end"), context=self._read + 1)
        return Step(end, float(right), done=True, success=right, well_formed=_answer(action) is not None)

    def _remember(self, action: str) -> bool:
        """Take over memory and plan. False when there is not one memory, or one of them was too long."""
        memories, plans = contents(action, "memory"), contents(action, "plan")
        if len(memories) != 1 or len(plans) > 1:
            return False
        self.memory, whole = _cut(memories[0], self.task.room)
        self.plan, all_of_it = _cut(plans[0] if plans else "", self.task.room)
        return whole and all_of_it

    def _observe(self) -> Observation:
        document = self.document
        lines = [f"Question: {document.question}"]
        if self.task.whole:
            lines = [*document.lines, f"Question: {document.question} {document.format}"]
        elif self._read < len(self._parts):
            lines += [f"Memory: {self.memory or '(empty)'}", f"Plan: {self.plan or '(none)'}"]
            lines += [f"Part {self._read + 1} of {len(self._parts)}:", *self._parts[self._read]]
        else:
            lines = [f"{lines[0]} {document.format}", f"Memory: {self.memory or '(empty)'}"]
        key = state_key("reading", document, self._read, self.memory, self.plan)
        return Observation("\n".join(lines), key, context=self._read)


def written(memory: str, plan: str) -> str:
    """A turn of reading as it is to be written."""
    return f"<memory>{memory}</memory><plan>{plan}</plan>"


def from_spec(argument: str | None, options: Mapping[str, str]) -> Task:
    """``reading[:kind=mixed,lines=40,part=8,room=24,whole=false,max_new_tokens=96]``; ``mixed``: all in turn."""
    if options.get("kind") == "mixed":
        return Mixture([configure(ReadingTask, argument, {**options, "kind": kind}) for kind in KINDS])
    return configure(ReadingTask, argument, options)


def _parts(document: Document, task: ReadingTask) -> list[Sequence[str]]:
    starts = range(0, 0 if task.whole else len(document.lines), task.part)
    return [document.lines[start : start + task.part] for start in starts]


def _answer(text: str) -> str | None:
    answers = contents(text, "answer")
    return answers[0].strip() or None if len(answers) == 1 else None


def _cut(text: str, words: int) -> tuple[str, bool]:
    """The first words of a text, and whether these are all."""
    said = re.findall(r"\S+", text)
    return " ".join(said[:words]), len(said) <= words


# ---- documents ------------------------------------------------------------------------------------------------------


def _document(random: Random, kind: Kind, lines: int) -> Document:
    names = _names(random, lines + 4)
    value = {name: random.randrange(VALUES) for name in names}
    asked, others = names[:3], names[3:]
    first = asked[0]
    said = f"{first} = {value[first]}"
    match kind:
        case "lookup":
            evidence = [said]
            question, form, answer = f"What is {first}?", "Answer with a digit.", str(value[first])
        case "choice":
            options = [value[first], *random.sample([v for v in range(VALUES) if v != value[first]], 3)]
            random.shuffle(options)
            listed = ", ".join(f"{letter}: {v}" for letter, v in zip(_LETTERS, options, strict=True))
            evidence = [said]
            question, form = f"Which is {first}? {listed}", "Answer with a letter."
            answer = _LETTERS[options.index(value[first])]
        case "hops":
            evidence = [f"{asked[1]} is as {asked[2]}", f"{asked[2]} is as {first}", said]
            question, form, answer = f"What is {asked[1]}?", "Answer with a digit.", str(value[first])
        case "latest":
            evidence = [f"{first} = {random.randrange(VALUES)}" for _ in range(3)]
            question, form = f"What is {first} in the end?", "Answer with a digit."
            answer = evidence[-1].split()[-1]
        case "sum":
            evidence = [f"{name} = {value[name]}" for name in asked]
            question, form = f"What is the sum of {', '.join(asked)}?", "Answer with a number."
            answer = str(sum(value[name] for name in asked))
    text = [f"{name} = {value[name]}" for name in others[: lines - len(evidence)]]
    places = sorted(random.sample(range(lines), len(evidence)))
    # What is said last of a name counts, so evidence keeps its order where it is of one name.
    planted = evidence if kind == "latest" else random.sample(evidence, len(evidence))
    for place, line in zip(places, planted, strict=True):
        text.insert(place, line)
    return Document(tuple(text), question, form, answer, tuple(evidence))


def _names(random: Random, count: int) -> list[str]:
    """Different words of two syllables."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    numbers = random.sample(range(len(syllables) ** 2), count)
    return [syllables[number // len(syllables)] + syllables[number % len(syllables)] for number in numbers]
