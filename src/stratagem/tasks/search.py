"""The search task: questions of one to three steps about a made-up world, and documents to be searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.tasks.answers import answer_f1, equals_any, holds_any, plain_words
from stratagem.tasks.corpus import Passage, World, documents, found, made_up
from stratagem.tasks.delegation import AnswerTask, Subtask
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.tags import first_tag, in_form
from stratagem.tasks.task import Environment, Observation, Split, Step, state_key

Kind = Literal["one", "two", "three", "compare"]

KINDS: tuple[Kind, ...] = ("one", "two", "three", "compare")
"""Questions: chains of so many steps, and whether two people were born in the same city."""

CHAINS: Mapping[Kind, tuple[tuple[str, ...], ...]] = {
    "one": (("born",), ("mentor",), ("employer",)),
    "two": (("mentor", "born"), ("mentor", "employer"), ("employer", "seat"), ("born", "country")),
    "three": (
        ("mentor", "mentor", "born"),
        ("mentor", "employer", "seat"),
        ("mentor", "born", "country"),
        ("employer", "seat", "country"),
    ),
}
"""Relations to be followed, one after the other, from a person."""

_ASKED = {
    "born": "In which city was {} born?",
    "mentor": "Who was the mentor of {}?",
    "employer": "Which company does {} work for?",
    "seat": "In which city is the seat of {}?",
    "country": "In which country is {}?",
}
_CALLED = {
    "born": "the birthplace of {}",
    "mentor": "the mentor of {}",
    "employer": "the employer of {}",
    "seat": "the city of the seat of {}",
}
_USAGE = "error: write <search>...</search> or <answer>...</answer>"


class Question(NamedTuple):
    """A question, the answers that are right, and what is to be found out on the way, one search for each."""

    kind: Kind
    text: str
    answers: tuple[str, ...]
    steps: tuple[Lookup, ...]
    passages: tuple[Passage, ...]


class Lookup(NamedTuple):
    """A question that one document answers: its text, what it is about, and the answer."""

    text: str
    subject: str
    answer: str


@dataclass(frozen=True)
class SearchTask(AnswerTask):
    """Answer a question with what searches find. Each turn searches, or answers:

        <think>first her mentor</think><search>mentor of Ada Finch</search>
        <answer>Avenmoor</answer>

    A search returns the ``top_k`` passages that fit best by BM25, ``<information>title: text ...</information>``. The
    first search or answer of a turn is what it does, and an answer ends the episode. A turn that does neither, and an
    empty search, are told what to write, count as ``malformed`` and take their turn. An episode out of turns is
    truncated and earns nothing.

    Every question has a world of its own, so that nothing can be learned by heart: people, companies and cities with a
    document each, which tells its facts among asides. Most people share a name with others. Questions follow a chain of
    one to three relations ("In which country is the birthplace of the mentor of Ada Finch?"), or compare two people.

    ``reward``: what an answer earns: ``f1`` of its words with the right answer it fits best, ``exact``, whether they
    are the same, or ``contains``, whether it contains a right one. ``yes`` and ``no`` must be exact in all. Success is
    ``exact``. ``format`` is 1 when each of the tags ``think``, ``search`` and ``answer`` is there, opened as often as
    closed, and the policy wrote no ``information`` itself; ``calls`` counts searches. Those noted beside the reward
    count nothing in the return.

    ``kind``: ``one``, ``two``, ``three`` or ``compare``; ``mixed`` is each of them in turn.  ``people``: 4 to 100.
    ``length``: least words of a document, 1 to 10,000.  ``top_k``: passages of a search, 1 to 20.  ``max_turns``: 1 to
    100.  ``max_new_tokens``: of a turn, 1 to 100,000.

    Raises :class:`InputError` for an option out of range, and in a search where bm25s is missing.
    """

    kind: Literal["mixed", "one", "two", "three", "compare"] = "mixed"
    people: Annotated[int, Field(ge=4, le=100)] = 12
    length: Annotated[int, Field(ge=1, le=10_000)] = 24
    top_k: Annotated[int, Field(ge=1, le=20)] = 3
    reward: Literal["f1", "exact", "contains"] = "f1"
    max_turns: Annotated[int, Field(ge=1, le=100)] = 6
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64

    name = "search"
    description = "answer questions of one to three steps by searching documents"
    stop = ("</search>", "</answer>")
    tags = ("think", "search", "answer")
    system = (
        "Answer the question. Search documents with `<search>...</search>`, and answer with `<answer>...</answer>`. "
        "Think in `<think>...</think>` before."
    )
    reward_names = ("reward", "exact", "format", "calls", "malformed")
    reward_weights = (1.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> SearchEnvironment:
        return SearchEnvironment(self.question(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """A search for every step, and the answer; the answer at once where there are too few turns."""
        question = self.question(split, index)
        if len(question.steps) < self.max_turns:
            for step in question.steps:
                yield from _looked_up(step)[:-1]
        yield f"<think>That is all.</think><answer>{question.answers[0]}</answer>"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: a wrong answer, the right one without its tag, and the question for an answer."""
        question = self.question(split, index)
        misses = (f"<answer>{_wrong(question)}</answer>", question.answers[0], f"<answer>{question.text}</answer>")
        yield f"<search>{question.steps[0].subject}</search>"
        yield misses[index // len(KINDS) % len(misses)]

    def answer(self, text: str) -> str | None:
        """What the ``answer`` tag holds."""
        used = first_tag(text, "search", "answer")
        return " ".join(plain_words(used[1])) or None if used is not None and used[0] == "answer" else None

    def right_answers(self, split: Split, index: int) -> tuple[str, ...]:
        return self.question(split, index).answers

    def subtasks(self, split: Split, index: int) -> tuple[Subtask, ...]:
        """A sub-task for every step."""
        return tuple(Subtask(step.text, _looked_up(step)) for step in self.question(split, index).steps)

    def score(self, answer: str, right: tuple[str, ...]) -> float:
        """What an answer earns."""
        if self.reward == "f1" or right[0] in ("yes", "no"):
            return answer_f1(answer, right)
        return float((equals_any if self.reward == "exact" else holds_any)(answer, right))

    def question(self, split: Split, index: int) -> Question:
        """The question of this episode, with its documents."""
        return _drawn(self, split, index)


class SearchEnvironment(Environment):
    """One question. A state is the question with all that can be found, and what was searched for."""

    def __init__(self, question: Question, task: SearchTask) -> None:
        self.question = question
        self.task = task
        self._world = state_key(question)
        self._said: list[str] = []
        self._searched: list[str] = []

    def reset(self) -> Observation:
        self._said, self._searched = [], []
        return self._observe(self.question.text)

    def step(self, action: str) -> Step:
        self._said.append(action)
        used = first_tag(action, "search", "answer")
        if used is not None and used[0] == "answer":
            return self._end("the end", used[1])
        searches = used is not None and used[1] != ""
        told = self._found(used[1]) if used is not None and searches else _USAGE
        counted = {"calls" if searches else "malformed": 1.0}
        if len(self._said) >= self.task.max_turns:
            return self._end(told, None, counted)
        return Step(self._observe(told), components=counted)

    def _found(self, query: str) -> str:
        self._searched.append(query)
        passages = found(self.question.passages, query, self.task.top_k)
        told = "\n".join(f"{passage.title}: {passage.text}" for passage in passages)
        return f"<information>{told or 'nothing found'}</information>"

    def _end(self, text: str, answer: str | None, counted: Mapping[str, float] | None = None) -> Step:
        exact = answer is not None and equals_any(answer, self.question.answers)
        formed = in_form(self._said, self.task.tags, forbidden=("information",))
        return Step(
            self._observe(text),
            0.0 if answer is None else self.task.score(answer, self.question.answers),
            done=True,
            truncated=answer is None,
            success=exact,
            components={"exact": float(exact), "format": float(formed), **(counted or {})},
        )

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("search", self._world, self._searched, text))


def from_spec(argument: str | None, options: Mapping[str, str]) -> SearchTask:
    """``search[:kind=mixed,people=12,length=24,top_k=3,reward=f1,max_turns=6,max_new_tokens=64]``."""
    return configure(SearchTask, argument, options)


@lru_cache(maxsize=64)
def _drawn(task: SearchTask, split: Split, index: int) -> Question:
    """The question of an episode, which all that play it share."""
    kind = KINDS[index % len(KINDS)] if task.kind == "mixed" else task.kind
    return draw(
        split,
        index,
        (task.name, kind, task.people),
        lambda random: _question(random, kind, task),
        lambda question: state_key(task.name, question.text),
    )


def _question(random: Random, kind: Kind, task: SearchTask) -> Question:
    world = made_up(random, task.people)
    person, other = random.sample(world.people, 2)
    if kind == "compare":
        steps = tuple(_lookup(world, "born", name) for name in (person, other))
        text = f"Were {person} and {other} born in the same city?"
        answers: tuple[str, ...] = ("yes" if steps[0].answer == steps[1].answer else "no",)
    else:
        chain = random.choice(CHAINS[kind])
        steps, text = _followed(world, chain, person)
        answer = steps[-1].answer
        answers = (answer, f"Republic of {answer}") if chain[-1] == "country" else (answer,)
    return Question(kind, text, answers, steps, documents(world, task.length, random))


def _followed(world: World, chain: tuple[str, ...], start: str) -> tuple[tuple[Lookup, ...], str]:
    """The lookups of a chain of relations, and the question that asks for its end without naming what lies between."""
    steps, subject, called = [], start, start
    for relation in chain:
        steps.append(_lookup(world, relation, subject))
        subject = steps[-1].answer
    for relation in chain[:-1]:
        called = _CALLED[relation].format(called)
    return tuple(steps), _ASKED[chain[-1]].format(called)


def _lookup(world: World, relation: str, subject: str) -> Lookup:
    return Lookup(_ASKED[relation].format(subject), subject, world.facts[relation][subject])


def _looked_up(step: Lookup) -> tuple[str, str]:
    """How a lookup is solved: a search and an answer."""
    return (
        f"<think>I look for {step.subject}.</think><search>{step.subject}</search>",
        f"<refine>{step.text} {step.answer}</refine><answer>{step.answer}</answer>",
    )


def _wrong(question: Question) -> str:
    answer = question.answers[0]
    return {"yes": "no", "no": "yes"}.get(answer, question.steps[0].subject)
