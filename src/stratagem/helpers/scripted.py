"""A helper that is a Python function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stratagem.errors import InputError
from stratagem.helpers.helper import Message, Question, Reply, one_line

Answering = Callable[[Sequence[Message], int], str]
"""From the messages of a conversation and a seed to the answer."""


@dataclass(frozen=True)
class Scripted:
    """Calls ``function(messages, seed)`` for every question. What it raises is a failure of that question.

    name: what a recording knows it by.
    """

    function: Answering
    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "python", "model": self.name}

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Reply:
        try:
            said: Any = self.function(question.messages, question.seed)
        except Exception as error:
            return Reply(None, one_line(f"{self.name} raised {type(error).__name__}: {error}"))
        if not isinstance(said, str):
            return Reply(None, f"{self.name} returned {type(said).__name__} instead of text")
        return Reply(said)


def scripted(path: str) -> Scripted:
    """The function at ``module:function``. Raises :class:`InputError` when there is none that can be called."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise InputError(f"helper 'python:{path}' is malformed; write python:module:function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"helper 'python:{path}': {one_line(error)}") from None
    if not callable(function):
        raise InputError(f"helper 'python:{path}': {name} of {module} cannot be called")
    return Scripted(function, path)
