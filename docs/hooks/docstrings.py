"""How docstrings become pages of Markdown: cross-reference roles turn into plain code, sessions into blocks of code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")


SESSION = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Markdown(Extension):
    """Writes ``:class:`~package.Name``` as the code ``package.Name``, and fences lines that begin with ``>>>``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring, or a page that holds some, as Markdown."""
    return fenced_sessions(plain_roles(text))


def plain_roles(text: str) -> str:
    """The text with every cross-reference role as plain code."""
    return ROLE.sub(r"`\1`", text)


def fenced_sessions(text: str) -> str:
    """The text with every session of the interpreter, up to the next empty line, as a block of code."""
    return SESSION.sub(r"```pycon\n\g<0>\n```", text)
