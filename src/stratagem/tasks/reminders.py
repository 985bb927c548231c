"""What a policy is told before an episode beside the task's own words: text at the end of the system message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stratagem.tasks.task import Observation


def reminded(opened: Observation, system: str | None, told: str) -> Observation:
    """The observation that opens a conversation, with ``told`` at the end of its system message, which it may lack.

    system: of the task, for a conversation that brings no opening of its own.
    """
    messages: list[Mapping[str, str]] = list(opened.opening) or [
        *([] if system is None else [{"role": "system", "content": system}]),
        {"role": "user", "content": opened.text},
    ]
    if messages[0]["role"] == "system":
        messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{told}"}
    else:
        messages.insert(0, {"role": "system", "content": told})
    return replace(opened, opening=tuple(messages))
