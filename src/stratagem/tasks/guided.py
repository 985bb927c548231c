"""Any text task with copies of its problems that begin part of the way along the task's own solution."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from stratagem.errors import InputError
from stratagem.sampling.guided import Prefix, prefix_lengths
from stratagem.tasks.mixture import Composite
from stratagem.tasks.structured import Plan
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, restated

INSTRUCTION = "A solution begins like this. Go on from where it stops, without repeating it:"
"""What tells the policy to build on a partial solution; the published wording was not available."""

_BORDER = re.compile(r"\n+|(?<=[.;!?])[ \t]+")


def solution_steps(text: str) -> list[str]:
    """The text cut behind line breaks and sentences, but never inside braces or ``$``: joined, they are the text."""
    ends = [found.end() for found in _BORDER.finditer(text) if found.end() < len(text)]
    borders = [0, *(end for end in ends if _closed(text[:end])), len(text)]
    return [text[begin:end] for begin, end in pairwise(borders) if end > begin]


def _closed(text: str) -> bool:
    """Whether no brace and no formula is open at the end."""
    plain = re.sub(r"\\[{}$]", "", text)
    return plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0


def gives_away(task: Task, question: str, prefix: str, solution: str) -> bool:
    """Whether a prefix says what the solution answers: it can be read as that answer, or the answer stands in it.

    What stands in the question already is no secret, unless it is said as the answer. A task whose answers are whole
    texts, as proofs are, has nothing to give away but the whole.
    """
    answer = task.answer(solution)
    if answer is None:
        return False
    if task.answer(prefix) == answer:
        return True
    if answer == solution.strip():
        return False
    wanted = re.compile(rf"(?<![\w.]){re.escape(answer)}(?!\.?\w)")
    return wanted.search(prefix) is not None and wanted.search(question) is None


@dataclass(frozen=True)
class Guidance:
    """How far each problem of a task is led.

    task: its specification.  prefixes: by number of the problem.

    A problem that is solved without guidance is not hard, and left out; one of length 0 that is not solved has no
    solution that could be shown, and stays without.
    """

    task: str
    prefixes: Mapping[int, Prefix] = field(default_factory=dict)

    @property
    def hard(self) -> tuple[int, ...]:
        """The problems that are not solved without guidance, in their order."""
        return tuple(problem for problem, prefix in self.prefixes.items() if prefix.length or not prefix.solved)

    @property
    def counts(self) -> dict[str, int]:
        """Problems by what was found: easy ones, hard ones that are led, that not even that helps, that cannot be."""
        led = [prefix for prefix in self.prefixes.values() if prefix.length]
        return {
            "easy": len(self.prefixes) - len(self.hard),
            "led": len(led),
            "unsolved": sum(not prefix.solved for prefix in led),
            "without_solution": len(self.hard) - len(led),
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        rows = [{"problem": number, **vars(prefix)} for number, prefix in self.prefixes.items()]
        Path(path).write_text(json.dumps({"task": self.task, "prefixes": rows}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Guidance:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the file is missing or wrong."""
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = [(row["problem"], row["length"], row["solved"]) for row in plain["prefixes"]]
            task = plain["task"]
        except OSError as error:
            raise InputError(f"prefixes {path}: cannot be read ({type(error).__name__})") from None
        except (ValueError, TypeError, KeyError):
            raise InputError(f"prefixes {path}: is not what stratagem guide writes") from None
        for number, length, solved in rows:
            whole = [type(value) is int and value >= 0 for value in (number, length)]
            if not all(whole) or not isinstance(solved, bool):
                raise InputError(
                    f"prefixes {path}: problem {number!r}, length {length!r}, solved {solved!r}: must be two numbers "
                    "of at least 0 and true or false"
                )
        return cls(str(task), {number: Prefix(length, solved) for number, length, solved in rows})


@dataclass(frozen=True)
class Beginning:
    """What a problem is led by: turns to be played again, or a text that the first turn goes on with."""

    turns: tuple[str, ...] = ()
    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.turns or self.text)


class GuidedTask(Task):
    """``of``, in which every problem is two start states: number ``2 p`` is led, ``2 p + 1`` begins as it always does.

    Where the solver takes several turns, the first of them are played, and the episode begins behind them: the prompt
    is the conversation so far. A solution of one turn is cut between steps (lines or sentences); the question is then
    followed by an instruction to go on from the beginning of a solution, and the first turn is judged as that
    beginning and what the policy wrote. Nothing of either is the policy's, so none of it trains. A led episode has
    as many turns left as the task leaves it, and is paid for its own alone. Test episodes are those of ``of``.

    ``guided`` is a further reward that counts nothing: 1 where an episode was led.

    of: the task.  guidance: its hard problems, which take the place of all, over and over, and how many steps each is
    led; None: every problem is hard, and led ``share`` of its solution, or less where that gives the answer away.
    longest: characters that may be shown of a solution; the last steps are left out until it fits. None: any number.

    Raises :class:`InputError` for a task made of several, one that has such a reward already, guidance without a hard
    problem, and, in an episode, for a length that gives the answer away.
    """

    description = "another task, with copies of its problems that begin part of the way along a solution"

    def __init__(
        self,
        of: Task,
        guidance: Guidance | None = None,
        share: Annotated[float, Gt(0), Le(1)] = 0.25,
        longest: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        if isinstance(of, Composite):
            raise InputError(f"task {of.name!r}: is made of several tasks, of which each has to be guided by itself")
        if "guided" in of.reward_names:
            raise InputError(f"task {of.name!r}: already has a reward 'guided'")
        if not 0 < share <= 1:
            raise InputError(f"task guided: share = {share}: must be in (0, 1]")
        if longest is not None and longest < 1:
            raise InputError(f"task guided: longest = {longest}: must be at least 1")
        if guidance is not None and not guidance.hard:
            raise InputError("task guided: no problem of its prefixes is hard")
        self.of, self.guidance, self.share, self.longest = of, guidance, share, longest
        self.name = f"guided:{of.name}"
        self.max_turns, self.max_new_tokens, self.stop, self.system = (
            of.max_turns,
            of.max_new_tokens,
            of.stop,
            of.system,
        )
        weights = (1.0,) * len(of.reward_names) if of.reward_weights is None else of.reward_weights
        self.reward_names, self.reward_weights = (*of.reward_names, "guided"), (*weights, 0.0)

    # ---- problems --------------------------------------------------------------------------------------------------

    def begin(self, split: Split, index: int) -> tuple[int, Beginning]:
        """The problem of an episode, and what it is led by."""
        if split == "test":
            return index, Beginning()
        number, unguided = divmod(index, 2)
        problem = number if self.guidance is None else self.guidance.hard[number % len(self.guidance.hard)]
        if unguided:
            return problem, Beginning()
        if self.guidance is not None:
            return problem, self.beginning(problem, self.guidance.prefixes[problem].length)
        return problem, self.beginning(problem, max(self.lengths(problem), default=0))

    def lengths(self, problem: int, increment: float = 0.05) -> list[int]:
        """How many steps of its solution a problem may be led: up to ``share``, without giving the answer away."""
        steps = self._steps(problem)
        return [n for n in prefix_lengths(len(steps), self.share, increment) if not self._gives_away(problem, n)]

    def beginning(self, problem: int, length: int) -> Beginning:
        """The first steps of the solution of a problem; none where there is no solution."""
        steps = self._steps(problem)
        if not length or not steps:
            return Beginning()
        if length >= len(steps):
            raise InputError(f"task {self.name}: problem {problem}: a prefix of {length} of {len(steps)} steps is all")
        if self._gives_away(problem, length):
            raise InputError(f"task {self.name}: problem {problem}: its first {length} steps give the answer away")
        shown = steps[:length]
        if self.longest is not None:
            written = accumulate(len(step) for step in shown)
            shown = shown[: sum(total <= self.longest for total in written)]
        return Beginning(turns=tuple(shown)) if self._in_turns(problem) else Beginning(text="".join(shown))

    def _solution(self, problem: int) -> list[str]:
        try:
            return list(self.of.solution("train", problem))
        except NotImplementedError:
            return []

    def _in_turns(self, problem: int) -> bool:
        return len(self._solution(problem)) > 1

    def _steps(self, problem: int) -> list[str]:
        said = self._solution(problem)
        return solution_steps(said[0]) if len(said) == 1 else said

    def _gives_away(self, problem: int, length: int) -> bool:
        """In turns, what was done shows what the environment lets see, and the last turn is the policy's."""
        if self._in_turns(problem):
            return False
        environment = self.of.environment("train", problem)
        try:
            question = environment.reset().text
        finally:
            environment.close()
        [solution] = self._solution(problem)
        return gives_away(self.of, question, "".join(solution_steps(solution)[:length]), solution)

    # ---- the task --------------------------------------------------------------------------------------------------

    def environment(self, split: Split, index: int) -> Environment:
        problem, beginning = self.begin(split, index)
        environment = self.of.environment(split, problem)
        return GuidedEnvironment(environment, beginning, self.of) if beginning else environment

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """What is left of the other task's."""
        return self._rest(split, index, self.of.solution)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """What is left of the other task's when as many steps are taken from it."""
        return self._rest(split, index, self.of.corrupted)

    def checkable(self, split: Split, index: int) -> bool:
        """Not where what is left of the corrupted solution is what is left of the right one."""
        problem, beginning = self.begin(split, index)
        if not self.of.checkable(split, problem):
            return False
        return not beginning or list(self.solution(split, index)) != list(self.corrupted(split, index))

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def plan(self, text: str) -> Plan | None:
        return self.of.plan(text)

    def _rest(self, split: Split, index: int, actions: Callable[[Split, int], Iterator[str]]) -> Iterator[str]:
        problem, beginning = self.begin(split, index)
        said = list(actions(split, problem))
        if beginning.turns:
            return iter(said[len(beginning.turns) :])
        if beginning.text:
            steps = len(solution_steps(beginning.text))
            return iter(["".join(solution_steps(said[0])[steps:]), *said[1:]])
        return iter(said)


class TrialTask(GuidedTask):
    """Problems each led as far as is tried: start state ``n`` is ``trials[n]``, a problem and a length."""

    trials: tuple[tuple[int, int], ...] = ()

    def begin(self, split: Split, index: int) -> tuple[int, Beginning]:
        problem, length = self.trials[index]
        return problem, self.beginning(problem, length)


class GuidedEnvironment(Environment):
    """An environment that is led the beginning of a solution before the policy acts."""

    def __init__(self, of: Environment, beginning: Beginning, task: Task) -> None:
        self._of, self._beginning, self._task = of, beginning, task
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        observation = self._of.reset()
        if self._beginning.text:
            shown = self._beginning.text.rstrip()
            return restated(observation, lambda question: f"{question}\n\n{INSTRUCTION}\n{shown}")
        return self._led(observation)

    def _led(self, observation: Observation) -> Observation:
        """What is seen after the first turns, with the conversation so far."""
        system = [] if self._task.system is None else [{"role": "system", "content": self._task.system}]
        said = [dict(message) for message in observation.opening]
        said = said or [*system, {"role": "user", "content": observation.text}]
        for action in self._beginning.turns:
            step = self._of.step(action)
            if step.done:
                raise ValueError("the beginning of the solution ended the episode")
            if step.observation.context != observation.context:
                raise ValueError("the beginning of the solution went on in another conversation")
            said += [{"role": "assistant", "content": action}, {"role": "user", "content": step.observation.text}]
            observation = step.observation
        return replace(observation, opening=tuple(said))

    def step(self, action: str) -> Step:
        first, led = not self._turn, len(self._beginning.turns)
        self._turn += 1
        step = self._of.step(self._beginning.text + action if first else action)
        if step.turn_rewards is not None:
            step = replace(step, turn_rewards=tuple(step.turn_rewards)[led:])
        if first:
            step = replace(step, components={**step.components, "guided": 1.0})
        if not step.done and led + self._turn >= self._task.max_turns:
            step = replace(step, done=True, truncated=True)
        return step

    def close(self) -> None:
        self._of.close()


def from_spec(argument: str | None, options: Mapping[str, Any]) -> GuidedTask:
    """``guided:TASK[,prefixes=PATH,share=0.25,longest=CHARACTERS,option=value]``; others are the task's options."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task guided needs another task, such as guided:key_door")
    own = ("prefixes", "share", "longest")
    further = [f"{name}={value}" for name, value in options.items() if name not in own]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task guided:{argument}: is not played in text")
    path = options.get("prefixes")
    share, longest = (_number(options, name, kind) for name, kind in (("share", float), ("longest", int)))
    return GuidedTask(
        task,
        None if path is None else Guidance.load(path),
        0.25 if share is None else share,
        longest,  # type: ignore[arg-type]
    )


def _number(options: Mapping[str, Any], name: str, kind: type[float] | type[int]) -> float | int | None:
    if name not in options:
        return None
    try:
        return kind(options[name])
    except ValueError:
        raise InputError(f"task guided: {name}={options[name]}: must be a number") from None
