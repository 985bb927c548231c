"""Where in a text its tokens end, found by decoding and never by encoding it again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

Decode = Callable[[Sequence[int]], str]

_UNFINISHED = "�"
"""What a decoder writes for bytes that are no character, or none yet."""


def token_ends(action: Sequence[int], text: str, decode: Decode) -> list[int]:
    """Behind which character of ``text``, which is what ``action`` decodes to, each token ends.

    A token ends where the text of all tokens up to it agrees with ``text`` no more. The first bytes of a character end
    where the token before them does.

    Only a few tokens are decoded at a time, from the last that ended a character on; where a decoder's pieces do not
    add up to its text, all tokens up to each are.
    """
    ends: list[int] = []
    done, first, read = 0, 0, 0
    for place in range(len(action)):
        known, said = decode(action[first:read]), decode(action[first : place + 1])
        added = said[len(known) :]
        agreed = _agreed(added, text, done)
        ends.append(done + agreed)
        if not added.endswith(_UNFINISHED):
            if not said.startswith(known) or agreed < len(added):
                return _exact(action, text, decode)
            done, first, read = ends[-1], read, place + 1
    return ends if not ends or ends[-1] == len(text) else _exact(action, text, decode)


def label(labels: list[int], ends: Sequence[int], parts: Iterable[tuple[int, int, int]]) -> None:
    """Write a number at the tokens of which one of the characters ``begin`` to ``end`` is, for each part of a text.

    A token that adds no text is the beginning of what the next one adds (the first bytes of a character) and gets its
    label; the last ones (an end token) keep theirs.

    parts: first character, end and number of each.
    """
    last = labels[len(ends) - 1] if ends else 0
    for begin, end, number in parts:
        # From the first token that ends behind the part's first character to the first that ends at its end.
        low, high = bisect_right(ends, begin), bisect_left(ends, end)
        labels[low : high + 1] = [number] * (high + 1 - low)
    following = last
    for place in range(len(ends) - 1, -1, -1):
        adds = ends[place] > (ends[place - 1] if place else 0)
        following = labels[place] = labels[place] if adds else following


def _exact(action: Sequence[int], text: str, decode: Decode) -> list[int]:
    return [_agreed(decode(action[: place + 1]), text, 0) for place in range(len(action))]


def _agreed(said: str, text: str, begin: int) -> int:
    """How far ``said`` is how ``text`` goes on from ``begin``; not where it stands for a character's first bytes."""
    length = len(said)
    while not text.startswith(said[:length], begin):
        length -= 1
    return length
