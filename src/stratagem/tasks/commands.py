"""Turns that begin with a command: ``answer: 84``, ``query: SELECT ...``, ``run:`` and a program."""

from __future__ import annotations

from fractions import Fraction

from stratagem.tasks.answers import last_number, normalised


def command(action: str) -> tuple[str, str]:
    """The word before the first colon in lower case, and all that follows it."""
    word, _, content = action.strip().partition(":")
    return word.strip().lower(), content


def answered(action: str) -> str | None:
    """What an ``answer:`` says in the form in which it is compared: its last number, else its text; None for others."""
    word, content = command(action)
    if word != "answer":
        return None
    number = last_number(content)
    return (normalised(content) or None) if number is None else str(number)


def is_right(content: str, answer: str) -> bool:
    """Whether what follows ``answer:`` is ``answer``: the same last number where that is one, else the same text."""
    number = last_number(answer)
    if number is not None:
        return last_number(content) == Fraction(number)
    return normalised(content) == normalised(answer)


def wrong(answer: str) -> str:
    """An answer that looks like ``answer`` and is not: one more, or a letter more."""
    number = last_number(answer)
    return f"{answer}s" if number is None else str(number + 1)
