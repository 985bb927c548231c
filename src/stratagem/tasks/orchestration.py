"""The experts task: procedural questions from three domains, and simulated experts who are right in some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.tasks.answers import normalised
from stratagem.tasks.commands import is_right, wrong
from stratagem.tasks.delegation import AnswerTask
from stratagem.tasks.experts import Call, Expert, ExpertRegistry, Model, Skill, read_call, well_formed
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.tags import first_tag
from stratagem.tasks.task import Environment, Observation, Split, Step, state_key

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_FORGED = re.compile(r"</?information>")
_BETWEEN_TURNS = "<information></information>"
_USAGE = "error: write <search>Model@@Skill: input</search> or <answer>...</answer>"

DOMAINS = ("arithmetic", "words", "calendar")
"""The first tier of the skills."""

ACCURACY: Mapping[str, tuple[float, float, float]] = {
    "Abacus": (0.9, 0.2, 0.1),
    "Lexicon": (0.1, 0.8, 0.3),
    "Almanac": (0.2, 0.1, 0.7),
}
"""How often a simulated model is right, by domain."""

NEWCOMER = ("Polyglot", (0.1, 0.95, 0.2))
"""A further model, for registries that training has not seen."""


class Question(NamedTuple):
    """A question, its answer, and the skill it takes."""

    skill: str
    text: str
    answer: str


class Kind(NamedTuple):
    """Questions of one kind: how they are made, read, answered, and answered wrongly.

    template: of the text, with places for the values.  pattern: finds the values in a text.
    """

    domain: str
    card: str
    template: str
    pattern: re.Pattern[str]
    draw: Callable[[Random], tuple[str, ...]]
    answer: Callable[..., str]
    miss: Callable[[str, Random], str]


@dataclass(frozen=True)
class SimulatedExpert:
    """Answers questions of one kind and is right in a share ``accuracy`` of them.

    Whether it is right in a question follows from ``seed``, its model and the question, so it says the same whenever it
    is asked the same, in whatever words around it.
    """

    model: str
    skill: str
    accuracy: float
    seed: int = 0

    def __call__(self, text: str) -> str:
        kind = KINDS[self.skill]
        found = kind.pattern.search(text)
        if found is None:
            return f"{self.skill}: no question of this kind"
        values = found.groups()
        random = seeded(self.seed, self.model, self.skill, *(value.casefold() for value in values))
        answer = kind.answer(*values)
        if random.random() >= self.accuracy:
            answer = kind.miss(answer, random)
        return f"The answer is {answer}."


@dataclass(frozen=True)
class ExpertsTask(AnswerTask):
    """Answer a question with the help of experts. Each turn asks one of them, or answers:

        <think>a product of large numbers</think><search>Abacus@@multiply: What is 384*972?</search>
        <answer>373248</answer>

    What an expert says is the next observation, ``<information>The answer is 373248.</information>``, its last 1,000
    characters. The first search or answer of a turn is what it does, and an answer ends the episode. A call of a pair
    that there is not is told ``Model/Skill Name Error``, a turn that does neither what to write; both take their turn.
    The registry, models with what each is good at and skills by domain, is the system message.

    The reward is 1 for the right answer, whatever the format, and so is success. ``format`` is 1 when the episode is
    :func:`~stratagem.tasks.experts.well_formed` and the policy wrote no ``information`` itself (this last rule is
    ours); ``calls`` counts the calls that an expert answered, ``errors`` the others, and ``cost`` is what they cost.
    All four are noted and count nothing in the return. Grammar and format are those of arXiv 2605.22177 (its released
    code); questions and experts are our own. The experts are simulated: each knows the answers of its skill, and says
    another where its model errs, by :data:`ACCURACY`.

    ``require_call``: whether an answer without a call is in a wrong format. ``newcomer``: adds a model that is right in
    0.95 of the questions about words. ``fuzzy``: see :class:`~stratagem.tasks.experts.ExpertRegistry`. ``seed``: of
    where experts err. ``max_turns``: 2 to 16. ``max_new_tokens``: of a turn, 1 to 100,000.

    For experts of your own, override ``registry`` and ``question``.
    """

    require_call: bool = True
    newcomer: bool = False
    fuzzy: bool = False
    seed: int = 0
    max_turns: Annotated[int, Field(ge=2, le=16)] = 4
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64

    name = "experts"
    description = "answer questions by calling simulated experts, each good at something else"
    stop = ("</search>", "</answer>")
    tags = ("search", "answer")
    reward_names = ("reward", "format", "calls", "errors", "cost")
    reward_weights = (1.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        object.__setattr__(
            self,
            "system",
            "Answer the question. Ask an expert with `<search>Model@@Skill: input</search>`, and answer with "
            f"`<answer>...</answer>`. You may think in `<think>...</think>` before.\n{self.registry().text}",
        )

    def registry(self) -> ExpertRegistry:
        """The experts there are."""
        accuracy = dict([*ACCURACY.items(), NEWCOMER] if self.newcomer else ACCURACY)
        experts: dict[tuple[str, str], Expert] = {
            (model, skill): SimulatedExpert(model, skill, by_domain[DOMAINS.index(kind.domain)], self.seed)
            for model, by_domain in accuracy.items()
            for skill, kind in KINDS.items()
        }
        return ExpertRegistry(
            tuple(Model(name, _card(by_domain), 0.001) for name, by_domain in accuracy.items()),
            tuple(Skill(name, kind.domain, kind.card) for name, kind in KINDS.items()),
            experts,
            self.fuzzy,
        )

    def environment(self, split: Split, index: int) -> ExpertsEnvironment:
        return ExpertsEnvironment(self.question(split, index), self.registry(), self.max_turns, self.require_call)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """A call of the best model for the domain, and the right answer, whatever it said."""
        question = self.question(split, index)
        yield self._call(question)
        yield f"<answer>{question.answer}</answer>"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The call, and a wrong answer; for every other episode after the right one without its tag."""
        question = self.question(split, index)
        yield self._call(question)
        if index // len(KINDS) % 2 and self.max_turns > 2:
            yield question.answer
        yield f"<answer>{wrong(question.answer)}</answer>"

    def answer(self, text: str) -> str | None:
        """What the ``answer`` tag holds."""
        used = first_tag(text, "search", "answer")
        return normalised(used[1]) or None if used is not None and used[0] == "answer" else None

    def right_answers(self, split: Split, index: int) -> tuple[str, ...]:
        return (self.question(split, index).answer,)

    def question(self, split: Split, index: int) -> Question:
        """The question of this episode; kinds take turns."""
        skill = list(KINDS)[index % len(KINDS)]
        return draw(
            split,
            index,
            (self.name, skill),
            lambda random: _question(skill, random),
            lambda question: state_key(self.name, question.text),
        )

    def _call(self, question: Question) -> str:
        domain = DOMAINS.index(KINDS[question.skill].domain)
        model = max(ACCURACY, key=lambda name: ACCURACY[name][domain])
        return f"<search>{model}@@{question.skill}: {question.text}</search>"


class ExpertsEnvironment(Environment):
    """One question. A state is the question, the experts that can be asked, and all calls with what they were told."""

    def __init__(
        self, question: Question, registry: ExpertRegistry, max_turns: int = 4, require_call: bool = True
    ) -> None:
        self.question = question
        self.registry = registry
        self.max_turns = max_turns
        self.require_call = require_call
        self.reset()

    def reset(self) -> Observation:
        self._said: list[str] = []
        self._told: list[tuple[str, str]] = []
        self._totals = {"calls": 0.0, "errors": 0.0, "cost": 0.0}
        return self._observe(self.question.text)

    def step(self, action: str) -> Step:
        self._said.append(action)
        used = first_tag(action, "search", "answer")
        if used is not None and used[0] == "answer":
            return self._end("the end", is_right(used[1], self.question.answer))
        told = _USAGE if used is None else f"<information>{self._asked(used[1])}</information>"
        if len(self._said) >= self.max_turns:
            return self._end(told, right=False, truncated=True)
        return Step(self._observe(told))

    def _asked(self, text: str) -> str:
        """What a call is told."""
        reply = self.registry.ask(read_call(text) or Call("", "", ""))
        self._totals["calls" if reply.answered else "errors"] += 1
        self._totals["cost"] += reply.cost
        self._told.append((text, reply.text))
        return reply.text

    def _end(self, text: str, right: bool, truncated: bool = False) -> Step:
        # Between turns stands what the policy was told: no tag may reach across it.
        formed = not any(_FORGED.search(said) for said in self._said) and well_formed(
            _BETWEEN_TURNS.join(self._said), self.registry, self.require_call
        )
        return Step(
            self._observe(text),
            float(right),
            done=True,
            truncated=truncated,
            success=right,
            components={"format": float(formed), **self._totals},
        )

    def _observe(self, text: str) -> Observation:
        pairs = sorted(self.registry.experts)
        return Observation(text, state_key("experts", self.question.text, pairs, self._told, text))


def from_spec(argument: str | None, options: Mapping[str, str]) -> ExpertsTask:
    """``experts[:require_call=true,newcomer=false,fuzzy=false,seed=0,max_turns=4,max_new_tokens=64]``."""
    return configure(ExpertsTask, argument, options)


def _question(skill: str, random: Random) -> Question:
    kind = KINDS[skill]
    values = kind.draw(random)
    return Question(skill, kind.template.format(*values), kind.answer(*values))


def _card(by_domain: tuple[float, ...]) -> str:
    told = [f"{domain} {accuracy:g}" for domain, accuracy in zip(DOMAINS, by_domain, strict=True)]
    return f"share of right answers in {', '.join(told)}"


# ---- questions ------------------------------------------------------------------------------------------------------


def _factors(random: Random) -> tuple[str, ...]:
    return str(random.randint(100, 999)), str(random.randint(100, 999))


def _fraction(random: Random) -> tuple[str, ...]:
    return str(random.randint(1000, 9999)), str(random.randint(11, 99))


def _word(random: Random) -> tuple[str, ...]:
    return ("".join(random.choice("bdfgklmnprst") + random.choice("aeiou") for _ in range(3)),)


def _later(names: tuple[str, ...]) -> Callable[[Random], tuple[str, ...]]:
    return lambda random: (str(random.randint(10, 999)), random.choice(names))


def _after(names: tuple[str, ...]) -> Callable[[str, str], str]:
    return lambda steps, name: names[(names.index(name.capitalize()) + int(steps)) % len(names)]


def _other_number(answer: str, random: Random) -> str:
    return str(int(answer) + random.randint(1, 9))


def _other_order(answer: str, random: Random) -> str:
    """Another order of the letters; there always is one, as vowels are no consonants."""
    turned = [answer[place:] + answer[:place] for place in range(1, len(answer))]
    return random.choice([letters for letters in turned if letters != answer])


def _other_name(names: tuple[str, ...]) -> Callable[[str, Random], str]:
    return lambda answer, random: random.choice([name for name in names if name != answer])


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def _of(names: tuple[str, ...]) -> str:
    return f"({'|'.join(names)})"


KINDS: Mapping[str, Kind] = {
    "multiply": Kind(
        "arithmetic",
        "the product of two numbers",
        "What is {}*{}?",
        _pattern(r"(\d{1,9}) *\* *(\d{1,9})"),
        _factors,
        lambda a, b: str(int(a) * int(b)),
        _other_number,
    ),
    "divide": Kind(
        "arithmetic",
        "the remainder of a division",
        "What is the remainder of {} divided by {}?",
        _pattern(r"(\d{1,9}) divided by 0*([1-9]\d{0,8})"),
        _fraction,
        lambda a, b: str(int(a) % int(b)),
        _other_number,
    ),
    "reverse": Kind(
        "words",
        "a word backwards",
        "Write {} backwards.",
        _pattern(r"write ([a-z]{2,}) backwards"),
        _word,
        lambda word: word[::-1],
        _other_order,
    ),
    "sort": Kind(
        "words",
        "the letters of a word in alphabetical order",
        "Sort the letters of {}.",
        _pattern(r"sort the letters of ([a-z]{2,})"),
        _word,
        lambda word: "".join(sorted(word)),
        _other_order,
    ),
    "weekday": Kind(
        "calendar",
        "the day of the week some days later",
        "Which day is {} days after {}?",
        _pattern(rf"(\d{{1,9}}) days after {_of(_DAYS)}"),
        _later(_DAYS),
        _after(_DAYS),
        _other_name(_DAYS),
    ),
    "month": Kind(
        "calendar",
        "the month some months later",
        "Which month is {} months after {}?",
        _pattern(rf"(\d{{1,9}}) months after {_of(_MONTHS)}"),
        _later(_MONTHS),
        _after(_MONTHS),
        _other_name(_MONTHS),
    ),
}
"""Kinds of questions by the skill they take: the second tier of the skills."""
