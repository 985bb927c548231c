"""Files of one JSON object a line: reading them, and saying which line cannot be used and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from stratagem.errors import InputError

_Parsed = TypeVar("_Parsed")

_ROLES = ("system", "user", "assistant")


def read_lines(path: str, parse: Callable[[dict[str, Any]], _Parsed], example: str) -> Iterator[tuple[int, _Parsed]]:
    """The number of every line that is not blank, from 1, and what ``parse`` makes of its object.

    ``parse`` raises ``ValueError`` with the reason for one it cannot use. example: how a line looks.

    Raises :class:`InputError` for a file that cannot be read or is empty, and naming path and line for one that is not
    UTF-8, no JSON object, or refused.
    """
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not any(line.strip() for line in lines):
        raise InputError(f"{path} is empty; it needs a line such as {example}")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, parse(_object(line))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: {error}; a line looks like {example}") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def prompt_text(prompt: object) -> str:
    """A prompt, text or chat messages, as one text. Raises ``ValueError`` for what is neither."""
    if not isinstance(prompt, list):
        return some_text(prompt, "prompt")
    if not prompt:
        raise ValueError("prompt is an empty list")
    messages = [_message(message) for message in prompt]
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in messages)


def answer_text(answer: object, name: str) -> str:
    """An answer, text or a list with one message of the assistant. Raises ``ValueError`` for what is neither."""
    if not isinstance(answer, list):
        return some_text(answer, name)
    messages = [_message(message) for message in answer]
    if len(messages) != 1 or messages[0][0] != "assistant":
        raise ValueError(f"{name} must be text, or a list of one message by the assistant")
    return messages[0][1]


def _message(message: object) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ValueError(f"a chat message needs a role, one of {', '.join(_ROLES)}, and content")
    return message["role"], some_text(message.get("content"), "content")


def some_text(value: object, name: str) -> str:
    """Text that is not blank. Raises ``ValueError`` naming the field for anything else."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is missing" if value is None else f"{name} must be text and not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half of a surrogate pair") from None
    return value
