"""Goals made of what was done: found in triplets, kept apart by their words, proved by doing them again, reworded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from stratagem.errors import InputError
from stratagem.synthesis.exploration import Triplet, words
from stratagem.tasks.task import Environment, Split, Task
from stratagem.training.run_directory import RunDirectory

_T = TypeVar("_T")


@dataclass(frozen=True)
class Goal:
    """A task that was found: in which environment, what is asked for, and a sequence of actions that does it.

    query: what the policy reads.  description: in words.  guideline: how it was done.  actions: since the reset.
    outcome: a line of an observation that is there when it is done.  opening, observation: what was seen at the reset
    and at the end.  confidence: of whoever found it, in [0, 1].
    """

    environment: int
    query: str
    description: str
    guideline: str
    actions: tuple[str, ...]
    outcome: str
    opening: str
    observation: str
    confidence: float

    def reached(self, observation: str) -> bool:
        """Whether an observation has the outcome as one of its lines."""
        return self.outcome in observation.splitlines()


Abstract = Callable[[Sequence[Triplet]], Sequence[Goal]]
"""Finds goals in a window of triplets of one environment."""

Agent = Callable[[Goal, str, int], str | None]
"""Tries to do a goal again: the goal, what it sees, how many actions it took; None to give up."""

Rewrite = Callable[[Sequence[Goal], int, int], Sequence[str]]
"""New queries for some goals: variant ``k`` of ``n``, counted from 1, with fewer hints the larger it is."""


# ---- finding --------------------------------------------------------------------------------------------------------


def windows(triplets: Iterable[Triplet], size: int) -> Iterator[tuple[Triplet, ...]]:
    """Triplets of one environment after the other, ``size`` at a time, in the order they were made."""
    for _, own in groupby(sorted(triplets, key=lambda one: one.environment), lambda one: one.environment):
        yield from _batches(own, size)


def _batches(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    waiting = iter(items)
    while batch := tuple(islice(waiting, size)):
        yield batch


def first_effects(window: Sequence[Triplet]) -> list[Goal]:
    """A goal for each line that an action brought, the first time in its rollout that the window holds.

    The line is the first that was not to be seen before; the actions are those that changed the state. The confidence
    is 0.5, and 0.25 more if the action changed the state,
    0.15 if no other triplet of the window has the line, 0.1 if no
    action before it was in vain. A triplet that ends the episode at its first action gives none. Rules of ours, where
    the paper asks a language model.
    """
    goals, known = [], set[tuple[int, str]]()
    lines = [set(one.observation.splitlines()) for one in window]
    for triplet in window:
        before = set(triplet.before.splitlines())
        new = next((line for line in triplet.observation.splitlines() if line not in before), None)
        if new is None or (triplet.rollout, new) in known or (triplet.done and len(triplet.path) == 1):
            continue
        known.add((triplet.rollout, new))
        changed = triplet.state != triplet.next_state
        rare = sum(new in seen for seen in lines) == 1
        straight = changed and triplet.path == triplet.effective
        goals.append(
            Goal(
                environment=triplet.environment,
                query=new.strip(),
                description=f"Act until you read: {new}",
                guideline=", then ".join(triplet.effective),
                actions=triplet.effective,
                outcome=new,
                opening=triplet.opening,
                observation=triplet.observation,
                confidence=round(0.5 + 0.25 * changed + 0.15 * rare + 0.1 * straight, 2),
            )
        )
    return goals


# ---- keeping apart --------------------------------------------------------------------------------------------------


def jaccard(first: str, second: str) -> float:
    """Words that both texts have over words that one of them has, in lower case; 0 for two without any."""
    one, other = words(first), words(second)
    return len(one & other) / len(one | other) if one | other else 0.0


def distinct(goals: Iterable[Goal], likeness: float, within_environment: bool = False) -> list[Goal]:
    """Goals by falling confidence, without those whose query is like that of one before: Jaccard at least ``likeness``.

    within_environment: only goals of the same environment are compared.
    """
    kept: list[Goal] = []
    for goal in sorted(goals, key=lambda goal: -goal.confidence):
        like = (
            jaccard(goal.query, other.query) >= likeness
            for other in kept
            if not within_environment or other.environment == goal.environment
        )
        if not any(like):
            kept.append(goal)
    return kept


# ---- proving --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """A goal done again: whether the reset showed the same, the actions taken, what was seen after each."""

    goal: Goal
    opens_alike: bool
    actions: tuple[str, ...]
    observations: tuple[str, ...]


Judge = Callable[[Replay], bool]
"""Whether a replay did what the goal asks for, the way it says."""


def reached(replay: Replay) -> bool:
    """The last observation has the outcome."""
    return bool(replay.observations) and replay.goal.reached(replay.observations[-1])


def faithful(replay: Replay) -> bool:
    """The actions are the reference's."""
    return replay.actions == replay.goal.actions


def ends_alike(replay: Replay) -> bool:
    """The last observation is the recorded one."""
    return bool(replay.observations) and replay.observations[-1] == replay.goal.observation


def follow(goal: Goal, observation: str, taken: int) -> str | None:
    """The agent that takes the recorded actions."""
    return goal.actions[taken] if taken < len(goal.actions) else None


def replay(task: Task, split: Split, goal: Goal, agent: Agent, most: int) -> Replay:
    """Do a goal again from the reset of its environment, in at most so many actions, up to its outcome.

    Whatever the environment raises ends the replay there.
    """
    actions: list[str] = []
    seen: list[str] = []
    alike = False
    try:
        with opened(task, split, goal.environment) as environment:
            now = attempted(environment.reset).text
            alike = now == goal.opening
            while alike and len(actions) < most and not goal.reached(now):
                action = agent(goal, now, len(actions))
                if action is None:
                    break
                step = attempted(environment.step, action)
                actions.append(action)
                seen.append(now := step.observation.text)
                if step.done:
                    break
    except BrokenEnvironment:
        pass
    return Replay(goal, alike, tuple(actions), tuple(seen))


class BrokenEnvironment(Exception):
    """An environment raised; its own exception is the cause."""


def attempted(call: Callable[..., _T], *arguments: Any) -> _T:
    """What a call of an environment returns. Raises :class:`BrokenEnvironment` for whatever it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        raise BrokenEnvironment(f"{type(error).__name__}: {error}") from error


@contextmanager
def opened(task: Task, split: Split, number: int) -> Iterator[Environment]:
    """The environment of this episode, closed at the end. Raises :class:`BrokenEnvironment` when it cannot be made."""
    environment = attempted(task.environment, split, number)
    try:
        yield environment
    finally:
        with suppress(Exception):
            environment.close()


# ---- rewording ------------------------------------------------------------------------------------------------------


def fewer_hints(goals: Sequence[Goal], variant: int, variants: int) -> list[str]:
    """The query with the first actions as a hint: all of them in variant 1, none in the last, evenly in between."""
    queries = []
    for goal in goals:
        shown = round(len(goal.actions) * (variants - variant) / max(variants - 1, 1))
        hint = f" (begin with: {', '.join(goal.actions[:shown])})" if shown else ""
        queries.append(f"{goal.query}{hint}")
    return queries


def reworded(goals: Sequence[Goal], variants: int, rewrite: Rewrite, batch: int = 10) -> list[Goal]:
    """Every goal in so many wordings; nothing but the query changes. Goals without a word in their query are left out.

    Raises :class:`InputError` when ``rewrite`` returns another number of queries than it was given goals.
    """
    found: list[Goal] = []
    for some in _batches(goals, batch):
        for variant in range(1, variants + 1):
            queries = rewrite(some, variant, variants)
            if len(queries) != len(some):
                raise InputError(f"synthesis: {len(queries)} queries came back for {len(some)} goals")
            found += [replace(goal, query=query.strip()) for goal, query in zip(some, queries, strict=True)]
    return [goal for goal in found if words(goal.query)]


# ---- the file -------------------------------------------------------------------------------------------------------


def write_goals(path: str | Path, goals: Iterable[Goal]) -> Path:
    """Write a JSON-lines file, whole or not at all; returns its path."""
    path = Path(path)
    lines = "".join(json.dumps(asdict(goal), allow_nan=False) + "\n" for goal in goals)
    RunDirectory(path.parent).write_text(path.name, lines)
    return path


def read_goals(path: str | Path) -> list[Goal]:
    """The goals of a file that :func:`write_goals` wrote. Raises :class:`InputError` naming path and line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"goals {path}: cannot be read ({type(error).__name__})") from None
    return [_goal(line, f"goals {path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _goal(line: str, where: str) -> Goal:
    try:
        row: Any = json.loads(line)
        goal = Goal(**{**row, "actions": tuple(row["actions"])})
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{where}: is no goal") from None
    texts = (goal.query, goal.description, goal.guideline, goal.outcome, goal.opening, goal.observation, *goal.actions)
    if not all(isinstance(text, str) for text in texts) or not isinstance(goal.environment, int) or not goal.outcome:
        raise InputError(f"{where}: is no goal")
    return goal
