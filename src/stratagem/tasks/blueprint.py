"""Any text task whose first turn writes a plan of sub-goals, which later turns carry out one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, Any

from pydantic import Field, InstanceOf

from stratagem.errors import InputError
from stratagem.tasks.options import validate
from stratagem.tasks.tags import first_tag
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

PLANNER, EXECUTOR = 0, 1
"""Roles (``Observation.role``): who writes the plan, in context 0, and who acts, in a context for each sub-goal."""

DONE = "<sub_done>"
"""What an executor says when its sub-goal is reached."""

HINT = (
    "First write a plan, one sub-goal a line: <blueprint>\n1. the first sub-goal\n2. the next one\n</blueprint>. "
    f"It is then carried out one sub-goal after the other; say {DONE} behind an action that completes one."
)

_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*])?\s*")


def read_blueprint(text: str) -> list[str]:
    """The sub-goals of the first ``<blueprint>...</blueprint>``, one a line, without numbers and bullets.

    Empty lines are none; a text without closed tags has no sub-goals.
    """
    found = first_tag(text, "blueprint")
    lines = [] if found is None else [_BULLET.sub("", line).strip() for line in found[1].splitlines()]
    return [line for line in lines if line]


@dataclass(frozen=True)
class BlueprintTask(Task):
    """``of``, for a planner who writes sub-goals once and an executor who is shown them one by one.

        planner   (context 0, role 0)  <blueprint>
                                       1. take the key
                                       2. open the door
                                       </blueprint>
        executor  (context 1, role 1)  is told the plan, the sub-goal "take the key", and what there is to see
                                       east
                                       take <sub_done>
        executor  (context 2, role 1)  is told the plan, "open the door", and so on

    An executor's turn is an action of the task; ``<sub_done>`` in it moves on to the next sub-goal, and nothing else in
    it is a move of no action: the task is not asked. So does a sub-goal that has had ``subgoal_turns`` turns. The last
    sub-goal stays until the episode ends. Each sub-goal is a conversation of its own, which opens with the plan; how
    earlier ones went is not told.

    A plan without a sub-goal ends the episode with ``-penalty``, and nobody acts. Of one that is too long, the first
    ``most`` sub-goals count. Rewards are those of the task and beside them, noted without pay: ``unplanned`` episodes,
    plans ``shortened``, ``subgoals`` of the plan, those ``declared`` done, and those that ran out of their turns
    (``expired``).

    The structure and ``<sub_done>`` are those of arXiv 2603.00977; the cap, the turns of a sub-goal and the penalty are
    reconstructions.

    of: the task.  most: sub-goals, 1 to 100.  subgoal_turns: of a sub-goal, 1 to 1000.  declared: whether
    ``<sub_done>`` counts; False moves on by turns alone.  penalty: 0 to 1.

    Raises :class:`InputError` for a number out of range, and a task that has one of these rewards already.
    """

    of: InstanceOf[Task]
    most: Annotated[int, Field(ge=1, le=100)] = 10
    subgoal_turns: Annotated[int, Field(ge=1, le=1000)] = 16
    declared: bool = True
    penalty: Annotated[float, Field(ge=0, le=1)] = 0.1

    description = "another task, whose first turn plans the sub-goals of the others"
    noted = ("unplanned", "shortened", "subgoals", "declared", "expired")

    def __post_init__(self) -> None:
        of = self.of
        taken = sorted({*self.noted} & {*of.reward_names})
        if taken:
            raise InputError(f"task {of.name!r}: already has a reward {taken[0]!r} and cannot have a blueprint")
        weights = (1.0,) * len(of.reward_names) if of.reward_weights is None else of.reward_weights
        for name, value in {
            "name": f"blueprint:{of.name}",
            "max_turns": 1 + of.max_turns,
            "max_new_tokens": of.max_new_tokens + _ROOM,
            "stop": tuple(dict.fromkeys((*of.stop, "</blueprint>", DONE))),
            "system": HINT if of.system is None else f"{of.system} {HINT}",
            "reward_names": (*of.reward_names, *self.noted),
            "reward_weights": (*weights, *(0.0 for _ in self.noted)),
        }.items():
            object.__setattr__(self, name, value)
        validate(self)

    def environment(self, split: Split, index: int) -> BlueprintEnvironment:
        return BlueprintEnvironment(self, self.of.environment(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self._planned(split, index, self.of.solution(split, index))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self._planned(split, index, self.of.corrupted(split, index))

    def answer(self, text: str) -> str | None:
        return self.of.answer(text.replace(DONE, ""))

    def _planned(self, split: Split, index: int, actions: Iterator[str]) -> Iterator[str]:
        """The sub-goals of these actions, and the actions, the last of each sub-goal with the word that it is done."""
        taken = list(actions)
        said = self.of.subgoals(split, index, taken)
        legs = [(goal, len(list(leg))) for goal, leg in groupby(said)] or [("solve the task", 0)]
        lines = "\n".join(f"{number}. {goal}" for number, (goal, _) in enumerate(legs, 1))
        yield f"<blueprint>\n{lines}\n</blueprint>"
        left = iter(taken)
        for _, length in legs:
            for place in range(length):
                yield next(left) + (f" {DONE}" if place == length - 1 else "")


class BlueprintEnvironment(Environment):
    """One episode. An executor's state is that of the task, the plan and where in it it is."""

    def __init__(self, task: BlueprintTask, environment: Environment) -> None:
        self.task, self._environment = task, environment

    def reset(self) -> Observation:
        self._seen = self._environment.reset()
        self._goals: list[str] = []
        self._place = self._turns = 0
        return replace(self._seen, state_key=state_key("blueprint", self._seen.state_key), role=PLANNER, context=0)

    def step(self, action: str) -> Step:
        return self._executed(action) if self._goals else self._planned(action)

    def close(self) -> None:
        self._environment.close()

    def _planned(self, action: str) -> Step:
        written = read_blueprint(action)
        self._goals = written[: self.task.most]
        if not self._goals:
            ended = Observation("no blueprint", state_key("blueprint", "none"))
            return Step(ended, -self.task.penalty, done=True, components={"unplanned": 1.0})
        noted = {"subgoals": float(len(self._goals)), "shortened": float(len(written) > self.task.most)}
        return Step(self._observe(opens=True), components=noted)

    def _executed(self, action: str) -> Step:
        said = action.replace(DONE, " ").strip()
        declared = self.task.declared and DONE in action
        step = Step(self._seen)
        if said or not declared:
            step = self._environment.step(said)
            self._seen = step.observation
        self._turns += 1
        expired = not declared and self._turns >= self.task.subgoal_turns
        last = self._place == len(self._goals) - 1
        moves = (declared or expired) and not last and not step.done
        if moves:
            self._place, self._turns = self._place + 1, 0
        counted = {"declared": float(declared), "expired": float(expired and moves)}
        return replace(step, observation=self._observe(opens=moves), components={**step.components, **counted})

    def _observe(self, opens: bool) -> Observation:
        """What the executor reads; ``opens`` when it begins a sub-goal."""
        goals, place = self._goals, self._place
        text = f"sub-goal {place + 1} of {len(goals)}: {goals[place]}\n{self._seen.text}"
        system = "\n".join([*([self.task.of.system] if self.task.of.system else []), "Plan:", *goals])
        opening = ({"role": "system", "content": system}, {"role": "user", "content": text}) if opens else ()
        key = state_key("blueprint", self._seen.state_key, goals, place)
        return Observation(text, key, EXECUTOR, place + 1, opening)


_ROOM = 64
"""Tokens a turn may have more than in the task: those of a plan, or of the word that a sub-goal is done."""


def from_spec(argument: str | None, options: Mapping[str, Any]) -> BlueprintTask:
    """``blueprint:TASK[,most=10,subgoal_turns=16,declared=true,penalty=0.1,option=value]``; others are the task's."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task blueprint needs another task, such as blueprint:key_door")
    own = ("most", "subgoal_turns", "declared", "penalty")
    further = [f"{name}={value}" for name, value in options.items() if name not in own]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task blueprint:{argument}: is not played in text")
    return BlueprintTask(task, **{name: options[name] for name in own if name in options})
