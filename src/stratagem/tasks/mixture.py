"""Tasks made of other tasks: several in turn, and one whose demonstrator has a habit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from stratagem.errors import InputError
from stratagem.tasks.task import Environment, Split, Task

if TYPE_CHECKING:
    from stratagem.tasks.structured import Plan


@runtime_checkable
class HabitualDemonstrator(Protocol):
    """A task whose demonstrator can be given a bad habit, for a warm start that leaves something to unlearn."""

    def demonstration(self, split: Split, index: int, habit: float, seed: int) -> Iterator[str]:
        """Actions of the demonstrator, who falls into the habit in a share ``habit`` of the episodes."""
        ...


@runtime_checkable
class Composite(Protocol):
    """A task whose episodes go by the rules of other tasks: how many turns, which system message, what answers."""

    def member(self, index: int) -> tuple[Task, int]:
        """The task whose rules hold in episode ``index``, and the episode's number there."""
        ...


class Mixture(Task):
    """Several tasks in turn: episode ``i`` is episode ``i // n`` of task ``i mod n``.

    So a batch of ``k n`` start states has ``k`` of each task, whatever their sizes, and what is left over in smaller
    steps goes round. In a batch each task is a domain (:func:`domain_of`).

    habit: share of episodes in which the demonstrator of a task that has one gives in to its bad habit; ``solution`` is
    then a demonstration and need not solve the episode.
    """

    def __init__(self, tasks: Sequence[Task], habit: float = 0.0, seed: int = 0) -> None:
        if not tasks:
            raise InputError("a mixture needs at least one task")
        self.tasks, self.habit, self.seed = tuple(tasks), habit, seed
        self.name = "+".join(task.name for task in tasks)
        self.description = "; ".join(task.description for task in tasks)
        self.max_turns = max(task.max_turns for task in tasks)
        self.max_new_tokens = max(task.max_new_tokens for task in tasks)
        self.stop = tuple(sorted({stop for task in tasks for stop in task.stop}))
        further = dict.fromkeys(name for task in tasks for name in task.reward_names[1:])
        self.reward_names = (tasks[0].reward_names[0], *further)
        self.reward_weights = _weights(tasks, self.reward_names)

    def member(self, index: int) -> tuple[Task, int]:
        """The task that episode ``index`` belongs to, and its number there."""
        inner, which = divmod(index, len(self.tasks))
        return self.tasks[which], inner

    def environment(self, split: Split, index: int) -> Environment:
        task, inner = self.member(index)
        return task.environment(split, inner)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        task, inner = self.member(index)
        if self.habit and isinstance(task, HabitualDemonstrator):
            return task.demonstration(split, inner, self.habit, self.seed)
        return task.solution(split, inner)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        task, inner = self.member(index)
        return task.corrupted(split, inner)

    def plan(self, text: str) -> Plan | None:
        """As the first of the tasks reads it whose turns have parts; of one episode, its :func:`owner` knows better."""
        return next((plan for task in self.tasks if (plan := task.plan(text)) is not None), None)


def _weights(tasks: Sequence[Task], names: Sequence[str]) -> tuple[float, ...]:
    """One weight for each name; the first name is of every task's first reward, whatever it is called there."""
    weights: dict[str, float] = {}
    for task in tasks:
        own = (1.0,) * len(task.reward_names) if task.reward_weights is None else task.reward_weights
        for name, weight in zip((names[0], *task.reward_names[1:]), own, strict=True):
            if weights.setdefault(name, weight) != weight:
                raise InputError(
                    f"mixture: reward {name!r} counts {weights[name]:g} in one task and {weight:g} in {task.name}; "
                    "it must count the same in all of them"
                )
    return tuple(weights[name] for name in names)


def owner(task: Task, index: int) -> Task:
    """The task whose rules hold in episode ``index``: one that the task is made of, or the task itself."""
    return owner(*task.member(index)) if isinstance(task, Composite) else task


def domain_of(task: Task, index: int) -> int:
    """Which task of a mixture episode ``index`` is of, counted from 0; 0 where there is no mixture."""
    if isinstance(task, Mixture):
        return index % len(task.tasks)
    return domain_of(*task.member(index)) if isinstance(task, Composite) else 0
