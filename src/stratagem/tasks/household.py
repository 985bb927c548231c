"""The household task: find a thing, treat it, and bring it where it belongs, seeing only what is open and near."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from stratagem.tasks.household_world import (
    KINDS,
    LAMP,
    LAMP_PLACE,
    ROOMS,
    TREATED,
    Household,
    Kind,
    State,
    carried,
    is_closed,
    random_household,
    read,
    solve,
    with_article,
)
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


@dataclass(frozen=True)
class HouseholdTask(Task):
    """Reach a goal in a household, with goals and commands of the kind of ALFWorld (arXiv 2010.03768):

        > Your task: put a clean mug in/on the desk. You are in the kitchen. Here: countertop 1, sink 1, ...
        go to cabinet 1                The cabinet 1 is closed.
        open cabinet 1                 You open the cabinet 1. In/on the cabinet 1: mug 1.
        take mug 1 from cabinet 1      You take the mug 1 from the cabinet 1.
        go to sink 1                   In/on the sink 1: nothing.
        clean mug 1 with sink 1        You clean the mug 1 with the sink 1.
        go to bedroom                  You are in the bedroom. Here: desk 1, bed 1, ...
        go to desk 1                   In/on the desk 1: pen 1.
        put mug 1 in/on desk 1         You put the mug 1 in/on the desk 1.

    One sees the receptacles of the room one is in, and the things in or on the receptacle one is at, unless it is
    closed. One thing can be carried. Further commands are ``close``, ``heat ... with microwave 1``,
    ``cool ... with fridge 1``, ``use desk lamp`` at the desk, ``look`` and ``inventory``. What is impossible and what
    is no command is answered ``Nothing happens.``, changes nothing, takes its turn, and is counted in ``invalid``.

    The reward, and success, is the goal. ``progress`` is noted: the largest share of the goal's conditions (taken,
    treated, in place, for each thing) that held at a time. ``progress`` and ``invalid`` count nothing in the return.
    The state key is of the true state, closed receptacles included.

    ``goal``: ``put``, ``clean``, ``heat``, ``cool``, ``look`` (at a thing under the lamp) or ``two``; ``mixed`` is each
    of them in turn.  ``rooms``: 2 to 4.  ``objects``: 2 to 40.  ``max_turns``: 10 to 1000; households that the
    demonstrator does not solve within it are not drawn.  ``max_new_tokens``: of a turn, 1 to 100,000.

    Raises :class:`InputError` for an option out of range.
    """

    goal: Literal["mixed", "put", "clean", "heat", "cool", "look", "two"] = "mixed"
    rooms: Annotated[int, Field(ge=2, le=len(ROOMS))] = 3
    objects: Annotated[int, Field(ge=2, le=40)] = 8
    max_turns: Annotated[int, Field(ge=10, le=1000)] = 50
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 24

    name = "household"
    description = "find a thing in a household, treat it, and bring it where it belongs"
    system = (
        "Do the task. Write one command: go to a room or a receptacle, open or close it, take a thing from it, put a "
        "thing in/on it, clean a thing with the sink, heat it with the microwave, cool it with the fridge, use desk "
        "lamp, look or inventory."
    )
    reward_names = ("reward", "progress", "invalid")
    reward_weights = (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> HouseholdEnvironment:
        return HouseholdEnvironment(self.household(split, index), self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """What a demonstrator does who looks into one receptacle after the other."""
        return iter(solve(self.household(split, index)))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution without what it comes to: its treatment or, where there is none, its last action."""
        goal = self.household(split, index).goal
        actions = list(self.solution(split, index))
        if goal.kind in TREATED:
            return (action for action in actions if not action.startswith(f"{goal.kind} "))
        return iter(actions[:-1])

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        """Find a thing, take it, treat it, and place it or look at it."""
        household = self.household(split, index)
        state, goals = household.start, []
        for action in actions:
            goals.append(_phase(household, state, action))
            state = household.after(state, action) or state
        return goals

    def household(self, split: Split, index: int) -> Household:
        """The household of this episode."""
        kind: Kind = KINDS[index % len(KINDS)] if self.goal == "mixed" else self.goal
        return draw(
            split,
            index,
            (self.name, kind, self.rooms, self.objects, self.max_turns),
            lambda random: self._solvable(random_household(random, self.rooms, self.objects, kind)),
            lambda household: state_key(self.name, household),
        )

    def _solvable(self, household: Household) -> Household | None:
        return household if len(solve(household)) <= self.max_turns else None


class HouseholdEnvironment(Environment):
    """One household. Its states are :class:`~stratagem.tasks.household_world.State`."""

    def __init__(self, household: Household, max_turns: int = 50) -> None:
        self.household = household
        self.max_turns = max_turns
        self._household_key = state_key(household)
        self.reset()

    def reset(self) -> Observation:
        self._turn, self._reached, self._state = 0, 0.0, self.household.start
        return self._observe(f"Your task: {self.household.goal.text}. {self._around()}")

    def step(self, action: str) -> Step:
        self._turn += 1
        following = self.household.after(self._state, action)
        if following is not None:
            self._state = following
        solved = self.household.solved(self._state)
        cut = not solved and self._turn >= self.max_turns
        reached = max(self._reached, self.household.progress(self._state))
        noted = {"invalid": 1.0} if following is None else {"progress": reached - self._reached}
        self._reached = reached
        told = "Nothing happens." if following is None else self._told(action)
        return Step(
            self._observe(told),
            float(solved),
            done=solved or cut,
            truncated=cut,
            success=solved,
            components=noted,
            executed=following is not None,
            well_formed=read(action) is not None,
        )

    def _told(self, action: str) -> str:
        """What one reads of a command that was carried out."""
        command = read(action)
        assert command is not None  # it was carried out
        verb, thing, place = command
        match verb:
            case "go" | "look":
                return self._around()
            case "open":
                return f"You open the {place}. {self._contents()}"
            case "close":
                return f"You close the {place}."
            case "inventory":
                return self._inventory()
            case "use":
                return f"You use the {LAMP}."
            case "take":
                return f"You take the {thing} from the {place}."
            case "put":
                return f"You put the {thing} in/on the {place}."
        return f"You {verb} the {thing} with the {place}."

    def _around(self) -> str:
        if self._state.at:
            return self._contents()
        room = self._state.room
        others = ", ".join(other for other in self.household.rooms if other != room)
        return f"You are in the {room}. Here: {', '.join(ROOMS[room])}. Other rooms: {others}."

    def _contents(self) -> str:
        at = self._state.at
        if is_closed(self._state, at):
            return f"The {at} is closed."
        names = [self._named(thing) for thing in self.household.visible(self._state)]
        lamp = [LAMP] if at == LAMP_PLACE else []
        return f"In/on the {at}: {', '.join([*lamp, *names]) or 'nothing'}."

    def _inventory(self) -> str:
        held = carried(self._state)
        return f"You carry: {'nothing' if held is None else self._named(held)}."

    def _named(self, thing: int) -> str:
        state = self._state
        conditions = [*(["clean"] if state.clean[thing] else []), *filter(None, [state.warmth[thing]])]
        name = self.household.things[thing]
        return f"{name} ({', '.join(conditions)})" if conditions else name

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key(self._household_key, *self._state))


def from_spec(argument: str | None, options: Mapping[str, str]) -> HouseholdTask:
    """``household[:goal=mixed,rooms=3,objects=8,max_turns=50,max_new_tokens=24]``."""
    return configure(HouseholdTask, argument, options)


def _phase(household: Household, state: State, action: str) -> str:
    """What an action taken in this state is after."""
    goal, held, command = household.goal, carried(state), read(action)
    if held is None or held not in household.wanted:
        one = f"another {goal.thing}" if household.progress(state) else with_article(goal.thing)
        return f"take {one}" if command is not None and command.verb == "take" else f"find {one}"
    if not household.treated(state, held):
        return f"{goal.kind} the {goal.thing}"
    if goal.kind == "look":
        return f"look at the {goal.thing} under the {LAMP}"
    return f"place the {goal.thing} in/on the {goal.target}"
