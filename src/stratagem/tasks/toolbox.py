"""The toolbox task: questions of which some need no tool, some a calculator, some a search, and some both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.tasks.answers import CloseNumber, NearNumber, SimilarText, Verifier, normalised
from stratagem.tasks.calculator import calculate
from stratagem.tasks.delegation import AnswerTask
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, state_key

Kind = Literal["sum", "product", "lookup", "worth"]

KINDS: tuple[Kind, ...] = ("sum", "product", "lookup", "worth")
"""Questions, from those that need no tool to those that need two."""

VERIFIERS: dict[Kind, Verifier] = {
    "sum": CloseNumber(),
    "product": CloseNumber(),
    "lookup": SimilarText(),
    "worth": NearNumber(),
}
"""How an answer of each kind is scored."""

_CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito", "Paris", "Seoul", "Accra", "Minsk")
_TAGS = ("think", "search", "code", "answer")
_RIGHT = 0.9
_PAIR = re.compile(r"\s*<(?P<tag>[a-z]+)>(?P<content>.*?)</(?P=tag)>\s*", re.DOTALL)
_TOOL = re.compile(r"<(?P<tag>search|code|answer)>(?P<content>.*?)</(?P=tag)>", re.DOTALL)


class Question(NamedTuple):
    """A question, its answer, what there is to be found, and the tool calls that lead to the answer."""

    kind: Kind
    text: str
    answer: str
    facts: Mapping[str, str]
    calls: tuple[str, ...]


@dataclass(frozen=True)
class ToolboxTask(AnswerTask):
    """Answer a question, with tools where they help. A turn is a sequence of tags:

        <think>no tool knows this better</think><answer>12</answer>
        <code>384*972</code>
        <search>warehouse 318</search>

    What tools return is the next observation, ``<response>373248</response>``, one for each call of the turn. An
    ``answer`` ends the episode, and so does a turn without a call, or the last.

    The reward is a score in [0, 1]: of sums and products 1 within 0.001; of lookups, 1 for an answer that holds the
    right one, else ``1 - d`` where the share of letters to change is ``d < 0.5``; of worths, 1 within 5 %. Success is a
    score above 0.9 in the right format. ``format`` is 1 when the policy wrote nothing but tags from the first turn on
    and the answer last; ``calls`` counts calls. Both are noted and count nothing in the return: whether a wrong format
    costs something is the recipe's affair. Scores and grammar are those of arXiv 2510.07038 (its released code); the
    questions are our own.

    ``kind``: ``sum`` of two numbers up to 20; ``product`` of two numbers of three digits; ``lookup`` of a city;
    ``worth``, a lookup and a product; ``mixed`` is each of them in turn. ``max_turns``: 1 to 16. ``max_new_tokens``: of
    a turn, 1 to 100,000.
    """

    kind: Literal["mixed", "sum", "product", "lookup", "worth"] = "mixed"
    max_turns: Annotated[int, Field(ge=1, le=16)] = 4
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64

    name = "toolbox"
    description = "answer questions, some of which need a calculator, a search, or both"
    system = (
        "Write `<answer>...</answer>` to answer. Before it you may think in `<think>...</think>`, calculate with "
        "`<code>12*7</code>` and look up what you do not know with `<search>...</search>`."
    )
    reward_names = ("reward", "format", "calls")
    reward_weights = (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> ToolboxEnvironment:
        return ToolboxEnvironment(self.question(split, index), self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Call after call, then the answer; the answer at once where there are too few turns."""
        question = self.question(split, index)
        if len(question.calls) < self.max_turns:
            yield from question.calls
        yield f"<answer>{question.answer}</answer>"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: a wrong answer, the right one with a remark behind it, and without its tag."""
        question = self.question(split, index)
        wrong = VERIFIERS[question.kind].corrupted({"answer": question.answer})
        if question.kind == "lookup":
            wrong = wrong[:2]
        misses = (
            f"<answer>{wrong}</answer>",
            f"<answer>{question.answer}</answer> I am sure",
            question.answer,
        )
        yield misses[index // len(KINDS) % len(misses)]

    def answer(self, text: str) -> str | None:
        """What the ``answer`` tag holds."""
        answers = [match["content"] for match in _TOOL.finditer(text) if match["tag"] == "answer"]
        return normalised(answers[0]) or None if answers else None

    def right_answers(self, split: Split, index: int) -> tuple[str, ...]:
        return (self.question(split, index).answer,)

    def question(self, split: Split, index: int) -> Question:
        """The question of this episode."""
        kind = KINDS[index % len(KINDS)] if self.kind == "mixed" else self.kind
        return draw(
            split,
            index,
            (self.name, kind),
            lambda random: _question(random, kind),
            lambda question: state_key(self.name, question.text),
        )


class ToolboxEnvironment(Environment):
    """One question. A state is the question, what there is to be found, and all that was called."""

    def __init__(self, question: Question, max_turns: int) -> None:
        self.question = question
        self.max_turns = max_turns
        self._said: list[str] = []
        self._calls: list[tuple[str, str]] = []

    def reset(self) -> Observation:
        self._said, self._calls = [], []
        return self._observe(self.question.text)

    def step(self, action: str) -> Step:
        self._said.append(action)
        used = [(match["tag"], match["content"]) for match in _TOOL.finditer(action)]
        answers = [content for tag, content in used if tag == "answer"]
        calls = used[: [tag for tag, _ in used].index("answer")] if answers else used
        self._calls += calls
        done = bool(answers) or not calls
        out_of_turns = not done and len(self._said) >= self.max_turns
        told = "\n".join(f"<response>{self._returned(tag, content)}</response>" for tag, content in calls)
        if not done and not out_of_turns:
            return Step(self._observe(told))
        score = self._score(answers[0]) if answers else 0.0
        formed = well_formed(self._said)
        return Step(
            self._observe("the end"),
            score,
            done=True,
            truncated=out_of_turns,
            success=formed and score > _RIGHT,
            components={"format": float(formed), "calls": float(len(self._calls))},
        )

    def _score(self, answer: str) -> float:
        return VERIFIERS[self.question.kind].score(answer, {"answer": self.question.answer})

    def _returned(self, tag: str, content: str) -> str:
        if tag == "search":
            found = [fact for key, fact in self.question.facts.items() if key in normalised(content)]
            return found[0] if found else "nothing found"
        try:
            return calculate(content)
        except ValueError as error:
            return f"error: {error}"

    def _observe(self, text: str) -> Observation:
        facts = sorted(self.question.facts.items())
        return Observation(text, state_key("toolbox", self.question.text, facts, self._calls, text))


def well_formed(turns: Sequence[str]) -> bool:
    """Whether the turns are nothing but ``think``, ``search``, ``code`` and ``answer`` in tags, the answer last alone.

    ``response`` is what tools say: a policy that writes it itself has broken the format.
    """
    tags: list[str] = []
    for text in turns:
        place = 0
        while place < len(text):
            pair = _PAIR.match(text, place)
            if pair is None or pair["tag"] not in _TAGS:
                return False
            tags.append(pair["tag"])
            place = pair.end()
    return tags.count("answer") == 1 and tags[-1] == "answer"


def from_spec(argument: str | None, options: Mapping[str, str]) -> ToolboxTask:
    """``toolbox[:kind=mixed,max_turns=4,max_new_tokens=64]``."""
    return configure(ToolboxTask, argument, options)


def _question(random: Random, kind: Kind) -> Question:
    if kind == "sum":
        expression = f"{random.randint(1, 20)}+{random.randint(1, 20)}"
        return Question(kind, f"What is {expression}?", calculate(expression), {}, ())
    if kind == "product":
        expression = f"{random.randint(100, 999)}*{random.randint(100, 999)}"
        return Question(kind, f"What is {expression}?", calculate(expression), {}, (f"<code>{expression}</code>",))
    name = f"warehouse {random.randint(100, 999)}"
    city, crates = random.choice(_CITIES), random.randint(1000, 9999)
    facts = {name: f"{name.capitalize()} is in {city} and holds {crates} crates."}
    search = f"<search>{name}</search>"
    if kind == "lookup":
        return Question(kind, f"In which city is {name}?", city, facts, (search,))
    price = random.randint(11, 99)
    text = f"What are all crates of {name} worth at {price} each?"
    return Question(kind, text, str(crates * price), facts, (search, f"<code>{crates}*{price}</code>"))
