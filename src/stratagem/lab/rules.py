"""Cases and rules for policies over steps: which of several labels fits a case, found by one verdict a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.steps import Walk
from stratagem.planning.steps import Kind
from stratagem.seeding import generator

NEEDED, FACTS = 3, 5
"""Facts that a label needs, and those its rule speaks of: the fourth excludes it, unless the fifth is there."""

NO, FITS = 0, 1


class Case(NamedTuple):
    """For every label of a question how its rule is worded, and which of the facts it speaks of are there (as bits)."""

    wordings: tuple[int, ...]
    facts: tuple[int, ...]

    def __str__(self) -> str:
        rules = [
            f"{letter(n)}: needs {', '.join(_there(facts, range(NEEDED)))}; excluded by {_there(facts, [3])[0]} "
            f"unless {_there(facts, [4])[0]}."
            for n, facts in enumerate(self.facts)
        ]
        return "\n".join(("Which label fits?", *rules))

    @property
    def truth(self) -> str:
        """The one label that fits."""
        return letter([fits(facts) for facts in self.facts].index(True))


@dataclass(frozen=True)
class Rules:
    """Questions of which of ``labels`` fits: it has all the facts it needs, and none that excludes it.

    A ``reason`` step is the verdict on the next label. Once all have one, the first that was said to fit is the answer;
    there is none where no label was. A ``finish`` step gives all verdicts that are left; a ``reflect`` step gives
    another one on the label that was the answer, or on the last one. A state's look is how a rule is worded and
    which of its five facts are there, so there are 32 looks for each wording.

    labels: 2 to 26.  wordings: at least 1.  Raises :class:`InputError` for a number out of range.
    """

    labels: int = 6
    wordings: int = 6

    def __post_init__(self) -> None:
        if not 2 <= self.labels <= 26:
            raise InputError(f"rules.labels = {self.labels}: must be in [2, 26]")
        if self.wordings < 1:
            raise InputError(f"rules.wordings = {self.wordings}: must be at least 1")

    @property
    def looks(self) -> int:
        """Wordings with their facts."""
        return self.wordings << FACTS

    @property
    def choices(self) -> int:
        """Verdicts."""
        return 2

    @property
    def most(self) -> int:
        """Tokens of a path, with two to reflect."""
        return self.labels + 2

    def questions(self, count: int, seed: int) -> list[Case]:
        """Random ones, with one label each that fits."""
        source = generator(seed, "rules")
        every = torch.tensor([fits(facts) for facts in range(1 << FACTS)])
        good, bad = torch.nonzero(every).squeeze(1), torch.nonzero(~every).squeeze(1)
        facts = bad[torch.randint(len(bad), (count, self.labels), generator=source)]
        place = torch.randint(self.labels, (count, 1), generator=source)
        facts = facts.scatter(1, place, good[torch.randint(len(good), (count, 1), generator=source)])
        wordings = torch.randint(self.wordings, (count, self.labels), generator=source)
        return [Case(tuple(w), tuple(f)) for w, f in zip(wordings.tolist(), facts.tolist(), strict=True)]

    def start(self, question: Case) -> Walk[Case]:
        """Before the first verdict."""
        return Walk(question, (), ())

    def look(self, walk: Walk[Case], kind: Kind) -> int:
        """The rule that the next verdict is on, and its facts."""
        label = self._next(walk, kind)
        return (walk.question.wordings[label] << FACTS) + walk.question.facts[label]

    def then(self, walk: Walk[Case], choice: int, kind: Kind) -> Walk[Case]:
        """With this verdict."""
        given, label = _verdicts(walk), self._next(walk, kind)
        verdicts = (*given[:label], choice, *given[label + 1 :])
        return Walk(walk.question, (*walk.said, (self.look(walk, kind), choice)), verdicts)

    def ended(self, walk: Walk[Case]) -> bool:
        """Whether every label has a verdict."""
        return len(_verdicts(walk)) == self.labels

    def answer(self, walk: Walk[Case]) -> str | None:
        """The first label that was said to fit."""
        verdicts = _verdicts(walk)
        return letter(verdicts.index(FITS)) if self.ended(walk) and FITS in verdicts else None

    def right(self, walk: Walk[Case]) -> bool:
        """Whether that is the one that does."""
        return self.answer(walk) == walk.question.truth

    def half_learned(self, seed: int, strength: float = 1.2, spread: float = 1.0) -> Float64[Tensor, "looks choices"]:
        """Logits of a table that gives right verdicts more often than not.

        They are ``spread`` times a normal number each, and ``strength`` more for the right verdict.
        """
        noise = torch.randn(self.looks, 2, generator=generator(seed, "table"), dtype=torch.float64)
        right = torch.tensor([int(fits(look % (1 << FACTS))) for look in range(self.looks)])
        return spread * noise + strength * torch.nn.functional.one_hot(right, 2)

    def _next(self, walk: Walk[Case], kind: Kind) -> int:
        """The label that a verdict is on."""
        verdicts = _verdicts(walk)
        if kind == "reflect" and verdicts:
            return verdicts.index(FITS) if FITS in verdicts else len(verdicts) - 1
        return len(verdicts)


def fits(facts: int) -> bool:
    """Whether a label with these facts fits."""
    needed, excluding, excusing = facts % (1 << NEEDED), facts >> NEEDED & 1, facts >> NEEDED + 1 & 1
    return needed == (1 << NEEDED) - 1 and not (excluding and not excusing)


def letter(label: int) -> str:
    """By which a label is called."""
    return chr(ord("A") + label)


def _there(facts: int, numbers: range | list[int]) -> list[str]:
    """Facts as they are said of a case."""
    return [f"fact {n + 1} ({'there' if facts >> n & 1 else 'not there'})" for n in numbers]


def _verdicts(walk: Walk[Case]) -> tuple[int, ...]:
    assert isinstance(walk.at, tuple)
    return walk.at
