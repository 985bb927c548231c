"""Twelve tools with typed parameters, and requests by which each of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from stratagem.tasks.call_syntax import Tool, WantedCall

_CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito", "Paris", "Seoul")
_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_ROOMS = ("kitchen", "office", "cellar", "attic")
_CODES = ("EUR", "USD", "JPY", "INR")
_SONGS = ("Blue Hour", "Slow Train", "North Wind")
_PLACES = ("Luna", "The Anchor", "Old Mill")
_TONGUES = ("French", "Hindi", "Korean")
_WORDS = ("good morning", "where is the station", "thank you")

Arguments = dict[str, list[Any]]


class Asked(NamedTuple):
    """A request in words, and the call that answers it."""

    text: str
    call: WantedCall


class _Kind(NamedTuple):
    tool: Tool
    ask: Callable[[Random], tuple[str, Arguments]]


def _tool(name: str, description: str, optional: Mapping[str, Any] | None = None, **types: Any) -> Tool:
    """A tool by the types of its parameters, which are a word or a whole schema; the optional ones with defaults."""
    defaults = optional or {}
    properties = {
        parameter: {**({"type": given} if isinstance(given, str) else given)}
        | ({"default": defaults[parameter]} if parameter in defaults else {})
        for parameter, given in types.items()
    }
    required = [parameter for parameter in types if parameter not in defaults]
    return Tool(name, description, {"type": "object", "properties": properties, "required": required})


def _weather(random: Random) -> tuple[str, Arguments]:
    city, day = random.choice(_CITIES), random.choice(("today", "tomorrow"))
    return f"What will the weather in {city} be {day}?", {"city": [city], "day": [day]}


def _convert(random: Random) -> tuple[str, Arguments]:
    source, target = random.sample(_CODES, 2)
    amount = random.randint(20, 1999) / random.choice((1, 2, 4))
    return f"How much is {amount:g} {source} in {target}?", {"amount": [amount], "source": [source], "target": [target]}


def _alarm(random: Random) -> tuple[str, Arguments]:
    hour, minute = random.randint(4, 11), random.choice((0, 0, 15, 30, 45))
    return f"Wake me at {hour}:{minute:02}.", {"hour": [hour], "minute": [minute]}


def _table(random: Random) -> tuple[str, Arguments]:
    place, people, outside = random.choice(_PLACES), random.randint(2, 9), random.random() < 0.5
    where = ", outside" if outside else ""
    text = f"Book a table for {people} at {place}{where}."
    return text, {"restaurant": [place], "people": [people], "outdoors": [outside]}


def _message(random: Random) -> tuple[str, Arguments]:
    person, text = random.choice(_PEOPLE), random.choice(("I am late", "see you soon", "call me back"))
    return f'Write "{text}" to {person}.', {"person": [person], "text": [text]}


def _sum(random: Random) -> tuple[str, Arguments]:
    numbers = [random.randint(-20, 99) for _ in range(random.randint(2, 4))]
    return f"Add up {', '.join(map(str, numbers))}.", {"numbers": [numbers]}


def _song(random: Random) -> tuple[str, Arguments]:
    title, volume = random.choice(_SONGS), random.choice((5, 2, 8))
    loud = "" if volume == 5 else f" at volume {volume}"
    return f"Play {title}{loud}.", {"title": [title], "volume": [volume]}


def _event(random: Random) -> tuple[str, Arguments]:
    title, day = random.choice(("lunch", "review", "rehearsal")), random.choice(_DAYS)
    guests = random.sample(_PEOPLE, random.randint(0, 2))
    beside = f" with {' and '.join(guests)}" if guests else ""
    return f"Put {title} on {day}{beside} into the calendar.", {"title": [title], "day": [day], "guests": [guests]}


def _route(random: Random) -> tuple[str, Arguments]:
    (start, end), by = random.sample(_CITIES, 2), random.choice(("car", "train", "bike"))
    return f"How do I get from {start} to {end} by {by}?", {"start": [start], "end": [end], "by": [by]}


def _translate(random: Random) -> tuple[str, Arguments]:
    text, language = random.choice(_WORDS), random.choice(_TONGUES)
    return f'Say "{text}" in {language}.', {"text": [text], "language": [language]}


def _store(random: Random) -> tuple[str, Arguments]:
    item, room, shelf = random.choice(("ladder", "lamp", "drill")), random.choice(_ROOMS), random.randint(1, 5)
    return f"Put the {item} on shelf {shelf} in the {room}.", {
        "item": [item],
        "place": [{"room": room, "shelf": shelf}],
    }


def _light(random: Random) -> tuple[str, Arguments]:
    room, level = random.choice(_ROOMS), random.randint(1, 9)
    return f"Set the light in the {room} to {level}0 percent.", {"room": [room], "level": [level / 10, level * 10]}


_NUMBERS = {"type": "array", "items": {"type": "number"}}
_NAMES = {"type": "array", "items": {"type": "string"}}
_PLACE = {"type": "object", "properties": {"room": {"type": "string"}, "shelf": {"type": "integer"}}}

_KINDS = {
    kind.tool.name: kind
    for kind in (
        _Kind(_tool("get_weather", "the forecast", {"day": "today"}, city="string", day="string"), _weather),
        _Kind(_tool("convert", "an amount to another currency", amount="number", source="string", target="string"),
              _convert),
        _Kind(_tool("set_alarm", "an alarm", {"minute": 0}, hour="integer", minute="integer"), _alarm),
        _Kind(_tool("book_table", "a table", {"outdoors": False}, restaurant="string", people="integer",
                    outdoors="boolean"), _table),
        _Kind(_tool("send_message", "a message", person="string", text="string"), _message),
        _Kind(_tool("add_numbers", "their sum", numbers=_NUMBERS), _sum),
        _Kind(_tool("play_song", "music", {"volume": 5}, title="string", volume="integer"), _song),
        _Kind(_tool("create_event", "in the calendar", {"guests": []}, title="string", day="string", guests=_NAMES),
              _event),
        _Kind(_tool("find_route", "a way", {"by": "car"}, start="string", end="string", by="string"), _route),
        _Kind(_tool("translate", "into another language", text="string", language="string"), _translate),
        _Kind(_tool("store_item", "a thing at its place", item="string", place=_PLACE), _store),
        _Kind(_tool("set_light", "how bright a room is, from 0 to 1 or in percent", room="string", level="number"),
              _light),
    )
}  # fmt: skip

TOOLS: Mapping[str, Tool] = {name: kind.tool for name, kind in _KINDS.items()}
"""The tools by name."""


def ask(name: str, random: Random) -> Asked:
    """A request that needs this tool, and the call."""
    text, arguments = _KINDS[name].ask(random)
    return Asked(text, WantedCall(name, arguments))
