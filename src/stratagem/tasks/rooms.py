"""The task of rooms: a key lies in one of them, looking is unreliable, and it may be taken once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.beliefs.judges import Evidence, ObservedEnvironment, ObservedTask
from stratagem.beliefs.text import nearest_label, written
from stratagem.errors import InputError
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Observation, Split, Step, state_key

ROOMS = (
    "attic",
    "bath",
    "cellar",
    "den",
    "garage",
    "hall",
    "kitchen",
    "library",
    "office",
    "pantry",
    "studio",
    "vault",
)
"""What rooms are called."""

_GO = re.compile(r"go (?:to )?(?:the )?(?P<room>[a-z]+)")
_CLAIM = re.compile(
    r"(?:the )?key is in (?:the )?(?P<key>[a-z]+)|(?:i am|you are) in (?:the )?(?P<here>[a-z]+)"
    r"|(?:the )?(?P<from>[a-z]+) leads to (?:the )?(?P<to>[a-z]+)"
)


class House(NamedTuple):
    """Rooms, the doors between them (by number), where the key is, where the episode begins, and the seed of noise."""

    rooms: tuple[str, ...]
    doors: tuple[tuple[int, int], ...]
    key: int
    start: int
    noise: int

    def beside(self, room: int) -> list[int]:
        """Rooms next to this one, in order."""
        return sorted({a + b - room for a, b in self.doors if room in (a, b)})


@dataclass(frozen=True)
class RoomsTask(ObservedTask):
    """Find the key in a house of rooms, with looks that may deceive, and take it.

        The key is in one of attic, bath, den, hall. You are in the den. Doors: attic, hall. You see nothing.
        > go hall               You are in the hall. Doors: bath, den. You see a glint.
        > look                  You are in the hall. Doors: bath, den. You see a glint.
        > take                  The key!

    Every turn but the last ends in a look at the room one is in: with the key there, one sees a glint with probability
    ``hit``, otherwise with ``alarm``. The rooms form a ring with ``rooms // 3`` further doors; the key is in any room
    but the first with the same probability. ``take`` ends the episode, which earns 1 where the key is, and 0 elsewhere.
    Running out of turns truncates it. What cannot be understood, or done, is not executed; one looks again.

    ``rooms``: 3 to 12.  ``hit``, ``alarm``: probabilities, ``alarm`` the smaller.  ``max_turns``: at least ``rooms``.
    ``max_new_tokens``: of a turn.

    Raises :class:`InputError` for a value out of range.
    """

    rooms: Annotated[int, Field(ge=3, le=len(ROOMS))] = 6
    hit: Annotated[float, Field(gt=0, le=1)] = 0.8
    alarm: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_turns: Annotated[int, Field(ge=3, le=1000)] = 16
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 12

    name = "rooms"
    description = "find a key in a house of rooms where looks may deceive"
    system = "Find the key. `go ROOM` goes through a door, `look` looks again, `take` takes the key: once, so be sure."

    def __post_init__(self) -> None:
        validate(self)
        if self.alarm >= self.hit:
            raise InputError(f"task 'rooms': alarm={self.alarm} is not allowed; it must be less than hit={self.hit}")
        if self.max_turns < self.rooms:
            raise InputError(
                f"task 'rooms': max_turns={self.max_turns} is not allowed; it must be at least rooms={self.rooms}"
            )

    def environment(self, split: Split, index: int) -> RoomsEnvironment:
        return RoomsEnvironment(self.house(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The shortest way to the key, which the solver knows of."""
        house = self.house(split, index)
        yield from _way(house, house.key)
        yield "take"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: take it where it is not, and go there without taking it."""
        house = self.house(split, index)
        if index % 2:
            yield from _way(house, house.key)[: self.max_turns]
            yield from ["look"] * self.max_turns
        else:
            wrong = next(room for room in range(self.rooms) if room not in (house.key, house.start))
            yield from _way(house, wrong)
            yield "take"

    def house(self, split: Split, index: int) -> House:
        """The house of this episode."""
        return draw(split, index, (self.name, self.rooms), lambda random: _house(random, self.rooms), _key)


class RoomsEnvironment(ObservedEnvironment):
    """One house. A state is the house, the room one is in, and how many looks there were.

    posterior: probability of the key in each room, by Bayes' rule from all looks.
    """

    def __init__(self, house: House, task: RoomsTask) -> None:
        self.house, self.task = house, task
        self.posterior: list[float] = []
        self._room = self._turns = 0
        self._glint = False

    def reset(self) -> Observation:
        rooms = len(self.house.rooms)
        self.posterior = [0.0 if room == self.house.start else 1 / (rooms - 1) for room in range(rooms)]
        self._room, self._turns = self.house.start, 0
        return self._look(f"The key is in one of {', '.join(sorted(self.house.rooms))}. ")

    def step(self, action: str) -> Step:
        self._turns += 1
        said = " ".join(action.lower().split()).strip(" .`")
        if said == "take":
            found = self._room == self.house.key
            return Step(self._observation("The key!" if found else "No key."), float(found), done=True, success=found)
        going = _GO.fullmatch(said)
        beside = {self.house.rooms[room]: room for room in self.house.beside(self._room)}
        moved = going is not None and going["room"] in beside
        if going is not None and moved:
            self._room = beside[going["room"]]
        cut = self._turns >= self.task.max_turns
        executed = moved or said == "look"
        observation = self._look("" if executed else "That cannot be done. ")
        return Step(observation, done=cut, truncated=cut, executed=executed, well_formed=said == "look" or bool(going))

    def truth(self, claim: str) -> bool | None:
        found = self._read(claim)
        if found is None:
            return None
        kind, first, second = found
        if kind == "door":
            return second in self.house.beside(first)
        return first == (self.house.key if kind == "key" else self._room)

    def evidence(self) -> list[Evidence]:
        """Where one is and where the doors lead, which is settled, and the glint, which is not."""
        here = self.house.rooms[self._room]
        doors = [f"{here} leads to {self.house.rooms[room]}" for room in self.house.beside(self._room)]
        settled = [Evidence(text, supports=True, settles=True) for text in (f"I am in {here}", *doors)]
        return [*settled, Evidence(f"the key is in {here}", supports=self._glint)]

    def contradicted(self, claim: str) -> bool:
        found = self._read(claim)
        if found is None or found[0] == "key":
            return False
        seen = found[0] == "here" or found[1] == self._room
        return seen and not self.truth(claim)

    def state(self) -> str:
        names = self.house.rooms
        doors = ", ".join(f"{names[a]} and {names[b]}" for a, b in self.house.doors)
        return f"The key is in {names[self.house.key]}. You are in {names[self._room]}. Doors join {doors}."

    def belief(self) -> str:
        """The posterior in words, where one is, and where the doors lead."""
        key = [
            (f"the key is in {room}", nearest_label(p))
            for room, p in zip(self.house.rooms, self.posterior, strict=True)
        ]
        return written([*key, *((evidence.claim, "certain") for evidence in self.evidence() if evidence.settles)])

    def _read(self, claim: str) -> tuple[str, int, int] | None:
        """Kind and rooms of a claim that can be verified."""
        found, number = _CLAIM.fullmatch(claim.lower()), {name: room for room, name in enumerate(self.house.rooms)}
        if found is None or any(name not in number for name in found.groups() if name is not None):
            return None
        if found["from"] is not None:
            return "door", number[found["from"]], number[found["to"]]
        kind = "key" if found["key"] is not None else "here"
        return kind, number[found[kind]], -1

    def _look(self, before: str) -> Observation:
        chance = self.task.hit if self._room == self.house.key else self.task.alarm
        self._glint = seeded("rooms", self.house.noise, self._turns).random() < chance
        hit, alarm = (self.task.hit, self.task.alarm) if self._glint else (1 - self.task.hit, 1 - self.task.alarm)
        weight = [p * (hit if room == self._room else alarm) for room, p in enumerate(self.posterior)]
        total = sum(weight)
        self.posterior = [w / total for w in weight]
        doors = ", ".join(self.house.rooms[room] for room in self.house.beside(self._room))
        seen = "a glint" if self._glint else "nothing"
        return self._observation(
            f"{before}You are in the {self.house.rooms[self._room]}. Doors: {doors}. You see {seen}."
        )

    def _observation(self, text: str) -> Observation:
        return Observation(text, state_key("rooms", self.house, self._room, self._turns))


def from_spec(argument: str | None, options: Mapping[str, str]) -> RoomsTask:
    """``rooms[:rooms=6,hit=0.8,alarm=0.1,max_turns=16,max_new_tokens=12]``."""
    return configure(RoomsTask, argument, options)


def _house(random: Random, rooms: int) -> House:
    names = tuple(random.sample(ROOMS, rooms))
    doors = {(room, room + 1) for room in range(rooms - 1)} | {(0, rooms - 1)}
    others = [(a, b) for a in range(rooms) for b in range(a + 1, rooms) if (a, b) not in doors]
    doors |= set(random.sample(others, min(rooms // 3, len(others))))
    start, key = random.sample(range(rooms), 2)
    return House(names, tuple(sorted(doors)), key, start, random.randrange(2**32))


def _key(house: House) -> int:
    return state_key("rooms", house)


def _way(house: House, goal: int) -> list[str]:
    """The actions of a shortest way from the start."""
    before: dict[int, int] = {house.start: house.start}
    waiting = deque([house.start])
    while waiting:
        room = waiting.popleft()
        for other in house.beside(room):
            if other not in before:
                before[other] = room
                waiting.append(other)
    way: list[int] = []
    while goal != house.start:
        way.append(goal)
        goal = before[goal]
    return [f"go {house.rooms[room]}" for room in reversed(way)]
