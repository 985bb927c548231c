"""Houses to search: places at distances, things that differ by attributes, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import inf
from random import Random
from typing import NamedTuple

from stratagem.errors import InputError

ROOMS = ("kitchen", "bedroom", "study", "bathroom", "pantry", "attic")
RECEPTACLES = ("shelf", "table", "box")
CATEGORIES = ("mug", "book", "lamp", "ball", "towel")
COLOURS = ("red", "blue", "green", "white")
SIZES = ("small", "large")

ENTRANCE = "entrance"
"""Where a search begins."""


class Thing(NamedTuple):
    """What there is of it to see, and where it is."""

    category: str
    colour: str
    size: str
    place: str

    @property
    def name(self) -> str:
        """Size, colour and category."""
        return f"{self.size} {self.colour} {self.category}"

    @property
    def room(self) -> str:
        """The room of its place."""
        return self.place.split()[0]


class Sighting(NamedTuple):
    """A thing's name, where it was seen, and how many days ago. It may have been moved since."""

    name: str
    place: str
    days: int


@dataclass(frozen=True)
class House:
    """Where things are, how far it is between places, and which thing is wanted.

    ways: pairs of spots with the metres between them, both ways.  things: all there are, of names that differ.
    target: number of the thing that is wanted; those of its category are the candidates.  memory: what was seen before.

    Raises :class:`InputError` for ways of no or infinite length, a target that there is not, two things of one name,
    and a candidate that cannot be reached from the entrance.
    """

    ways: tuple[tuple[str, str, float], ...]
    things: tuple[Thing, ...]
    target: int
    memory: tuple[Sighting, ...] = ()

    def __post_init__(self) -> None:
        for one, other, metres in self.ways:
            if not 0 < metres < inf:
                raise InputError(
                    f"house: the way from {one} to {other} has {metres} metres: must be above 0 and finite"
                )
        if not 0 <= self.target < len(self.things):
            raise InputError(f"house: target = {self.target}: must be one of its {len(self.things)} things")
        if len({thing.name for thing in self.things}) < len(self.things):
            raise InputError("house: two things have the same name")
        for thing in self.candidates:
            if thing.place not in self.metres.get(ENTRANCE, {}):
                raise InputError(f"house: the {thing.name} is at {thing.place}, which no way leads to")

    @property
    def wanted(self) -> Thing:
        """The target."""
        return self.things[self.target]

    @property
    def candidates(self) -> tuple[Thing, ...]:
        """The things of the target's category."""
        return tuple(thing for thing in self.things if thing.category == self.wanted.category)

    @property
    def places(self) -> tuple[str, ...]:
        """Where things may be: the receptacles that can be reached, in alphabetical order."""
        return tuple(sorted(spot for spot in self.metres.get(ENTRANCE, {}) if " " in spot))

    @cached_property
    def metres(self) -> Mapping[str, Mapping[str, float]]:
        """The shortest way between two spots that are connected, by first and second."""
        # It takes a while to import, and most tasks do without it.
        import networkx

        graph = networkx.Graph()
        graph.add_weighted_edges_from(self.ways)
        return dict(networkx.all_pairs_dijkstra_path_length(graph))

    def at(self, place: str) -> tuple[Thing, ...]:
        """The things at a place."""
        return tuple(thing for thing in self.things if thing.place == place)


def random_house(random: Random, rooms: int, distractors: int, staleness: float) -> House | None:
    """A house of so many rooms, or None when not all of it is connected.

    Two rooms are joined by a way of 1 to 4 metres with odds of one half; the entrance leads to the first one. Every
    room has three receptacles, half a metre to one and a half from its middle. The target and ``distractors`` things
    of its category are in places of their own, two further things anywhere. All have been seen before; a share
    ``staleness`` of them was then somewhere else.
    """
    names = ROOMS[:rooms]
    ways = [(ENTRANCE, names[0], 1.0)]
    ways += [(*pair, float(random.randint(1, 4))) for pair in combinations(names, 2) if random.random() < 0.5]
    places = [f"{room} {receptacle}" for room, receptacle in product(names, RECEPTACLES)]
    ways += [(place.split()[0], place, random.randint(1, 3) / 2) for place in places]
    category, *others = random.sample(CATEGORIES, 3)
    looks = random.sample(list(product(COLOURS, SIZES)), distractors + 1)
    things = [
        Thing(category, *look, place) for look, place in zip(looks, random.sample(places, distractors + 1), strict=True)
    ]
    target = random.randrange(len(things))
    things += [Thing(other, random.choice(COLOURS), random.choice(SIZES), random.choice(places)) for other in others]
    memory = tuple(_sighting(random, thing, places, staleness) for thing in things)
    try:
        house = House(tuple(ways), tuple(things), target, memory)
    except InputError:  # A candidate is out of reach.
        return None
    return house if len(house.places) == len(places) else None


def _sighting(random: Random, thing: Thing, places: list[str], staleness: float) -> Sighting:
    moved = random.random() < staleness
    where = random.choice([place for place in places if place != thing.place]) if moved else thing.place
    return Sighting(thing.name, where, random.randint(1, 9))
