"""What a helper is: a frozen solver, judge or expert that is asked in text, and may be down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import Field

from stratagem.validation import validate_fields

_LOG = logging.getLogger("stratagem.helpers")
_LOGGED_EACH = 100

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""


class HelperError(RuntimeError):
    """A helper did not answer. One line; raised in an episode, it fails the episode and nothing else."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a helper is asked: the messages of a conversation, and the seed of what is random in the answer."""

    messages: tuple[Message, ...]
    seed: int = 0

    @classmethod
    def of(cls, text: str, seed: int = 0) -> Question:
        """A conversation of one message of the user."""
        return cls(({"role": "user", "content": text},), seed)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text, or why there is none, in one line."""

    text: str | None
    failure: str | None = None

    def required(self) -> str:
        """The text. Raises :class:`HelperError` when there is none."""
        if self.text is None:
            raise HelperError(self.failure or "no answer")
        return self.text


class Helper(Protocol):
    """Answers batches of questions.

    A helper never raises because it is down: each question has a reply, and a reply may be a failure. Equal questions
    with equal seeds are meant to have equal answers, as far as what is behind the helper keeps that promise.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its answers beside the question: kind, model, sampling options. Plain data, no secrets."""

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to every question, in their order."""


@dataclass(frozen=True)
class Wording:
    """How a helper's text is sampled.

    temperature: 0 takes the likeliest token.  top_p: in (0, 1].  max_tokens: of an answer, at least 1.
    seeded: whether the seed is sent along; some servers refuse one.

    Raises :class:`InputError` for a value out of range.
    """

    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    seeded: bool = True

    def __post_init__(self) -> None:
        validate_fields(self, "helper")


class Counted:
    """A helper whose questions and failures are counted; the first failure and every hundredth are logged.

    asked, failed: since it was made.
    """

    def __init__(self, helper: Helper, name: str) -> None:
        self.helper = helper
        self.name = name
        self.asked = self.failed = 0
        self._lock = threading.Lock()

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.helper.identity

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        replies = self.helper.ask(questions)
        for reply in replies:
            self._count(reply)
        return replies

    def ask_one(self, question: Question) -> Reply:
        """The reply to one question."""
        return self.ask([question])[0]

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.asked += 1
            failed = reply.text is None
            self.failed += failed
            shown = failed and (self.failed == 1 or self.failed % _LOGGED_EACH == 0)
            count = f"{self.failed} of {self.asked} questions failed"
        if shown:
            _LOG.warning("helper %s: %s; the last: %s", self.name, count, reply.failure)


def one_line(text: object, most: int = 200) -> str:
    """Text with its space folded, cut to ``most`` characters."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= most else f"{folded[: most - 3]}..."
