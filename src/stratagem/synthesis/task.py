"""Goals that were found in an environment, as a task to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stratagem.errors import InputError
from stratagem.synthesis.goals import Goal, read_goals
from stratagem.tasks.mixture import owner
from stratagem.tasks.splits import TEST_SHARE
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


class SynthesizedTask(Task):
    """Goals in the environments of another task: the query stands over its observations, reward 1 when it is reached.

    A goal is reached when its outcome is a line of the observation that follows an action; the episode ends there, or
    where that of ``of`` ends, whose own rewards do not count. Episodes take the goals in turn.

    of: the task that was explored.  goals: at least one, with environments of its ``split``.
    test_share: of the environments, whose goals are the test episodes; at least one where there are two, none for 0.
    Raises :class:`InputError` without goals, and for an episode of a split that has none.
    """

    description = "goals that were found by exploring another task"

    def __init__(self, of: Task, goals: Sequence[Goal], test_share: float = TEST_SHARE, split: Split = "train") -> None:
        if not goals:
            raise InputError(f"task synthesized:{of.name}: there are no goals")
        if not 0 <= test_share < 1:
            raise InputError(f"task synthesized:{of.name}: test_share={test_share}: must be at least 0 and below 1")
        self.of, self._split = of, split
        self.name = f"synthesized:{of.name}"
        self.max_turns, self.max_new_tokens, self.stop, self.system = (
            of.max_turns,
            of.max_new_tokens,
            of.stop,
            of.system,
        )
        held_out = _held_out({goal.environment for goal in goals}, test_share)
        self.goals: dict[Split, tuple[Goal, ...]] = {
            "train": tuple(goal for goal in goals if goal.environment not in held_out),
            "test": tuple(goal for goal in goals if goal.environment in held_out),
        }

    def goal(self, split: Split, index: int) -> Goal:
        """What an episode asks for."""
        goals = self.goals[split]
        if not goals:
            raise InputError(f"task {self.name}: its goals are of too few environments for a {split} split")
        return goals[index % len(goals)]

    def environment(self, split: Split, index: int) -> Environment:
        goal = self.goal(split, index)
        return GoalEnvironment(self.of.environment(self._split, goal.environment), goal)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(self.goal(split, index).actions)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """All of the reference but its last action."""
        return iter(self.goal(split, index).actions[:-1])

    def answer(self, text: str) -> str | None:
        return owner(self.of, 0).answer(text)


class GoalEnvironment(Environment):
    """One goal in one environment."""

    def __init__(self, of: Environment, goal: Goal) -> None:
        self._of, self._goal = of, goal

    def reset(self) -> Observation:
        return self._asked(self._of.reset(), f"goal: {self._goal.query}\n")

    def step(self, action: str) -> Step:
        step = self._of.step(action)
        reached = self._goal.reached(step.observation.text)
        return Step(
            self._asked(step.observation, ""),
            float(reached),
            done=reached or step.done,
            truncated=step.truncated and not reached,
            success=reached,
        )

    def _asked(self, observation: Observation, head: str) -> Observation:
        """Above the first observation alone; states differ by what is asked for."""
        key = state_key("synthesized", self._goal.outcome, observation.state_key)
        return Observation(f"{head}{observation.text}", key, observation.role)

    def close(self) -> None:
        self._of.close()


def _held_out(environments: set[int], share: float) -> set[int]:
    """The environments of the test split: so many of them, first by a stable hash of their number."""
    count = round(share * len(environments))
    if share and len(environments) > 1:
        count = min(max(count, 1), len(environments) - 1)
    return set(sorted(environments, key=lambda number: state_key("environment", number))[:count])


def from_spec(argument: str | None, options: Mapping[str, Any]) -> SynthesizedTask:
    """``synthesized:TASK,goals=PATH[,test_share=0.2]``; further options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None or "goals" not in options:
        raise InputError("task 'synthesized' needs a task and goals, such as synthesized:craft,free=true,goals=g.jsonl")
    further = [f"{name}={value}" for name, value in options.items() if name not in ("goals", "test_share")]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task synthesized:{argument}: is not played in text")
    try:
        share = float(options.get("test_share", TEST_SHARE))
    except ValueError:
        raise InputError(f"task 'synthesized': test_share={options['test_share']!r} is not a number") from None
    return SynthesizedTask(task, read_goals(options["goals"]), share)
