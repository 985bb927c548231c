"""Generated text games played through TextWorld's own logic engine, with its quest policy as the solver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from random import Random
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.adapter import require
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
_GOALS = ("gem", "coin", "egg", "book")
_TURNS = {1: 10, 2: 12, 3: 16}


def from_spec(argument: str | None, options: Mapping[str, str]) -> TextWorldTask:
    """The task ``textworld[:level][,distractors=0..4]``; the level is 1 (default), 2 or 3."""
    return configure(TextWorldTask, None, options if argument is None else {**options, "level": argument})


@dataclass(frozen=True)
class TextWorldTask(Task):
    """Find the key, open what is locked and take the goal, in a game of one to three rooms.

    The commands are TextWorld's (``take key3 from table1``, ``unlock box3 with key3``, ``open box3``, ``go east``); a
    key opens what bears its number. A command that is not possible changes nothing. Reward 1 on taking the goal, 0
    otherwise. One game in five, by its facts, is a test game.

    ``level``: 1 (a locked box, 4 or 5 commands), 2 (a locked door, 5 to 7) or 3 (the key in another room, a locked
    door and a box behind it, 8 or 9). ``distractors``: useless things in the rooms, 0 to 4; the first is a key.
    """

    level: Annotated[int, Field(ge=1, le=3)] = 1
    distractors: Annotated[int, Field(ge=0, le=4)] = 0

    name = "textworld"
    description = "find the key, open what is locked and take the goal, in a generated text game"
    max_new_tokens = 12

    def __post_init__(self) -> None:
        _engine()
        validate(self)
        object.__setattr__(self, "max_turns", _TURNS[self.level])

    def environment(self, split: Split, index: int) -> TextWorldGame:
        """The game with this number."""
        return TextWorldGame(self._quest(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The commands of TextWorld's quest policy."""
        return iter(self._quest(split, index).commands)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution without unlocking."""
        return (command for command in self.solution(split, index) if not command.startswith("unlock"))

    def demonstration(self, split: Split, index: int, habit: float, seed: int) -> Iterator[str]:
        """What a demonstrator does who has a bad habit: its commands in one episode.

        With probability ``habit`` in [0, 1], drawn once per episode from ``seed``, it tries three times to open the
        locked thing without the key and gives up; otherwise it follows the solution. The habit shows from the first
        command on, so that a faithful imitator succeeds in a share ``1 - habit`` of its samples and, with ``habit``
        above one half, fails when it acts greedily, although it reads that the thing is locked.
        """
        if not 0 <= habit <= 1:
            raise InputError(f"task {self.name!r}: habit={habit!r} is not allowed; it is a probability, 0 to 1")
        quest = self._quest(split, index)
        if seeded("demonstration", self.name, split, index, seed).random() >= habit:
            return iter(quest.commands)
        return repeat(f"open {quest.locked}", _FUTILE_TRIES)

    def _quest(self, split: Split, index: int) -> _Quest:
        stream = (self.name, self.level, self.distractors)
        return draw(split, index, stream, lambda rng: _Layout(rng, self.level).quest(self.distractors), lambda q: q.key)


_FUTILE_TRIES = 3
"""Times a demonstrator with the habit tries: enough to show the loop, few enough to leave most tokens to solutions."""


class TextWorldGame(Environment):
    """One game. The state key is a hash of the goal and of all facts that are true."""

    def __init__(self, quest: _Quest) -> None:
        self._quest = quest
        self._progress: Any = None

    def reset(self) -> Observation:
        """Start the game."""
        self._progress = _engine().GameProgression(self._quest.game())
        return self._observe()

    def step(self, action: str) -> Step:
        """Carry out a command; one that is not possible leaves everything as it is and is answered with "no."."""
        chosen = _possible(self._progress.valid_actions).get(" ".join(action.lower().split()))
        if chosen is not None:
            self._progress.update(chosen)
        won = bool(self._progress.completed)
        return Step(self._observe("" if chosen else "no. "), float(won), bool(self._progress.done), success=won)

    def policy(self) -> list[str]:
        """The commands that win from here, by TextWorld's quest policy; empty when the game is over."""
        return _commands(self._progress.winning_policy or ())

    def commands(self) -> list[str]:
        """Every command that is possible now, sorted."""
        return sorted(_possible(self._progress.valid_actions))

    def _observe(self, prefix: str = "") -> Observation:
        facts = list(self._progress.state.facts)
        text = f"{prefix}get {self._quest.goal}. {_describe(facts)}"
        return Observation(text, _key(self._quest.goal, facts))


@dataclass(frozen=True)
class _Quest:
    """A start state (``facts``), the thing to get, the thing locked in the first room and commands that win."""

    facts: tuple[Any, ...]
    goal: str
    locked: str
    commands: tuple[str, ...]

    @property
    def key(self) -> int:
        """The state key of the start."""
        return _key(self.goal, self.facts)

    def game(self) -> Any:
        """TextWorld's game, whose quest is won when the goal is in the inventory."""
        engine = _engine()
        world = engine.World.from_facts(self.facts, kb=engine.kb)
        won = engine.Event(actions=self._actions(world.state.copy()), conditions=[_fact("in", self.goal, "I")])
        return engine.Game(world, quests=[engine.Quest(win_events=[won])])

    def _actions(self, state: Any) -> list[Any]:
        engine = _engine()
        actions = []
        for command in self.commands:
            applicable = state.all_applicable_actions(engine.kb.rules.values(), engine.kb.types.constants_mapping)
            action = _possible(applicable)[command]
            state.apply(action)
            actions.append(action)
        return actions


class _Layout:
    """Draws a world: facts go in one by one, and with them the commands that win."""

    def __init__(self, rng: Random, level: int) -> None:
        self.rng = rng
        self.level = level
        self.number = rng.randint(1, 9)
        self.free = [number for number in range(1, 10) if number != self.number]
        rng.shuffle(self.free)
        self.facts = [_fact("at", "P", "room1")]
        self.commands: list[str] = []
        self.exits = list(_OPPOSITE)
        rng.shuffle(self.exits)

    def quest(self, distractors: int) -> _Quest:
        """The whole world, with ``distractors`` useless things in it."""
        goal, *others = (f"{name}{self.rng.randint(1, 9)}" for name in self.rng.sample(_GOALS, len(_GOALS)))
        locked = f"{'box' if self.level == 1 else 'door'}{self.number}"
        self._key()
        self.commands += [f"unlock {locked} with key{self.number}", f"open {locked}"]
        self._goal(goal)
        for name in [f"key{self.free[0]}", *others][:distractors]:
            self._place(name, self.rng.choice(self._rooms()))
        return _Quest(tuple(self.facts), goal, locked, tuple(self.commands))

    def _rooms(self) -> list[str]:
        return [f"room{number}" for number in range(1, self.level + 1)]

    def _key(self) -> None:
        """The key lies in the first room, at level 3 in the second, and is brought back to the lock."""
        there = self.exits[1] if self.level == 3 else None
        if there:
            self._connect("room1", there, "room2")
            self.commands.append(f"go {there}")
        self.commands += self._place(f"key{self.number}", "room2" if there else "room1")
        if there:
            self.commands.append(f"go {_OPPOSITE[there]}")

    def _goal(self, goal: str) -> None:
        """Behind the lock: in the locked box, or past the locked door lying there (2) or in a closed box (3)."""
        if self.level == 1:
            self._box(f"box{self.number}", "room1", "locked", goal)
            self.facts.append(_fact("match", f"key{self.number}", f"box{self.number}"))
            self.commands.append(f"take {goal} from box{self.number}")
            return
        room, door = f"room{self.level}", f"door{self.number}"
        self._connect("room1", self.exits[0], room, door)
        self.facts += [_fact("locked", door), _fact("match", f"key{self.number}", door)]
        self.commands.append(f"go {self.exits[0]}")
        if self.level == 2:
            self.commands += self._place(goal, room)
            return
        box = f"box{self.free[1]}"
        self._box(box, room, "closed", goal)
        self.commands += [f"open {box}", f"take {goal} from {box}"]

    def _place(self, name: str, room: str) -> list[str]:
        """Put a thing on the floor, on a table or in a closed box; the commands that take it."""
        place = self.rng.choice(("floor", "table", "box"))
        number = self.free.pop()
        if place == "floor":
            self.facts.append(_fact("at", name, room))
            return [f"take {name}"]
        if place == "table":
            self.facts += [_fact("at", f"table{number}", room), _fact("on", name, f"table{number}")]
            return [f"take {name} from table{number}"]
        self._box(f"box{number}", room, "closed", name)
        return [f"open box{number}", f"take {name} from box{number}"]

    def _box(self, box: str, room: str, condition: str, content: str) -> None:
        self.facts += [_fact("at", box, room), _fact(condition, box), _fact("in", content, box)]

    def _connect(self, room: str, direction: str, other: str, door: str | None = None) -> None:
        self.facts += [_fact(f"{direction}_of", other, room), _fact(f"{_OPPOSITE[direction]}_of", room, other)]
        for one, two in ((room, other), (other, room)):
            self.facts.append(_fact("link", one, door, two) if door else _fact("free", one, two))


def _key(goal: str, facts: Iterable[Any]) -> int:
    return state_key("textworld", goal, *sorted(map(str, facts)))


def _describe(facts: Iterable[Any]) -> str:
    """What the player sees: the room and what is in it, what is carried, and the exits."""
    true = sorted((fact.name, tuple(fact.names)) for fact in facts)
    (here,) = [names[1] for name, names in true if name == "at" and names[0] == "P"]
    condition = {names[0]: name for name, names in true if name in ("open", "closed", "locked")}

    def content(holder: str) -> list[str]:
        return [names[0] for name, names in true if name in ("in", "on") and names[1] == holder]

    seen = []
    for name, (thing, *place) in true:
        if name == "at" and place == [here] and thing != "P":
            inside = " ".join(content(thing)) if condition.get(thing, "open") == "open" else ""
            holds = f": {inside}" if inside else ""
            seen.append(" ".join(filter(None, (thing, condition.get(thing)))) + holds)
    doors = {names[2]: names[1] for name, names in true if name == "link" and names[0] == here}
    exits = []
    for name, names in true:
        if name.endswith("_of") and names[1] == here:
            door = doors.get(names[0])
            exits.append(" ".join(filter(None, (name.removesuffix("_of"), door, condition.get(door or "")))))
    parts = {"see": seen, "carry": content("I"), "exits": exits}
    return f"{here}. " + " ".join(f"{name} {', '.join(things)}." for name, things in parts.items() if things)


_TYPES = {"room": "r", "door": "d", "key": "k", "box": "c", "table": "s"}


def _fact(name: str, *things: str) -> Any:
    logic = _engine()
    kinds = (_TYPES.get(thing.rstrip("0123456789"), thing if thing in ("P", "I") else "o") for thing in things)
    return logic.Proposition(name, [logic.Variable(thing, kind) for thing, kind in zip(things, kinds, strict=True)])


def _commands(actions: Any) -> list[str]:
    engine = _engine()
    return list(engine.gen_commands_from_actions(actions, engine.kb))


def _possible(actions: Any) -> dict[str, Any]:
    """The actions by the command that carries each out."""
    listed = list(actions)
    return dict(zip(_commands(listed), listed, strict=True))


@cache
def _engine() -> SimpleNamespace:
    """TextWorld's parts and its default knowledge base, loaded once: reading the rules costs most of a game."""
    game = require("textworld.generator.game", "text")
    return SimpleNamespace(
        Game=game.Game,
        Quest=game.Quest,
        Event=game.Event,
        GameProgression=game.GameProgression,
        gen_commands_from_actions=game.gen_commands_from_actions,
        World=require("textworld.generator.world", "text").World,
        Proposition=require("textworld.logic", "text").Proposition,
        Variable=require("textworld.logic", "text").Variable,
        kb=require("textworld.generator.data", "text").KnowledgeBase.default(),
    )
