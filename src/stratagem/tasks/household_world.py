"""Households: rooms with receptacles, things in them, a goal, and what commands do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal, NamedTuple, TypeVar, get_args

_Value = TypeVar("_Value")

Kind = Literal["put", "clean", "heat", "cool", "look", "two"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ROOMS: dict[str, tuple[str, ...]] = {
    "kitchen": ("countertop 1", "sink 1", "fridge 1", "microwave 1", "cabinet 1", "cabinet 2"),
    "bedroom": ("desk 1", "bed 1", "drawer 1", "drawer 2"),
    "living room": ("sofa 1", "coffee table 1", "cabinet 3", "shelf 1"),
    "study": ("armchair 1", "shelf 2", "safe 1", "drawer 3"),
}
"""The receptacles of each room."""

OPENING = ("fridge", "microwave", "cabinet", "drawer", "safe")
"""Receptacles with a door; they are closed at first."""

TREATED: dict[str, tuple[str, str]] = {
    "clean": ("sink", "clean"),
    "heat": ("microwave", "hot"),
    "cool": ("fridge", "cold"),
}
"""What a treatment needs, and what the thing is afterwards."""

EDIBLE = ("apple", "potato", "tomato", "egg")
DISHES = ("mug", "plate", "bowl", "cup")
OTHERS = ("book", "pen", "key", "cloth", "vase", "candle")

LAMP, LAMP_PLACE = "desk lamp", "desk 1"

_COMMANDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<verb>go) to (?:the )?(?P<place>.+)",
        r"(?P<verb>open|close) (?:the )?(?P<place>.+)",
        r"(?P<verb>take) (?:the )?(?P<thing>.+) from (?:the )?(?P<place>.+)",
        r"(?P<verb>put) (?:the )?(?P<thing>.+?) (?:in/on|in|on) (?:the )?(?P<place>.+)",
        r"(?P<verb>clean|heat|cool) (?:the )?(?P<thing>.+) with (?:the )?(?P<place>.+)",
        r"(?P<verb>use) (?:the )?(?P<thing>.+)",
        r"(?P<verb>look|inventory)",
    )
)


class Command(NamedTuple):
    """A verb, and what it is about."""

    verb: str
    thing: str = ""
    place: str = ""


class Goal(NamedTuple):
    """What is to be done with a thing of a kind, and the kind of receptacle it is to be in; none for ``look``."""

    kind: Kind
    thing: str
    target: str

    @property
    def text(self) -> str:
        """The task in words."""
        if self.kind == "look":
            return f"look at {with_article(self.thing)} under the {LAMP}"
        if self.kind == "two":
            return f"put two {self.thing}s in/on the {self.target}"
        condition = f"{TREATED[self.kind][1]} " if self.kind in TREATED else ""
        return f"put {with_article(condition + self.thing)} in/on the {self.target}"


class State(NamedTuple):
    """The room, the receptacle one is at (empty for none), where each thing is, and what has been done.

    ``where``: a receptacle for every thing, empty for what is carried.  ``opened``: open receptacles, sorted.
    ``clean`` and ``warmth`` are of each thing; warmth is empty, ``hot`` or ``cold``.  ``lit``: whether the lamp was
    used with the thing of the goal in hand.
    """

    room: str
    at: str
    where: tuple[str, ...]
    opened: tuple[str, ...]
    clean: tuple[bool, ...]
    warmth: tuple[str, ...]
    lit: bool = False


@dataclass(frozen=True)
class Household:
    """A house: its rooms, the names of its things, the goal and the first state."""

    rooms: tuple[str, ...]
    things: tuple[str, ...]
    goal: Goal
    start: State

    @property
    def receptacles(self) -> tuple[str, ...]:
        """All of them, room by room."""
        return tuple(place for room in self.rooms for place in ROOMS[room])

    @cached_property
    def wanted(self) -> tuple[int, ...]:
        """Numbers of the things that the goal may mean."""
        return tuple(at for at, name in enumerate(self.things) if kind_of(name) == self.goal.thing)

    def after(self, state: State, action: str) -> State | None:
        """The state that follows; None where nothing happens."""
        command = read(action)
        if command is None:
            return None
        verb, thing, place = command
        match verb:
            case "look" | "inventory":
                return state
            case "go":
                return self._gone(state, place)
            case "open" | "close":
                return _turned(state, place, verb == "open")
            case "use":
                held = carried(state)
                if thing not in (LAMP, f"{LAMP} 1") or state.at != LAMP_PLACE:
                    return None
                return state._replace(lit=state.lit or held in self.wanted)
        if place != state.at or thing not in self.things:
            return None
        return self._handled(state, verb, self.things.index(thing))

    def solved(self, state: State) -> bool:
        """Whether the goal is reached."""
        if self.goal.kind == "look":
            return state.lit
        return len(self._in_place(state)) >= self.needed

    @property
    def needed(self) -> int:
        """How many things have to be brought."""
        return 2 if self.goal.kind == "two" else 1

    def progress(self, state: State) -> float:
        """Share of the goal's conditions that hold: each thing taken, treated where it has to be, and in place."""
        if self.solved(state):
            return 1.0
        held = carried(state)
        steps = 3 if self.goal.kind in TREATED else 2
        done = steps * len(self._in_place(state)) if self.goal.kind != "look" else 0
        if held is not None and held in self.wanted:
            done += 2 if steps == 3 and self.treated(state, held) else 1
        return done / (steps * self.needed)

    def treated(self, state: State, thing: int) -> bool:
        """Whether a thing is as the goal wants it."""
        match self.goal.kind:
            case "clean":
                return state.clean[thing]
            case "heat" | "cool":
                return state.warmth[thing] == TREATED[self.goal.kind][1]
        return True

    def visible(self, state: State) -> list[int]:
        """The things one sees where one is: none in a closed receptacle."""
        if not state.at or is_closed(state, state.at):
            return []
        return [thing for thing, place in enumerate(state.where) if place == state.at]

    def room_of(self, place: str) -> str:
        """Where a receptacle stands."""
        return next(room for room in self.rooms if place in ROOMS[room])

    def _in_place(self, state: State) -> list[int]:
        return [
            thing
            for thing in self.wanted
            if kind_of(state.where[thing]) == self.goal.target and self.treated(state, thing)
        ]

    def _gone(self, state: State, place: str) -> State | None:
        if place in self.rooms and place != state.room:
            return state._replace(room=place, at="")
        return state._replace(at=place) if place in ROOMS[state.room] and place != state.at else None

    def _handled(self, state: State, verb: str, thing: int) -> State | None:
        held, here = carried(state), state.at
        if verb == "take":
            free = held is None and thing in self.visible(state)
            return state._replace(where=_set(state.where, thing, "")) if free else None
        if held != thing:
            return None
        if verb == "put":
            return None if is_closed(state, here) else state._replace(where=_set(state.where, thing, here))
        needs, made = TREATED[verb]
        if kind_of(here) != needs:
            return None
        if verb == "clean":
            return state._replace(clean=_set(state.clean, thing, True))
        return state._replace(warmth=_set(state.warmth, thing, made))


def read(action: str) -> Command | None:
    """The command of a turn, letter case and space aside; None for text that is none."""
    words = " ".join(action.casefold().split()).removeprefix("> ").rstrip(".")
    for pattern in _COMMANDS:
        found = pattern.fullmatch(words)
        if found is not None:
            return Command(**found.groupdict())
    return None


def kind_of(name: str) -> str:
    """A name without its number."""
    return name.rpartition(" ")[0]


def with_article(words: str) -> str:
    """``a mug``, ``an egg``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def carried(state: State) -> int | None:
    """Number of the thing in hand."""
    return state.where.index("") if "" in state.where else None


def is_closed(state: State, place: str) -> bool:
    """Whether a receptacle has a door that is closed."""
    return kind_of(place) in OPENING and place not in state.opened


def solve(household: Household) -> list[str]:
    """What somebody does who does not know where things are: looks into every receptacle in turn until one is found.

    It opens what is closed, takes a thing that is wanted, treats it, and brings it to a receptacle that is meant, if
    there is one in the room to one there. When another is needed it goes back to where it saw two, or goes on looking
    where it left off.
    """
    walk = _Walk(household)
    unseen = iter([place for place in household.receptacles if kind_of(place) != household.goal.target])
    known: str | None = None
    for _ in range(household.needed):
        found: list[int] = []
        while not found:
            walk.look_into(known or next(unseen))
            found = [thing for thing in household.visible(walk.state) if thing in household.wanted]
        known = walk.state.at if len(found) > 1 else None
        walk.deliver(found[0])
    return walk.actions


class _Walk:
    """Actions that were taken, and the state they led to."""

    def __init__(self, household: Household) -> None:
        self.household, self.state = household, household.start
        self.actions: list[str] = []

    def do(self, action: str) -> None:
        following = self.household.after(self.state, action)
        if following is None:
            raise ValueError(f"nothing happens: {action}")
        self.state = following
        self.actions.append(action)

    def go(self, place: str) -> None:
        room = self.household.room_of(place)
        if self.state.room != room:
            self.do(f"go to {room}")
        if self.state.at != place:
            self.do(f"go to {place}")

    def look_into(self, place: str) -> None:
        self.go(place)
        if is_closed(self.state, place):
            self.do(f"open {place}")

    def deliver(self, thing: int) -> None:
        goal, name = self.household.goal, self.household.things[thing]
        self.do(f"take {name} from {self.state.at}")
        if goal.kind in TREATED:
            self.go(f"{TREATED[goal.kind][0]} 1")
            self.do(f"{goal.kind} {name} with {self.state.at}")
        if goal.kind == "look":
            self.go(LAMP_PLACE)
            self.do(f"use {LAMP}")
            return
        target = min(
            (place for place in self.household.receptacles if kind_of(place) == goal.target),
            key=lambda place: self.household.room_of(place) != self.state.room,
        )
        self.look_into(target)
        self.do(f"put {name} in/on {target}")


def random_household(random: Random, rooms: int, objects: int, kind: Kind) -> Household:
    """A house with the first ``rooms`` rooms, and ``objects`` things in receptacles drawn at random.

    One thing is of the wanted kind, or two where two are to be brought, and none is in a receptacle of the target's
    kind at first.
    """
    names = tuple(ROOMS)[:rooms]
    places = [place for room in names for place in ROOMS[room]]
    allowed = {"clean": (*EDIBLE, *DISHES), "heat": (*EDIBLE, "mug", "cup"), "cool": (*EDIBLE, *DISHES)}
    thing = random.choice(allowed.get(kind, (*DISHES, *OTHERS)))
    # Where a thing has just been treated is no place to bring it to.
    targets = sorted({kind_of(place) for place in places} - ({TREATED[kind][0]} if kind in TREATED else set()))
    goal = Goal(kind, thing, "" if kind == "look" else random.choice(targets))
    others = [other for other in (*EDIBLE, *DISHES, *OTHERS) if other != thing]
    wanted = 2 if kind == "two" else 1
    kinds = [thing] * wanted + [random.choice(others) for _ in range(objects - wanted)]
    random.shuffle(kinds)
    things = tuple(f"{name} {kinds[:at].count(name) + 1}" for at, name in enumerate(kinds))
    away = [place for place in places if kind_of(place) != goal.target]
    where = tuple(random.choice(away if name == thing else places) for name in kinds)
    start = State(random.choice(names), "", where, (), (False,) * objects, ("",) * objects)
    return Household(names, things, goal, start)


def _turned(state: State, place: str, opens: bool) -> State | None:
    if place != state.at or kind_of(place) not in OPENING or is_closed(state, place) != opens:
        return None
    opened = {*state.opened, place} if opens else {*state.opened} - {place}
    return state._replace(opened=tuple(sorted(opened)))


def _set(values: tuple[_Value, ...], at: int, value: _Value) -> tuple[_Value, ...]:
    return (*values[:at], value, *values[at + 1 :])
