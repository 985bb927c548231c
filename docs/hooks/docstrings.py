"""How docstrings become pages: cross-reference roles turn into plain code, since the site reads Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")


class PlainRoles(Extension):
    """Writes ``:class:`~package.Name``` as the code ``package.Name``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain_roles(obj.docstring.value)


def plain_roles(text: str) -> str:
    """The text with every cross-reference role as plain code."""
    return ROLE.sub(r"`\1`", text)
