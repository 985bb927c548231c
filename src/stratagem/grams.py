"""Strategic grams: phrases that plan ("let us try another"), mined from solutions and found again in what is said."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from stratagem.clusters import Embed, text_clusters
from stratagem.errors import InputError

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class Occurrence(NamedTuple):
    """Where a phrase stands in a text, as first character and end, and the number of the strategy it is of."""

    begin: int
    end: int
    strategy: int


@dataclass(frozen=True)
class Grams:
    """Phrases of some words each, sorted into strategies: phrases of one strategy say much the same (2509.03646).

    A phrase is found by its words: without regard to case, with any space between them, and never in the middle of a
    word or across a mark of punctuation. There may be no phrases at all; then nothing is found.

    strategies: the phrases of each; a phrase is of one strategy alone.

    Raises :class:`InputError` for a phrase that is not words with spaces between them, or is there twice.
    """

    strategies: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        seen = set[tuple[str, ...]]()
        for phrase in (phrase for strategy in self.strategies for phrase in strategy):
            runs = list(_runs(phrase))
            words = tuple(word.said for word in runs[0]) if len(runs) == 1 else ()
            if not words or len(" ".join(words)) != len(" ".join(phrase.split())):
                raise InputError(f"grams: phrase {phrase!r}: must be words with spaces between them")
            if words in seen:
                raise InputError(f"grams: phrase {phrase!r}: is there twice")
            seen.add(words)

    @cached_property
    def _known(self) -> dict[tuple[str, ...], int]:
        return {
            tuple(word.said for run in _runs(phrase) for word in run): number
            for number, strategy in enumerate(self.strategies)
            for phrase in strategy
        }

    @cached_property
    def _sizes(self) -> list[int]:
        return sorted({len(words) for words in self._known})

    def occurrences(self, text: str) -> list[Occurrence]:
        """All phrases in a text, in order; they may overlap."""
        found = []
        for run in _runs(text) if self._sizes else ():
            said = [word.said for word in run]
            for place, word in enumerate(run):
                for size in self._sizes:
                    strategy = self._known.get(tuple(said[place : place + size]))
                    if strategy is not None and place + size <= len(run):
                        found.append(Occurrence(word.begin, run[place + size - 1].end, strategy))
        return found

    def counts(self, texts: Iterable[str]) -> list[int]:
        """How often each strategy is used; overlapping phrases of one strategy are one use of it."""
        uses = [0] * len(self.strategies)
        for text in texts:
            ends = [0] * len(self.strategies)
            for begin, end, strategy in self.occurrences(text):
                uses[strategy] += begin >= ends[strategy]
                ends[strategy] = max(ends[strategy], end)
        return uses

    def save(self, path: str | Path) -> None:
        """Write ``{"strategies": [[phrase, ...], ...]}`` as JSON."""
        text = json.dumps({"strategies": self.strategies}, ensure_ascii=False, indent=1)
        Path(path).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Grams:
        """Read what :meth:`save` wrote, or a text with a phrase on each line, each a strategy of its own.

        Raises :class:`InputError` naming the file and what is wrong with it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"file of phrases {path}: cannot be read ({type(error).__name__})") from None
        try:
            if not text.lstrip().startswith("{"):
                return cls(tuple((line.strip(),) for line in text.splitlines() if line.strip()))
            return cls(_strategies(json.loads(text)))
        except (InputError, ValueError) as error:
            raise InputError(f"file of phrases {path}: {error}") from None


def _strategies(content: object) -> tuple[tuple[str, ...], ...]:
    strategies = content.get("strategies") if isinstance(content, dict) else None
    if not isinstance(strategies, list) or not all(
        isinstance(strategy, list) and all(isinstance(phrase, str) for phrase in strategy) for strategy in strategies
    ):
        raise InputError("must hold a list 'strategies' of lists of phrases")
    return tuple(map(tuple, strategies))


@lru_cache(maxsize=8)
def _kept(path: str, _changed: int) -> Grams:
    return Grams.load(path)


def grams_of(path: str) -> Grams:
    """The phrases of a file, read again only when it has changed. Raises as :meth:`Grams.load` does."""
    try:
        changed = Path(path).stat().st_mtime_ns
    except OSError:
        changed = 0
    return _kept(path, changed)


# ---- mining ---------------------------------------------------------------------------------------------------------


def mine(
    solutions: Sequence[str],
    sizes: Sequence[int] = (3, 4, 5),
    share: float = 0.2,
    least: int = 5,
    distance: float = 0.3,
    without: Collection[str] = (),
    most: int = 5000,
    embed: Embed | None = None,
) -> Grams:
    """The phrases that solutions share: what many of them say, whatever they are about.

    1. All runs of ``sizes`` words without a mark of punctuation between them, in at least ``least`` of the solutions.
    2. Those that say much the same are a cluster (:func:`stratagem.clusters.text_clusters`), which counts for as many
       solutions as hold one of its phrases.
    3. The clusters that count for most are kept, ``share`` of them (rounded up; ties go to what comes first).

    Sizes, clusters by density, and the kept share follow arXiv 2509.03646, as others report it. That paper embeds
    phrases with a sentence encoder; here they are vectors of TF-IDF unless ``embed`` gives others, so only phrases that
    share words meet. ``least``, ``distance`` and ``most`` are ours, and so is what stands for the paper's filter of
    words of a domain: a phrase with a digit or underscore, a word of one letter other than "a" and "I", or a word of
    ``without`` is no candidate.

    most: candidates that are compared, those in most solutions; comparing takes time by the square of them.

    Raises :class:`InputError` for a number out of range.
    """
    for name, value, wrong, allowed in (
        ("sizes", sizes, not sizes or min(sizes) < 1, "at least 1 each, and at least one of them"),
        ("share", share, not 0 < share <= 1, "in (0, 1]"),
        ("least", least, least < 1, "at least 1"),
        ("most", most, most < 1, "at least 1"),
    ):
        if wrong:
            raise InputError(f"mine: {name} = {value}: must be {allowed}")
    barred = {word.casefold() for word in without}
    held = [_candidates(solution, sizes, barred) for solution in solutions]
    frequency = Counter(phrase for phrases in held for phrase in phrases)
    frequent = [phrase for phrase, count in frequency.most_common(most) if count >= least]
    if not frequent:
        return Grams()
    cluster = dict(zip(frequent, text_clusters(frequent, distance, embed=embed), strict=True))
    counts = Counter(number for phrases in held for number in {cluster[p] for p in phrases if p in cluster})
    kept = [number for number, _ in counts.most_common(math.ceil(share * len(counts)))]
    return Grams(tuple(tuple(p for p in frequent if cluster[p] == number) for number in kept))


def semantic_entropy(counts: Sequence[int]) -> float:
    """``-sum_j f_j log f_j`` over the relative frequencies of strategies, in nats; 0 where none is used."""
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count) + 0.0


class _Word(NamedTuple):
    said: str
    begin: int
    end: int


def _runs(text: str) -> Iterator[list[_Word]]:
    """The words of a text, in runs between which something else than space stands."""
    run: list[_Word] = []
    for match in _WORD.finditer(text):
        if run and not text[run[-1].end : match.start()].isspace():
            yield run
            run = []
        run.append(_Word(match[0].replace("\u2019", "'").casefold(), match.start(), match.end()))
    if run:
        yield run


def _candidates(text: str, sizes: Sequence[int], barred: Collection[str]) -> dict[str, None]:
    """Phrases of a text that may plan, each once, in order."""
    found = dict[str, None]()
    for run in _runs(text):
        words = [word.said for word in run]
        neutral = [_neutral(word) and word not in barred for word in words]
        for size in sizes:
            for place in range(len(words) - size + 1):
                if all(neutral[place : place + size]):
                    found[" ".join(words[place : place + size])] = None
    return found


def _neutral(word: str) -> bool:
    return (len(word) > 1 or word in ("a", "i")) and all(letter.isalpha() or letter == "'" for letter in word)
