"""Any text task of one turn, answered with a set of candidates, each of which is graded by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from stratagem.errors import InputError
from stratagem.rewards.sets import MARK
from stratagem.tasks.tags import contents, in_form
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

TAG = "candidate"


@dataclass(frozen=True)
class _Grade:
    """What one candidate earned by itself: its rewards by name, and whether it solved the episode."""

    rewards: Mapping[str, float]
    success: bool


class SetEnvironment(Environment):
    """One episode, answered once with several candidates.

    Each is played in an episode of its own. One that is not written, or not closed, earns nothing; those beyond the
    number asked for are not read.
    """

    def __init__(self, task: SetTask, split: Split, index: int) -> None:
        self._task, self._open = task, partial(task.of.environment, split, index)

    def reset(self) -> Observation:
        with closing(self._open()) as environment:
            return environment.reset()

    def step(self, action: str) -> Step:
        task = self._task
        written = contents(action, TAG)[: task.size]
        grades = [self._grade(text) for text in written]
        lacking = task.size - len(written)
        totals = [sum(task.weights[name] * value for name, value in grade.rewards.items()) for grade in grades]
        components = {
            f"{name}{MARK}{number}": grade.rewards[name]
            for number, grade in enumerate(grades, 1)
            for name in task.weights
        }
        told = f"{len(written)} of {task.size} candidates"
        return Step(
            Observation(told, state_key(task.name, told)),
            max([*totals, *[0.0] * lacking]),
            done=True,
            success=any(grade.success for grade in grades),
            components={
                **components,
                "written": len(written) / task.size,
                "distinct": len(set(task.answers(action))) / task.size,
            },
            executed=bool(written),
            well_formed=lacking == 0 and in_form([action], [TAG]),
        )

    def _grade(self, text: str) -> _Grade:
        with closing(self._open()) as environment:
            environment.reset()
            step = environment.step(text.strip())
        first = step.reward if step.turn_rewards is None else sum(step.turn_rewards)
        earned = {self._task.of.reward_names[0]: first, **step.components}
        return _Grade({name: earned.get(name, 0.0) for name in self._task.weights}, step.success)


class SetTask(Task):
    """``of``, answered with ``candidates`` answers at once, each as ``<candidate>...</candidate>``.

    Each candidate is graded as if it were the only answer; its rewards are noted as ``NAME@1``, ``NAME@2``, ..., for
    every reward ``NAME`` of the other task that counts in its return, and pay nothing by themselves
    (:class:`~stratagem.rewards.BestCandidate` makes a reward of them). The reward is the best candidate's return by
    the other task's weights, so a recipe that knows nothing of sets learns best-of-K. A candidate that is not written
    has 0 in everything. Noted without pay, as shares of ``candidates``: ``written``, how many there are, and
    ``distinct``, how many different answers they give. The episode is solved when one of them solves it.

    of: the task; its rewards are meant to lie in [0, 1].  candidates: at least 1.  room: tokens per candidate for its
    tags.

    Raises :class:`InputError` for a task of several turns, one with rewards of negative weight or with ``@`` in their
    names, and a number out of range.
    """

    description = "another task of one turn, answered with a set of candidates"

    def __init__(self, of: Task, candidates: int = 3, room: int = 16) -> None:
        if of.max_turns != 1:
            raise InputError(f"task {of.name!r}: has {of.max_turns} turns; sets are of answers in one turn")
        if candidates < 1:
            raise InputError(f"task sets:{of.name}: candidates = {candidates}: must be at least 1")
        weights = (1.0,) * len(of.reward_names) if of.reward_weights is None else of.reward_weights
        for name, weight in zip(of.reward_names, weights, strict=True):
            if weight < 0 or MARK in name:
                raise InputError(
                    f"task {of.name!r}: reward {name!r} of weight {weight} cannot be one of a set's: needs a weight of "
                    f"at least 0 and a name without {MARK}"
                )
        self.of, self.size = of, candidates
        self.weights = {name: weight for name, weight in zip(of.reward_names, weights, strict=True) if weight}
        self.name = f"sets:{of.name}"
        self.max_new_tokens = candidates * (of.max_new_tokens + room)
        hint = f"Give {candidates} answers that differ, each as <{TAG}>an answer</{TAG}>. The best of them counts."
        self.system = hint if of.system is None else f"{of.system} {hint}"
        noted = [f"{name}{MARK}{number}" for number in range(1, candidates + 1) for name in self.weights]
        self.reward_names = ("reward", *noted, "written", "distinct")
        self.reward_weights = (1.0,) + (0.0,) * (len(noted) + 2)

    def environment(self, split: Split, index: int) -> SetEnvironment:
        return SetEnvironment(self, split, index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        yield self._written(next(self.of.solution(split, index)))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        yield self._written(next(self.of.corrupted(split, index)))

    def checkable(self, split: Split, index: int) -> bool:
        return self.of.checkable(split, index)

    def answer(self, text: str) -> str | None:
        """The different answers of the candidates, in alphabetical order, one a line."""
        return "\n".join(sorted(set(self.answers(text)))) or None

    def answers(self, text: str) -> list[str]:
        """What each candidate answers, without those that cannot be read."""
        said = [self.of.answer(written.strip()) for written in contents(text, TAG)[: self.size]]
        return [answer for answer in said if answer is not None]

    def _written(self, answer: str) -> str:
        return "\n".join([f"<{TAG}>{answer}</{TAG}>"] * self.size)


def from_spec(argument: str | None, options: Mapping[str, Any]) -> SetTask:
    """``sets:TASK[,candidates=3,option=value]``; the other options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task sets needs another task, such as sets:routes")
    number = str(options.get("candidates", 3))
    if not number.isdecimal():
        raise InputError(f"task sets: candidates = {number}: must be a whole number")
    further = [f"{name}={value}" for name, value in options.items() if name != "candidates"]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task sets:{argument}: is not played in text")
    return SetTask(task, int(number))
