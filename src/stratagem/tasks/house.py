"""The house task: find the thing that is meant, by walking, asking and remembering, each of which costs something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.tasks.answers import normalised
from stratagem.tasks.commands import command
from stratagem.tasks.house_plan import ENTRANCE, ROOMS, House, Thing, random_house
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_ASKED_FOR = {
    "colour": ("colour", "color"),
    "size": ("size", "big", "large", "small"),
    "room": ("room", "where", "place", "location"),
}
"""What a question is about, by the words that say so."""

_Price = Annotated[float, Field(ge=0, le=1_000)]


class Prices(NamedTuple):
    """What actions cost: a metre, a question after ``n`` others (``question * (1 + fatigue * n)``), a look back."""

    metre: float = 0.05
    question: float = 0.1
    fatigue: float = 0.5
    look: float = 0.01


@dataclass(frozen=True)
class HouseTask(Task):
    """Fetch a thing of which there are several, and the instruction does not say which one is meant:

        > Bring the mug. You are at the entrance. Metres to: kitchen box 3, kitchen shelf 2.5, study table 6, ...
        memory: mug                  small red mug: kitchen shelf, 3 days ago; large red mug: study table, 7 days ago
        ask: which size?             It is large.
        navigate: study table        You are at the study table. Here: large red mug. Metres to: ...
        select: large red mug        (the end)

    A turn is one command. ``navigate`` goes to a receptacle, where one sees what is there. ``ask`` is answered
    truthfully when it is about the colour, the size or the room of what is meant, the first of them that is named;
    a question about nothing is charged like any other. ``memory`` tells where things of that name were last seen; they
    may have been moved since. ``select`` takes the one thing here with these words in its name, and ends the episode.
    A command that cannot be read or carried out is told so and changes nothing, but takes its turn.

    The reward is 1 for the right thing, and so is success. All else is noted and counts nothing in the return until a
    recipe charges it: ``cost`` in all, and what of it is ``walking`` (the shortest way, by the metre), ``asking`` (a
    question is dearer by ``fatigue`` for every earlier one) and ``remembering``; ``questions``; ``format``, 1 when
    every command could be carried out; ``spl``, success times the shortest way to the target over the way that was
    gone, if that is longer. Costs are those of arXiv 2512.18571; its numbers were not available, and those here, as
    houses and wording, are our own.

    ``distractors``: further things of the target's category, 0 to 4.  ``rooms``: 2 to 6, with three receptacles each.
    ``staleness``: share of memories of things that are elsewhere by now.  ``walk_cost`` a metre, ``ask_cost``,
    ``fatigue``, ``memory_cost``: at least 0.  ``max_turns``: 2 to 64.  ``max_new_tokens``: of a turn, 1 to 100,000.

    Every thing of the target's category can be reached. Raises :class:`InputError` for an option out of range.
    """

    distractors: Annotated[int, Field(ge=0, le=4)] = 2
    rooms: Annotated[int, Field(ge=2, le=len(ROOMS))] = 3
    staleness: Annotated[float, Field(ge=0, le=1)] = 0.2
    walk_cost: _Price = 0.05
    ask_cost: _Price = 0.1
    fatigue: _Price = 0.5
    memory_cost: _Price = 0.01
    max_turns: Annotated[int, Field(ge=2, le=64)] = 12
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 24

    name = "house"
    description = "find the thing that is meant, by walking, asking and remembering, each at a cost"
    system = (
        "Bring what is meant, at little cost. Write one command: `navigate: kitchen shelf`, `ask: which colour?`, "
        "`memory: mug`, or, where it is, `select: small red mug`."
    )
    reward_names = ("reward", "format", "cost", "walking", "asking", "remembering", "questions", "spl")
    reward_weights = (1.0, *[0.0] * 7)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> HouseEnvironment:
        prices = Prices(self.walk_cost, self.ask_cost, self.fatigue, self.memory_cost)
        return HouseEnvironment(self.house(split, index), prices, self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Straight to the target."""
        wanted = self.house(split, index).wanted
        yield f"navigate: {wanted.place}"
        yield f"select: {wanted.name}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: another thing of the category, the target from afar, the target without taking it."""
        house = self.house(split, index)
        others = [thing for thing in house.candidates if thing != house.wanted]
        match index % 3:
            case 0 if others:
                yield f"navigate: {others[0].place}"
                yield f"select: {others[0].name}"
            case 1:
                yield f"select: {house.wanted.name}"
            case _:
                yield f"navigate: {house.wanted.place}"

    def answer(self, text: str) -> str | None:
        """What ``select`` takes."""
        word, content = command(text)
        return normalised(content) or None if word == "select" else None

    def house(self, split: Split, index: int) -> House:
        """The house of this episode."""
        return draw(
            split,
            index,
            (self.name, self.rooms, self.distractors, self.staleness),
            lambda random: random_house(random, self.rooms, self.distractors, self.staleness),
            lambda house: state_key(self.name, house.ways, house.things, house.target),
        )


class HouseEnvironment(Environment):
    """One house. A state is the house, where one is, where one has been, and what was asked and remembered."""

    def __init__(self, house: House, prices: Prices | None = None, max_turns: int = 12) -> None:
        self.house = house
        self.prices = Prices() if prices is None else prices
        self.max_turns = max_turns
        self.reset()

    def reset(self) -> Observation:
        self.place = ENTRANCE
        self._turn, self._walked, self._formed = 0, 0.0, True
        self._been: set[str] = set()
        self._asked: list[str] = []
        self._recalled: set[str] = set()
        return self._observe(f"Bring the {self.house.wanted.category}. {self._around()}")

    def step(self, action: str) -> Step:
        self._turn += 1
        word, content = command(action)
        taken: Thing | None = None
        spent: dict[str, float] = {}
        match word:
            case "navigate":
                told, spent = self._navigate(normalised(content))
            case "ask":
                told, spent = self._ask(normalised(content))
            case "memory":
                told, spent = self._remember(normalised(content))
            case "select":
                told, taken = self._select(normalised(content))
            case _:
                told = self._fault("write navigate, ask, memory or select, a colon, and what")
        right = taken is not None and taken == self.house.wanted
        out_of_turns = taken is None and self._turn >= self.max_turns
        done = taken is not None or out_of_turns
        costs = {name: spent[name] for name in ("walking", "asking", "remembering") if name in spent}
        noted = {**spent, "cost": sum(costs.values())} if costs else {}
        if done:
            noted |= {"format": float(self._formed), "spl": self._path_efficiency() if right else 0.0}
        return Step(
            self._observe(told), float(right), done=done, truncated=out_of_turns, success=right, components=noted
        )

    def _navigate(self, place: str) -> tuple[str, dict[str, float]]:
        if place not in self.house.places:
            return self._fault(f"there is no such place, but {', '.join(self.house.places)}"), {}
        metres = self.house.metres[self.place][place]
        self.place = place
        self._been.add(place)
        self._walked += metres
        return self._around(), {"walking": self.prices.metre * metres}

    def _ask(self, question: str) -> tuple[str, dict[str, float]]:
        cost = self.prices.question * (1 + self.prices.fatigue * len(self._asked))
        about = _about(question)
        self._asked.append(about)
        wanted = self.house.wanted
        answers = {"colour": f"It is {wanted.colour}.", "size": f"It is {wanted.size}."}
        answers |= {"room": f"It is in the {wanted.room}.", "": "I do not know that."}
        return answers[about], {"asking": cost, "questions": 1.0}

    def _remember(self, words: str) -> tuple[str, dict[str, float]]:
        self._recalled.add(words)
        found = [seen for seen in self.house.memory if words and set(words.split()) <= set(seen.name.split())]
        told = "; ".join(f"{seen.name}: {seen.place}, {seen.days} days ago" for seen in found)
        return told or "nothing remembered", {"remembering": self.prices.look}

    def _select(self, words: str) -> tuple[str, Thing | None]:
        here = [thing for thing in self.house.at(self.place) if set(words.split()) <= set(thing.name.split())]
        if not words or len(here) != 1:
            return self._fault("several things here are called so" if words and here else "no such thing here"), None
        return "the end", here[0]

    def _fault(self, why: str) -> str:
        self._formed = False
        return f"error: {why}"

    def _path_efficiency(self) -> float:
        """The shortest way to the target over the way that was gone: 1 where that is the shortest."""
        return min(1.0, self.house.metres[ENTRANCE][self.house.wanted.place] / self._walked)

    def _around(self) -> str:
        here = ", ".join(thing.name for thing in self.house.at(self.place)) or "nothing"
        seen = "" if self.place == ENTRANCE else f" Here: {here}."
        others = [place for place in self.house.places if place != self.place]
        ways = ", ".join(f"{place} {self.house.metres[self.place][place]:g}" for place in others)
        return f"You are at the {self.place}.{seen} Metres to: {ways}."

    def _observe(self, text: str) -> Observation:
        state = (self.house, self.place, sorted(self._been), self._asked, sorted(self._recalled), text)
        return Observation(text, state_key("house", *state))


def from_spec(argument: str | None, options: Mapping[str, str]) -> HouseTask:
    """``house[:distractors=2,rooms=3,staleness=0.2,walk_cost=0.05,ask_cost=0.1,fatigue=0.5,memory_cost=0.01]``."""
    return configure(HouseTask, argument, options)


def _about(question: str) -> str:
    """Which attribute the question names first; empty for none."""
    for word in "".join(letter if letter.isalpha() else " " for letter in question).split():
        for attribute, words in _ASKED_FOR.items():
            if word in words:
                return attribute
    return ""
