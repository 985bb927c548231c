"""A small made-up world, the documents that tell of it, and the search that finds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from stratagem.tasks.adapter import require

_FIRST = ("Ada", "Bela", "Cyra", "Dov", "Edda", "Faro", "Gita", "Hale", "Iven", "Juno", "Kito", "Lund")
_LAST = ("Aster", "Brook", "Corvin", "Dale", "Elster", "Finch", "Garrow", "Holm", "Ingram", "Jessel", "Karst", "Lowe")
_COMPANY = ("Alder", "Beacon", "Cobalt", "Delta", "Ember", "Falcon", "Granite", "Harbor")
_TRADE = ("Mills", "Works", "Lines", "Foundry")
_CITY = ("Avenmoor", "Brantis", "Celdor", "Dunmere", "Eskvale", "Fenwick", "Galdra", "Hollin", "Istra", "Jorvik")
_COUNTRY = ("Ardan", "Belmar", "Corvia", "Drossen", "Elvany", "Frisk")
_SEASON = ("spring", "summer", "autumn", "winter")
_THING = ("clock", "lantern", "map", "garden", "violin", "bridge", "ledger", "kettle", "orchard", "compass")
_WORD = re.compile(r"\w+")

_FACTS = {
    "born": "{0} was born in {1}.",
    "mentor": "The mentor of {0} was {1}.",
    "employer": "{0} works for {1}.",
    "seat": "{0} has its seat in {1}.",
    "country": "{0} is a city in {1}.",
}
_ASIDES = (
    "{0} was seen beside the old {thing} every {season}.",
    "A {thing} named after {0} was sold last {season}.",
    "{1} once sent {0} a letter about a {thing}.",
    "In {season} {0} and {1} were both talked about because of a {thing}.",
    "Nobody knows why the {thing} of {0} was moved before {season}.",
)


@dataclass(frozen=True)
class World:
    """Who is what to whom. facts: by relation and subject, the object; relations are the keys of ``_FACTS``.

    people, companies, cities: all there are, each with a document of its own.
    """

    people: tuple[str, ...]
    companies: tuple[str, ...]
    cities: tuple[str, ...]
    facts: Mapping[str, Mapping[str, str]]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everything there is a document about."""
        return (*self.people, *self.companies, *self.cities)


class Passage(NamedTuple):
    """A document: what it is about, and its text."""

    title: str
    text: str


def made_up(random: Random, people: int) -> World:
    """A world of so many people, at least 2.

    Few first and last names serve for all, so that most people share either with others, and companies the same: a
    name in part finds the wrong document.
    """
    few = next(count for count in range(2, people + 1) if count * count >= people)
    given, family = random.sample(_FIRST, few), random.sample(_LAST, few)
    names = random.sample([f"{first} {last}" for first in given for last in family], people)
    companies = [f"{name} {trade}" for name in random.sample(_COMPANY, 2) for trade in random.sample(_TRADE, 2)]
    cities = random.sample(_CITY, 5)
    countries = random.sample(_COUNTRY, 3)
    return World(
        tuple(names),
        tuple(companies),
        tuple(cities),
        {
            "born": {name: random.choice(cities) for name in names},
            "mentor": {name: random.choice([other for other in names if other != name]) for name in names},
            "employer": {name: random.choice(companies) for name in names},
            "seat": {name: random.choice(cities) for name in companies},
            "country": {name: random.choice(countries) for name in cities},
        },
    )


def documents(world: World, length: int, random: Random) -> tuple[Passage, ...]:
    """A document of everything there is: its facts, among asides that make it ``length`` words long or a few more."""
    return tuple(Passage(subject, _document(world, subject, length, random)) for subject in world.subjects)


def found(passages: tuple[Passage, ...], query: str, most: int) -> list[Passage]:
    """Of the passages those that fit the query best by BM25, no more than ``most`` and none without a word of it.

    Case does not count. Of equally good ones the first comes first. Raises :class:`InputError` where bm25s is missing.
    """
    words, index = _index(passages)
    asked = [word for word in _words(query) if word in words]
    if not asked:
        return []
    scores = index.get_scores(asked).tolist()
    best = sorted(range(len(passages)), key=lambda place: -scores[place])[:most]
    return [passages[place] for place in best if scores[place] > 0]


@lru_cache(maxsize=64)
def _index(passages: tuple[Passage, ...]) -> tuple[frozenset[str], Any]:
    """Every word there is, and the index; the episodes of a group search the same passages."""
    bm25s = require("bm25s", "agents")
    corpus = [_words(passage.text) for passage in passages]
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    return frozenset(word for words in corpus for word in words), index


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _document(world: World, subject: str, length: int, random: Random) -> str:
    facts = [
        _FACTS[relation].format(subject, objects[subject])
        for relation, objects in world.facts.items()
        if subject in objects
    ]
    sentences, words = list(facts), sum(len(fact.split()) for fact in facts)
    while words < length:
        aside = random.choice(_ASIDES).format(
            subject, random.choice(world.subjects), thing=random.choice(_THING), season=random.choice(_SEASON)
        )
        sentences.append(aside)
        words += len(aside.split())
    random.shuffle(sentences)
    return " ".join(sentences)
