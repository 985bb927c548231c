"""The two ways a user meets an error: their input is wrong, or something broke and here is what was saved."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong. One line that names what, where and what is allowed; the CLI exits with code 2."""


class BrokenRunError(RuntimeError):
    """Something broke while running. Names the run directory that holds what was saved; the CLI exits with code 3."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """An :class:`InputError` for a name that is not among ``choices``, with the nearest one that is."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
