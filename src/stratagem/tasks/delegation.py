"""Any task that is answered in a tag, with a planner who hands sub-tasks to sub-agents and sees only their results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from stratagem.errors import InputError
from stratagem.tasks.answers import holds_any
from stratagem.tasks.tags import contents, first_tag, in_form
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

PLANNER, EXECUTOR = 0, 1
"""Roles (``Observation.role``): the main agent, in context 0, and sub-agents, each call in a context of its own."""

NO_RESULT = "no result"
"""What the planner is told of a sub-agent that did not answer within its turns."""

LONGEST_RESULT = 400
"""Letters of a result; what is longer is cut."""

COUNTED = ("calls", "errors", "cost", "malformed")
"""Rewards of the task that add up over all its agents; the others are those of the planner's answer."""

HINT = (
    "Answer the question. You have no tools: hand out one sub-task after the other as `<task>...</task>`, with all "
    "that is needed to solve it, and you are told its result. Then answer with `<answer>...</answer>`. Think in "
    "`<think>...</think>` before."
)
EXECUTOR_HINT = "When you have read something, note what matters in `<refine>...</refine>`."
_USAGE = "error: write <task>...</task> or <answer>...</answer>"


class Subtask(NamedTuple):
    """Something to find out, and actions that do, the last of them with its answer in an ``answer`` tag."""

    text: str
    actions: tuple[str, ...]


class AnswerTask(Task):
    """A task whose episodes end with ``<answer>...</answer>`` and that knows which answers are right.

    ``tags``: of an episode in form, each at least once.
    """

    tags: tuple[str, ...] = ("think", "answer")

    @abstractmethod
    def right_answers(self, split: Split, index: int) -> tuple[str, ...]:
        """All that would be right, at least one."""

    def subtasks(self, split: Split, index: int) -> tuple[Subtask, ...]:
        """Sub-tasks that lead to the answer when they are solved one after the other; by default the task itself."""
        environment = self.environment(split, index)
        try:
            text = environment.reset().text
        finally:
            environment.close()
        return (Subtask(text, tuple(self.solution(split, index))),)


@dataclass
class Call:
    """A sub-agent at work: its task, its environment, its context, and what it said."""

    task: str
    environment: Environment
    context: int
    said: list[str] = field(default_factory=list)


class DelegatedTask(AnswerTask):
    """``of``, played by a planner without tools and sub-agents who have them.

        planner   (context 0, role 0)  <think>first her mentor</think><task>Who was the mentor of Ada Finch?</task>
        executor  (context 1, role 1)  <think>a search</think><search>mentor Ada Finch</search>
                                       <refine>it was Dov Holm</refine><answer>Dov Holm</answer>
        planner   (context 0)          <result>Dov Holm</result> is told, and so on until <answer>...</answer>

    Every call is a conversation of its own (contexts 1, 2, ...) that opens with the sub-task alone and is thrown away:
    an executor acts in a fresh environment of the task's episode, whose question it is not shown, and ends with its
    answer or with that environment. The planner is told its answer, at most :data:`LONGEST_RESULT` letters, or
    :data:`NO_RESULT`. The planner's own answer goes to the task as it is and earns what it earns there.

    The first ``task`` or ``answer`` of a planner's turn is what it does. A turn with neither, and an empty task, are
    told what to write, count as ``malformed`` and take their turn. A planner out of turns earns nothing (truncated).

    Rewards are those of the task, where counts (:data:`COUNTED`) are sums over all agents and ``format`` is 1 when the
    planner and all executors are in form, and beside them, noted without pay: ``planner_format``, whether each of
    ``think``, ``task`` and ``answer`` is there and opened as often as closed, and no ``result``; ``executor_format``,
    the mean over calls of the same for the task's own tags and ``refine``, and 0 without a call;
    ``refine``, 1 when any ``refine`` of any executor contains a right answer; ``delegations``, the number of calls.
    The roles and these rewards are those of arXiv 2512.12716 (its released code). Ours are the bound on results, that a
    policy must not write what it is told (``result``, ``information``), and that a note contains an answer as whole
    words: the code looks for its letters, and finds ``no`` in ``nothing``.

    of: the task.  planner_turns: 1 to 100.  The turns of an executor are the task's ``max_turns``.

    Raises :class:`InputError` for a task that does not say what is right, or a number out of range.
    """

    description = "another task, whose agent hands sub-tasks to agents of their own contexts"

    def __init__(self, of: Task, planner_turns: int = 6) -> None:
        if not isinstance(of, AnswerTask) or isinstance(of, DelegatedTask):
            raise InputError(f"task {of.name!r}: cannot be delegated; it must be answered in <answer>...</answer>")
        if not 1 <= planner_turns <= 100:
            raise InputError(f"task 'delegated': planner_turns={planner_turns} is not allowed; it must be 1 to 100")
        self.of, self.planner_turns = of, planner_turns
        self.name = f"delegated:{of.name}"
        self.max_turns = planner_turns + (planner_turns - 1) * of.max_turns
        self.max_new_tokens = of.max_new_tokens
        self.stop = tuple(dict.fromkeys((*of.stop, "</task>", "</answer>")))
        self.system = HINT
        paid = dict(zip(of.reward_names, of.reward_weights or (1.0,) * len(of.reward_names), strict=True))
        noted = ("malformed", "format", "planner_format", "executor_format", "refine", "delegations")
        paid |= {name: 0.0 for name in noted if name not in paid}
        self.reward_names, self.reward_weights = tuple(paid), tuple(paid.values())

    @property
    def executor_system(self) -> str:
        """What an executor is told."""
        return EXECUTOR_HINT if self.of.system is None else f"{self.of.system} {EXECUTOR_HINT}"

    def environment(self, split: Split, index: int) -> DelegatedEnvironment:
        return DelegatedEnvironment(self, split, index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The sub-tasks of the task, and its answer; the answer at once where there are too few turns."""
        subtasks = self.of.subtasks(split, index)
        if len(subtasks) < self.planner_turns:
            for subtask in subtasks:
                yield f"<think>I have to find this out.</think><task>{subtask.text}</task>"
                yield from subtask.actions
        yield self._last(self.of.solution(split, index))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """A sub-task, and a wrong answer."""
        if self.planner_turns > 1:
            subtask = self.of.subtasks(split, index)[0]
            yield f"<task>{subtask.text}</task>"
            yield from subtask.actions
        yield self._last(self.of.corrupted(split, index))

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def right_answers(self, split: Split, index: int) -> tuple[str, ...]:
        return self.of.right_answers(split, index)

    @staticmethod
    def _last(actions: Iterator[str]) -> str:
        *_, last = actions
        return last


class DelegatedEnvironment(Environment):
    """One episode. A planner's state is the question and what it was told; an executor's its task and environment."""

    def __init__(self, task: DelegatedTask, split: Split, index: int) -> None:
        self.task = task
        self._episode: tuple[Split, int] = (split, index)
        self._right = task.right_answers(split, index)
        self._judge = task.of.environment(split, index)  # of the planner's answer
        self._call: Call | None = None

    def reset(self) -> Observation:
        if self._call is not None:
            self._call.environment.close()
            self._call = None
        self._question = self._judge.reset().text
        self._said: list[str] = []
        self._told: list[tuple[str, str]] = []
        self._formed: list[float] = []
        self._refined = False
        return self._to_planner(self._question)

    def step(self, action: str) -> Step:
        return self._planned(action) if self._call is None else self._executed(self._call, action)

    def close(self) -> None:
        self._judge.close()
        if self._call is not None:
            self._call.environment.close()

    def _planned(self, action: str) -> Step:
        """What a turn of the planner leads to."""
        self._said.append(action)
        tag, content = first_tag(action, "task", "answer") or ("", "")
        if tag == "answer":
            step = self._judge.step(action)
            if step.done:
                return self._end(step)
        delegates = tag == "task" and content != ""
        counted = {} if delegates else {"malformed": 1.0}
        if len(self._said) >= self.task.planner_turns:
            return self._end(Step(self._to_planner(""), truncated=True, components=counted))
        return Step(self._opened(content) if delegates else self._to_planner(_USAGE), components=counted)

    def _opened(self, task: str) -> Observation:
        """A new call; what its executor reads."""
        environment = self.task.of.environment(*self._episode)
        self._call = Call(task, environment, len(self._formed) + 1)
        state = environment.reset().state_key
        opening = (
            {"role": "system", "content": self.task.executor_system},
            {"role": "user", "content": task},
        )
        return self._to_executor(self._call, task, state, opening)

    def _executed(self, call: Call, action: str) -> Step:
        """What a turn of an executor leads to."""
        call.said.append(action)
        step = call.environment.step(action)
        counted = {name: value for name, value in step.components.items() if name in COUNTED}
        if not step.done:
            told = self._to_executor(call, step.observation.text, step.observation.state_key)
            return Step(told, components=counted)
        tags = (*self.task.of.tags, "refine")
        self._formed.append(float(in_form(call.said, tags, forbidden=("information", "result"))))
        notes = [note for said in call.said for note in contents(said, "refine")]
        self._refined |= any(holds_any(note, self._right) for note in notes)
        answer = next(iter(contents(action, "answer")), "").strip()
        result = answer[:LONGEST_RESULT] if answer and not step.truncated else NO_RESULT
        self._told.append((call.task, result))
        call.environment.close()
        self._call = None
        return Step(self._to_planner(f"<result>{result}</result>"), components=counted)

    def _end(self, step: Step) -> Step:
        """The last step, with all that is noted."""
        planned = float(in_form(self._said, ("think", "task", "answer"), forbidden=("result",)))
        executed = sum(self._formed) / len(self._formed) if self._formed else 0.0
        noted = {
            **step.components,
            "format": float(planned == executed == 1),
            "planner_format": planned,
            "executor_format": executed,
            "refine": float(self._refined),
            "delegations": float(len(self._formed)),
        }
        return replace(step, observation=self._to_planner("the end"), done=True, components=noted)

    def _to_planner(self, text: str) -> Observation:
        return Observation(text, state_key("delegated", self._question, self._told, text), PLANNER)

    def _to_executor(
        self, call: Call, text: str, state: int, opening: tuple[Mapping[str, str], ...] = ()
    ) -> Observation:
        return Observation(text, state_key("executor", call.task, state), EXECUTOR, call.context, opening)


def from_spec(argument: str | None, options: Mapping[str, Any]) -> DelegatedTask:
    """``delegated:TASK[,planner_turns=6,option=value]``; the other options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task delegated needs another task, such as delegated:search")
    further = [f"{name}={value}" for name, value in options.items() if name != "planner_turns"]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task delegated:{argument}: is not played in text")
    turns = str(options.get("planner_turns", 6))
    if not turns.isdecimal():
        raise InputError(f"task 'delegated': planner_turns={turns!r} is not allowed; it must be 1 to 100")
    return DelegatedTask(task, int(turns))
