"""A text task whose prompts begin with skills from a bank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratagem.errors import InputError
from stratagem.skills.bank import Skill, SkillBank
from stratagem.skills.lifecycle import Case, Create, SkillLifecycle, Trial
from stratagem.tasks.mixture import owner
from stratagem.tasks.reminders import reminded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task

if TYPE_CHECKING:
    from stratagem.tasks.structured import Plan

HEADING = "Skills that may help:"


class Skilled(Task):
    """``of``, with skills from a bank at the end of the system message of every conversation.

    ``stratagem.train`` audits the bank every ``lifecycle.every`` steps, counts what each skill was shown in, and keeps
    the bank in the run's checkpoints. Where nothing is shown an episode is the one of ``of``.

    >>> from stratagem.skills import Skill, SkillBank, Skilled
    >>> from stratagem.tasks import KeyDoorTask
    >>> task = Skilled(KeyDoorTask(), SkillBank([Skill("order", "Take the key before you open the door.")]))
    >>> print(task.environment("train", 0).reset().opening[0]["content"])
    Take the key, open the door, reach the goal. Say one word: north, south, east, west, take or open.
    <BLANKLINE>
    Skills that may help:
    - order: Take the key before you open the door.

    of: any text task.  bank: changes while a run trains on the task; every run starts with what it holds then.
    lifecycle: which skills are shown, and when they are kept.
    kind: type of an episode's task from its first observation; by default the name of the task, or of the one in a
    mixture that the episode belongs to.
    create: writes new skills; without it none are written.  heading: stands before the skills.
    Raises :class:`InputError` when more skills are in use than ``lifecycle.cap``.
    """

    def __init__(
        self,
        of: Task,
        bank: SkillBank,
        lifecycle: SkillLifecycle | None = None,
        *,
        kind: Callable[[str], str] | None = None,
        create: Create | None = None,
        heading: str = HEADING,
    ) -> None:
        self.of, self.bank, self.create, self.heading = of, bank, create, heading
        self.lifecycle = SkillLifecycle() if lifecycle is None else lifecycle
        self.lifecycle.check(bank)
        self._kind = kind
        self.name, self.description = f"skilled:{of.name}", of.description
        self.max_turns, self.max_new_tokens, self.stop, self.system = (
            of.max_turns,
            of.max_new_tokens,
            of.stop,
            of.system,
        )
        self.reward_names, self.reward_weights = of.reward_names, of.reward_weights

    def member(self, index: int) -> tuple[Task, int]:
        """The rules are those of ``of``."""
        return self.of, index

    def case(self, index: int, text: str) -> Case:
        """The episode of this number, whose first observation says ``text``."""
        kind = owner(self.of, index).name if self._kind is None else self._kind(text)
        return Case(index, kind, text)

    def environment(self, split: Split, index: int) -> Environment:
        def chosen(text: str) -> Sequence[Skill]:
            return self.lifecycle.retrieve(self.bank, self.case(index, text))

        return self._with_skills(split, index, chosen)

    def _with_skills(self, split: Split, index: int, chosen: Callable[[str], Sequence[Skill]]) -> Environment:
        return SkilledEnvironment(self.of.environment(split, index), owner(self.of, index).system, self.heading, chosen)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self.of.solution(split, index)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self.of.corrupted(split, index)

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def plan(self, text: str) -> Plan | None:
        return self.of.plan(text)


class Trials(Skilled):
    """Episode ``i`` is the case of trial ``i``, shown what that trial says and not what the bank would."""

    def __init__(self, task: Skilled, trials: Sequence[Trial]) -> None:
        super().__init__(task.of, task.bank, task.lifecycle, heading=task.heading)
        self.trials = trials

    def member(self, index: int) -> tuple[Task, int]:
        return self.of, self.trials[index].case.number

    def environment(self, split: Split, index: int) -> Environment:
        trial = self.trials[index]
        return self._with_skills(split, trial.case.number, lambda text: trial.shown)


class SkilledEnvironment(Environment):
    """An environment whose conversations open with skills. ``chosen``: from the text of the first observation."""

    def __init__(
        self, of: Environment, system: str | None, heading: str, chosen: Callable[[str], Sequence[Skill]]
    ) -> None:
        self._of, self._system, self._heading, self._chosen = of, system, heading, chosen
        self._told = ""
        self._opened: set[int] = set()

    def reset(self) -> Observation:
        first = self._of.reset()
        shown = self._chosen(first.text)
        lines = [self._heading, *(f"- {skill.name}: {skill.text}" for skill in shown)]
        self._told = "\n".join(lines) if shown else ""
        self._opened = set()
        return self._reminded(first)

    def step(self, action: str) -> Step:
        step = self._of.step(action)
        return replace(step, observation=self._reminded(step.observation))

    def _reminded(self, observation: Observation) -> Observation:
        """With the skills where it opens a conversation."""
        if not self._told or observation.context in self._opened:
            return observation
        self._opened.add(observation.context)
        return reminded(observation, self._system, self._told)

    def close(self) -> None:
        self._of.close()


def from_spec(argument: str | None, options: Mapping[str, Any]) -> Skilled:
    """``skilled:TASK,skills=PATH[,audit_every=20,validation=64,shown=3]``; further options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None or "skills" not in options:
        raise InputError("task 'skilled' needs a task and a bank, such as skilled:key_door,skills=skills.json")
    own = {"audit_every": "every", "validation": "validation", "shown": "shown"}
    values = {own[name]: _whole(name, value) for name, value in options.items() if name in own}
    further = [f"{name}={value}" for name, value in options.items() if name not in own and name != "skills"]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task skilled:{argument}: is not played in text")
    return Skilled(task, SkillBank.load(Path(options["skills"])), SkillLifecycle().replace(**values))


def _whole(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InputError(f"task 'skilled': {name}={value!r} is not allowed; it is a whole number") from None
