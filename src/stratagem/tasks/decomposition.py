"""The decompose task: sub-questions for a frozen solver that got a question wrong, paid by what they change."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stratagem.errors import InputError
from stratagem.helpers.helper import Counted, Message, Question, Reply
from stratagem.helpers.named import helper
from stratagem.helpers.scripted import Scripted
from stratagem.memory.embedding import HashedNgrams
from stratagem.rewards.decomposition import (
    Nouns,
    ProximityMode,
    consistency,
    content_words,
    coverage,
    operations,
    operators,
    proximity,
)
from stratagem.tasks.noisy_solver import Chain, NoisySolver, bracketed, chain_of_episode
from stratagem.tasks.options import configure, validate
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_SUB_QUESTION = re.compile(r"[^?]*\?")

WhenDown = Literal["fail", "drop"]


@dataclass(frozen=True)
class DecomposeTask(Task):
    """One turn: read a question and a solver's first attempt at it, write sub-questions, each up to its ``?``.

    The solver answers the sub-questions one after the other, in one conversation that begins with the question, and
    then the question itself. It is never trained. Fewer than ``fewest`` sub-questions count as none, more than
    ``most`` are not asked. Success is the solver's last answer, or its first where that was right at once: then nothing
    further is asked, ``solved_at_once`` is noted, and recipes that learn from failures leave the episode out
    (:class:`~stratagem.sampling.BelowReward`).

    Five rewards, each a column: ``correct`` (the last answer is right), ``coverage``, ``consistency``, ``proximity``
    and ``operations`` (:mod:`stratagem.rewards.decomposition`), all of weight 1. Further columns are noted and pay
    nothing: ``asked`` sub-questions, ``unanswered`` ones of the solver's, ``solved_at_once``. These are the rewards of
    arXiv 2310.18338 as its released code has them; the questions, chains of arithmetic in words, are ours, and so are
    two stand-ins: sentence vectors are hashed n-grams of characters and nouns are
    :func:`~stratagem.rewards.decomposition.content_words`.

    solver: ``noisy``, the program :class:`~stratagem.tasks.noisy_solver.NoisySolver`, or a helper by name.
    error: of the noisy solver, in (0, 1].  fewest_steps, most_steps: of a chain, 2 to 12.
    when_down: what a solver that does not answer costs. ``fail``: the episode, which is counted and played again.
    ``drop``: what was not answered; without a last answer nothing is paid at all, but what is below 0 is still charged.
    r4_mode: see :func:`~stratagem.rewards.decomposition.proximity`.  nouns: ``words``, or ``python:module:function``
    from a text to its nouns.  seed: of the solver.
    """

    solver: str = "noisy"
    error: Annotated[float, Field(gt=0, le=1)] = 0.05
    fewest_steps: Annotated[int, Field(ge=2, le=12)] = 3
    most_steps: Annotated[int, Field(ge=2, le=12)] = 6
    fewest: Annotated[int, Field(ge=1, le=12)] = 3
    most: Annotated[int, Field(ge=1, le=64)] = 8
    when_down: WhenDown = "fail"
    r4_mode: ProximityMode = "released"
    nouns: str = "words"
    seed: int = 0
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 256

    name = "decompose"
    description = "ask sub-questions that help a frozen solver"
    system = "The attempt below may be wrong. Write sub-questions that lead to the answer, each ending with `?`."
    reward_names = (
        *("correct", "coverage", "consistency", "proximity", "operations"),
        *("asked", "unanswered", "solved_at_once"),
    )
    reward_weights = (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    embed: ClassVar[HashedNgrams] = HashedNgrams()

    def __post_init__(self) -> None:
        validate(self)
        if self.fewest_steps > self.most_steps:
            raise InputError(
                f"task 'decompose': fewest_steps={self.fewest_steps} is not allowed; it should be at most "
                f"most_steps={self.most_steps}"
            )
        self.helper()
        self.noun_set()

    def helper(self) -> Counted:
        """The solver. Raises :class:`InputError` for a name that is none."""
        return _noisy(self.error) if self.solver == "noisy" else helper(self.solver)

    def noun_set(self) -> Nouns:
        """What finds nouns. Raises :class:`InputError` for a name that is none."""
        return content_words if self.nouns == "words" else _imported(self.nouns)

    def environment(self, split: Split, index: int) -> DecomposeEnvironment:
        return DecomposeEnvironment(self, self.question(split, index), index)

    def question(self, split: Split, index: int) -> Chain:
        """The question of this episode."""
        return chain_of_episode(self.name, split, index, self.fewest_steps, self.most_steps)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """One sub-question for every step, which the noisy solver never gets wrong.

        Raises ``NotImplementedError`` where another solver answers, or too few sub-questions may be asked.
        """
        chain = self.question(split, index)
        if self.solver != "noisy" or not self.fewest <= len(chain.steps) <= self.most:
            raise NotImplementedError("decompose: sub-questions that always help are known for solver=noisy alone")
        yield " ".join(chain.part(step, step + 1, step + 1) for step in range(len(chain.steps)))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution without its question marks: no sub-question at all, and the solver is as wrong as before."""
        for text in self.solution(split, index):
            yield text.replace("?", ".")

    def checkable(self, split: Split, index: int) -> bool:
        """Not where the solver is right at once: there any text is a success."""
        environment = self.environment(split, index)
        environment.reset()
        return not environment.solved_at_once

    def answer(self, text: str) -> str | None:
        """The sub-questions, in lower case; None where there are none."""
        return " ".join(self.sub_questions(text)).lower() or None

    def sub_questions(self, text: str) -> list[str]:
        """What a turn asks, without the space around it; none where there are fewer than ``fewest``."""
        found = [" ".join(piece.split()) for piece in _SUB_QUESTION.findall(text)]
        found = [piece for piece in found if piece != "?"]
        return found[: self.most] if len(found) >= self.fewest else []


class DecomposeEnvironment(Environment):
    """One question and the solver's attempts at it. A state is the question and the first attempt."""

    def __init__(self, task: DecomposeTask, chain: Chain, index: int) -> None:
        self.task, self.chain = task, chain
        self._seed = state_key(task.name, task.seed, index) & (2**31 - 1)
        self._first = ""
        self._unanswered = 0

    @property
    def solved_at_once(self) -> bool:
        """Whether the first attempt is right. Known after :meth:`reset`."""
        return self._right(self._first)

    def reset(self) -> Observation:
        """Ask the solver the question. Raises :class:`HelperError` when it does not answer."""
        self._unanswered = 0
        self._first = self._ask([_user(self.chain.text)]).required()
        return self._observe(f"{self.chain.text}\nAttempt: {self._first}")

    def step(self, action: str) -> Step:
        """Ask the solver the sub-questions, and the question again.

        Raises :class:`HelperError` when it does not answer and ``when_down`` is ``fail``.
        """
        if self.solved_at_once:
            return Step(self._observe("solved at once"), done=True, success=True, components={"solved_at_once": 1.0})
        asked = self.task.sub_questions(action)
        transcript, pairs = self._answers(asked)
        last = self._asked([*transcript, _user(self.chain.text)])
        right = last is not None and self._right(last)
        paid = self._paid(asked, pairs, last)
        return Step(
            self._observe("right" if right else "wrong"),
            float(right),
            done=True,
            success=right,
            components={**paid, "asked": float(len(asked)), "unanswered": float(self._unanswered)},
        )

    def _answers(self, asked: Sequence[str]) -> tuple[list[Message], list[tuple[str, str]]]:
        """The conversation after all sub-questions, and those that were answered with their answers."""
        transcript: list[Message] = []
        pairs: list[tuple[str, str]] = []
        for question in asked:
            context = [] if transcript else [{"role": "system", "content": f"Context: {self.chain.text}"}]
            answer = self._asked([*context, *transcript, _user(question)])
            if answer is not None:
                transcript += [*context, _user(question), {"role": "assistant", "content": answer}]
                pairs.append((question, answer))
        return transcript, pairs

    def _paid(self, asked: Sequence[str], pairs: Sequence[tuple[str, str]], last: str | None) -> dict[str, float]:
        """What sub-questions earn beside the right answer."""
        task, gold = self.task, self.chain.lines
        nouns = task.noun_set()
        paid = {
            "coverage": coverage(nouns(self.chain.text), nouns(" ".join(asked))),
            "consistency": consistency(pairs, task.embed),
        }
        if last is None:
            return {name: min(value, 0.0) for name, value in paid.items()}
        before, after = self._first.splitlines(), last.splitlines()
        return paid | {
            "proximity": proximity(gold, before, after, task.embed, task.r4_mode),
            "operations": operations(operators("\n".join(gold)), operators(last)),
        }

    def _asked(self, messages: Sequence[Message]) -> str | None:
        reply = self._ask(messages)
        if reply.text is None:
            self._unanswered += 1
        return reply.required() if self.task.when_down == "fail" else reply.text

    def _ask(self, messages: Sequence[Message]) -> Reply:
        return self.task.helper().ask_one(Question(tuple(messages), self._seed))

    def _right(self, said: str) -> bool:
        return bracketed(said) == str(self.chain.answer)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("decompose", self.chain.text, self._first, text))


def from_spec(argument: str | None, options: Mapping[str, str]) -> DecomposeTask:
    """``decompose[:solver=noisy,error=0.05,...]``."""
    return configure(DecomposeTask, argument, options)


@cache
def _noisy(error: float) -> Counted:
    return Counted(Scripted(NoisySolver(error), f"noisy {error:g}"), "noisy")


@cache
def _imported(path: str) -> Nouns:
    prefix, _, where = path.partition(":")
    module, _, name = where.partition(":")
    if prefix != "python" or not module or not name:
        raise InputError(f"task 'decompose': nouns={path!r} is not allowed; write words or python:module:function")
    try:
        found: Nouns = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"task 'decompose': nouns={path!r}: {error}") from None
    return found


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
