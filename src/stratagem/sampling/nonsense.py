"""Text that says nothing, to be put before a prompt: words of a vocabulary, of a Latin passage, or made up."""

from __future__ import annotations

import string
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np

from stratagem.errors import unknown
from stratagem.seeding import numpy_generator

Family = Literal["lorem", "latin", "latin_words", "latin_trigrams", "english_words", "fake_english", "ascii"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LOREM = _words(
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis "
    "aute irure in reprehenderit voluptate velit esse cillum eu fugiat nulla pariatur excepteur sint occaecat "
    "cupidatat non proident sunt culpa qui officia deserunt mollit anim id est laborum at vero eos accusamus iusto "
    "odio dignissimos"
)
"""Seventy words of the filler text of printers."""

LATIN = _words(
    "sed ut perspiciatis unde omnis iste natus error sit voluptatem accusantium doloremque laudantium totam rem "
    "aperiam eaque ipsa quae ab illo inventore veritatis et quasi architecto beatae vitae dicta sunt explicabo nemo "
    "enim ipsam voluptatem quia voluptas sit aspernatur aut odit aut fugit sed quia consequuntur magni dolores eos "
    "qui ratione voluptatem sequi nesciunt neque porro quisquam est qui dolorem ipsum quia dolor sit amet consectetur "
    "adipisci velit sed quia non numquam eius modi tempora incidunt ut labore et dolore magnam aliquam quaerat "
    "voluptatem ut enim ad minima veniam quis nostrum exercitationem ullam corporis suscipit laboriosam nisi ut "
    "aliquid ex ea commodi consequatur"
)
"""Cicero, De finibus bonorum et malorum I 32, from which that filler text was made."""

ENGLISH = _words(
    "the of and to in is that it was for on are with as his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so "
    "these would other into has more her two like him see time could no make than first been its who now people my "
    "made over did down only way find use may water long little very after words called just where most know"
)
"""Some of the most frequent English words."""


def nonsense(family: Family, words: int, seed: int) -> str:
    """So many words, one space between them; the same for the same seed in every process.

    ``lorem``, ``latin_words``, ``english_words``: drawn one by one from a vocabulary or, for Latin, as often as a
    passage of Cicero has them.  ``latin``: that passage, from a random word on, over and over.  ``latin_trigrams``:
    a chain in which each word follows the two before it as it does somewhere in the passage.  ``fake_english``: made-up
    words of syllables.  ``ascii``: runs of printable characters.

    Raises :class:`InputError` for another family.
    """
    if family not in _FAMILIES:
        raise unknown("family of nonsense", family, _FAMILIES)
    return " ".join(_FAMILIES[family](words, numpy_generator(seed, "nonsense", family)))


_SYLLABLE = (("b", "br", "d", "f", "gl", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "w"), "aeiou", "dlmnrst")
"""What a syllable begins with, its vowel, and what it ends with."""


def _drawn_from(vocabulary: tuple[str, ...]) -> Callable[[int, np.random.Generator], list[str]]:
    def draw(words: int, source: np.random.Generator) -> list[str]:
        return [vocabulary[place] for place in source.integers(len(vocabulary), size=words)]

    return draw


def _passage(words: int, source: np.random.Generator) -> list[str]:
    start = int(source.integers(len(LATIN)))
    return [LATIN[(start + place) % len(LATIN)] for place in range(words)]


def _trigrams(words: int, source: np.random.Generator) -> list[str]:
    # Round the passage, so that every pair of words is followed by one.
    ring = [*LATIN, *LATIN[:2]]
    following: dict[tuple[str, str], list[str]] = {}
    for pair, word in zip(pairwise(ring), ring[2:], strict=False):
        following.setdefault(pair, []).append(word)
    start = int(source.integers(len(LATIN)))
    chain = ring[start : start + 2]
    while len(chain) < words:
        known = following[chain[-2], chain[-1]]
        chain.append(known[int(source.integers(len(known)))])
    return chain[:words]


def _made_up(words: int, source: np.random.Generator) -> list[str]:
    def syllable() -> str:
        return "".join(part[int(source.integers(len(part)))] for part in _SYLLABLE)

    return ["".join(syllable() for _ in range(int(source.integers(1, 4)))) for _ in range(words)]


def _characters(words: int, source: np.random.Generator) -> list[str]:
    printable = string.ascii_letters + string.digits + string.punctuation
    return [
        "".join(printable[place] for place in source.integers(len(printable), size=int(source.integers(1, 9))))
        for _ in range(words)
    ]


_FAMILIES: dict[str, Callable[[int, np.random.Generator], list[str]]] = {
    "lorem": _drawn_from(LOREM),
    "latin": _passage,
    "latin_words": _drawn_from(LATIN),
    "latin_trigrams": _trigrams,
    "english_words": _drawn_from(ENGLISH),
    "fake_english": _made_up,
    "ascii": _characters,
}
