"""Any text task of one turn as attempts that follow one another: each is shown the last ones and what they scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from stratagem.errors import InputError
from stratagem.seeding import derive
from stratagem.tasks.mixture import Composite
from stratagem.tasks.structured import Plan
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

Feedback = Literal["score", "shown", "none"]
Judged = Literal["best", "last"]

IMPROVE = "Improve on your attempts: answer again, better than before."
DIFFER = "Answer again, in a way that differs substantially from your attempts."
"""What is asked behind earlier attempts; the published wordings were not available."""


class ImproveEnvironment(Environment):
    """Attempts at one problem, each graded in an episode of its own, and read in a conversation of its own.

    earlier: attempts that were made before it begins.  most: attempts until it ends.
    """

    def __init__(self, task: ImproveTask, split: Split, index: int, earlier: Sequence[str], most: int) -> None:
        self._task, self._split, self._index = task, split, index
        self._earlier, self._most = earlier, most
        self._question = Observation("", 0)
        self._said: list[tuple[str, str]] = []
        self._made = 0
        self._earned = 0.0

    def reset(self) -> Observation:
        with closing(self._open()) as environment:
            self._question = environment.reset()
        self._said, self._made = [], 0
        for attempt in self._earlier:
            self._said.append((attempt, self._feedback(attempt, self._grade(attempt))))
        return self._asked()

    def step(self, action: str) -> Step:
        graded = self._grade(action)
        self._said.append((action, self._feedback(action, graded)))
        self._made += 1
        paid = _reward(graded) if self._most == 1 else self._gain(self._task.score(graded))
        success = graded.success
        # A verifier that says so ends the search; without one there is nobody to say it.
        done = self._made >= self._most or (self._task.judged == "best" and success)
        return Step(
            self._asked(),
            reward=paid,
            done=done,
            success=success and done,
            components=graded.components if self._most == 1 else {},
            executed=graded.executed,
            ran=graded.ran,
            well_formed=graded.well_formed,
        )

    def _gain(self, score: float) -> float:
        """By how much an attempt changes what the episode is worth."""
        if self._made == 1:
            self._earned = score
            return score
        before, best = self._earned, self._task.judged == "best"
        self._earned = max(before, score) if best else score
        return self._earned - before

    def _open(self) -> Environment:
        return self._task.of.environment(self._split, self._index)

    def _grade(self, attempt: str) -> Step:
        with closing(self._open()) as environment:
            environment.reset()
            return environment.step(attempt)

    def _feedback(self, attempt: str, graded: Step) -> str:
        if self._task.feedback == "none":
            return ""
        if self._task.feedback == "score":
            return f"Score: {self._task.score(graded):g}."
        shown = graded.observation.text
        for solution in self._task.solutions(self._split, self._index):
            answer = self._task.of.answer(solution)
            if answer and _says(shown, answer) and not _says(f"{self._question.text}\n{attempt}", answer):
                raise ValueError(f"task {self._task.name}: what an attempt is shown gives the answer away")
        return shown

    def _asked(self) -> Observation:
        """The question, the last attempts, and what is wanted now."""
        shown = self._said[-self._task.shown :]
        if not shown:
            return self._question
        texts = [text for pair in shown for text in pair]
        asked = DIFFER if self._diverges(texts) else IMPROVE
        system = [] if self._task.system is None else [{"role": "system", "content": self._task.system}]
        opening = [dict(message) for message in self._question.opening]
        messages = opening or [*system, {"role": "user", "content": self._question.text}]
        for number, (attempt, feedback) in enumerate(shown, 1):
            further = asked if number == len(shown) else "Answer again."
            told = f"{feedback} {further}".strip()
            messages += [{"role": "assistant", "content": attempt}, {"role": "user", "content": told}]
        return replace(
            self._question,
            text=messages[-1]["content"],
            state_key=state_key(self._question.state_key, *texts, asked),
            context=self._question.context + len(self._said),
            opening=tuple(messages),
        )

    def _diverges(self, texts: Sequence[str]) -> bool:
        """By what was attempted, so that all rollouts of a group are asked alike."""
        if self._split == "test":
            return False
        return derive(state_key(self._index, *texts), "divergence") < self._task.divergence * 2**63


class ImproveTask(Task):
    """``of``, attempted again and again: each attempt reads the question, the last attempts and their feedback.

    A training episode is one attempt and is paid what ``of`` pays: the first one, which is an episode of ``of`` to the
    letter, or one behind earlier attempts (:meth:`after`, which :class:`~stratagem.sampling.Improving` asks for). Those
    are prompt, as messages of the conversation. A test episode is ``attempts`` in a row, from none; a conversation
    begins anew with each, so that what is read is bounded. Its return and its success are those of its ``best``
    attempt, with which it ends once one succeeds, for then a verifier has to be at hand; or those of the ``last``,
    without one.

    of: the task.  attempts: of a test episode, at least 1.
    shown: attempts that are shown, the last ones, at least 1; older ones are dropped and the question stays.
    feedback: on an attempt, its ``score``; what the task has ``shown`` in answer to it, in which the answer of its
    solver must not stand, unless question or attempt say it, too; or ``none``. Only take what is known wherever the
    policy is used.
    judged: ``best`` or ``last``.
    divergence: share of training histories behind which an answer that differs is asked for, instead of a better one,
    in [0, 1]. Which ones follows from the attempts.

    Raises :class:`InputError` for a task of several turns or made of several tasks, and for numbers out of range; in an
    episode, for ``shown`` feedback with the answer in it, which fails the episode.
    """

    description = "another task of one turn, whose attempts are to be improved"

    def __init__(
        self,
        of: Task,
        attempts: Annotated[int, Ge(1)] = 16,
        shown: Annotated[int, Ge(1)] = 2,
        feedback: Feedback = "score",
        judged: Judged = "best",
        divergence: Annotated[float, Ge(0), Le(1)] = 0.2,
    ) -> None:
        if isinstance(of, Composite):
            raise InputError(f"task {of.name!r}: is made of several tasks, of which each has to be improved by itself")
        if of.max_turns != 1:
            raise InputError(f"task {of.name!r}: has {of.max_turns} turns; an attempt is one turn")
        for name, number in (("attempts", attempts), ("shown", shown)):
            if number < 1:
                raise InputError(f"task improve: {name} = {number}: must be at least 1")
        if feedback not in ("score", "shown", "none"):
            raise InputError(f"task improve: feedback = {feedback!r}: must be score, shown or none")
        if judged not in ("best", "last"):
            raise InputError(f"task improve: judged = {judged!r}: must be best or last")
        if not 0 <= divergence <= 1:
            raise InputError(f"task improve: divergence = {divergence}: must be in [0, 1]")
        self.of, self.attempts, self.shown = of, attempts, shown
        self.feedback, self.judged, self.divergence = feedback, judged, divergence
        self.name, self.max_turns = f"improve:{of.name}", attempts
        self.max_new_tokens, self.stop, self.system = of.max_new_tokens, of.stop, of.system
        self.reward_names, self.reward_weights = of.reward_names, of.reward_weights

    def environment(self, split: Split, index: int) -> ImproveEnvironment:
        return ImproveEnvironment(self, split, index, (), 1 if split == "train" else self.attempts)

    def after(self, split: Split, index: int, attempts: Sequence[str]) -> ImproveEnvironment:
        return ImproveEnvironment(self, split, index, tuple(attempts), 1 if split == "train" else self.attempts)

    def score(self, graded: Step) -> float:
        """What an attempt is worth: its return, by the weights of the other task's rewards."""
        earned = {self.reward_names[0]: _reward(graded), **graded.components}
        weights = (1.0,) * len(self.reward_names) if self.reward_weights is None else self.reward_weights
        return sum(weight * earned.get(name, 0.0) for name, weight in zip(self.reward_names, weights, strict=True))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The other task's, as often as there are attempts."""
        for _ in range(self.attempts):
            yield from self.of.solution(split, index)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The same of a wrong one."""
        for _ in range(self.attempts):
            yield from self.of.corrupted(split, index)

    def solutions(self, split: Split, index: int) -> list[str]:
        """The other task's solution, where it has one."""
        try:
            return list(self.of.solution(split, index))
        except NotImplementedError:
            return []

    def start_states(self, split: Split) -> int | None:
        return self.of.start_states(split)

    def checkable(self, split: Split, index: int) -> bool:
        return self.of.checkable(split, index)

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def plan(self, text: str) -> Plan | None:
        return self.of.plan(text)


def _says(text: str, answer: str) -> bool:
    """Whether an answer stands in a text, not as a part of another word or number."""
    return re.search(rf"(?<![\w.]){re.escape(answer)}(?!\.?\w)", text) is not None


def _reward(step: Step) -> float:
    return float(step.reward if step.turn_rewards is None else sum(step.turn_rewards))


def from_spec(argument: str | None, options: Mapping[str, Any]) -> ImproveTask:
    """``improve:TASK[,attempts=16,shown=2,feedback=score,judged=best,divergence=0.2,option=value]``; others are the
    task's options."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task improve needs another task, such as improve:routes")
    kinds: dict[str, type] = {"attempts": int, "shown": int, "feedback": str, "judged": str, "divergence": float}
    own = {name: _read(name, value, kinds[name]) for name, value in options.items() if name in kinds}
    further = [f"{name}={value}" for name, value in options.items() if name not in kinds]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task improve:{argument}: is not played in text")
    return ImproveTask(task, **own)


def _read(name: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"task improve: {name} = {value}: must be a number") from None
