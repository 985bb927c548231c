"""Beliefs in words: another task, whose policy sees no history but what a belief model makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from statistics import fmean
from typing import Any, Literal

from stratagem.beliefs.judges import Judgement, ObservedEnvironment, ObservedTask, ask_judge, by_rule
from stratagem.beliefs.scores import combined, correctness, task_credit, tracking
from stratagem.beliefs.text import PROBABILITY, claims, diversity, format_gate, written
from stratagem.errors import InputError
from stratagem.helpers.named import helper
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

BELIEF, POLICY = 0, 1
"""Roles: who writes the belief, and who acts on it."""

LABELS = ", ".join(PROBABILITY)
HINT = (
    "Write what you believe after the new observation, in 8 to 20 lines `- claim: label`. Say what is new, and drop "
    f"what it contradicts. Labels: {LABELS}."
)
NO_BELIEF = "(none)"
NOTED = ("gate", "tracking", "correctness", "diversity", "belief_reward", "brier", "brier_first", "brier_last")
"""Figures of an episode's beliefs; those of claims that could not be verified are 0."""

LONGEST_BELIEF = 4000
"""Characters of a belief that are handed on."""

Pay = Literal["beliefs", "outcome"]


@dataclass(frozen=True)
class Believed:
    """A belief that was written: its gate and its terms, those unknown None, and its Brier score."""

    gate: float
    track: float | None
    right: float | None
    diverse: float
    brier: float | None

    def reward(self, result: float, left: int, discount: float) -> float:
        """Gate times the mean of the terms, with the credit of an episode that ended ``left`` beliefs later."""
        return combined(self.gate, (self.track, self.right, self.diverse, task_credit(result, left, discount)))


class BeliefTask(Task):
    """Another task, played by two roles (arXiv 2605.11436): one writes what it believes, the other acts on it.

    Role 0 reads the goal, its last belief and the new observation, and writes the new belief, lines ``- claim: label``
    with seven labels. Role 1 reads the goal, that belief and the last observation, and acts. Every turn of either is a
    conversation of its own, so that nobody reads a history and prompts do not grow with the episode. The goal is what
    the task opens with: its system message and first observation.

    Belief ``k`` of ``T`` earns ``gate (tracking + correctness + diversity + discount^(T - k) success) / 4``, of which
    terms that nobody can judge are left out (see :mod:`stratagem.beliefs`). It is paid in its own turn, as soon as the
    end is known; turns of role 1 earn what the task pays. A recipe that looks at returns alone adds both up.

    Noted without pay, as means over beliefs: :data:`NOTED`; ``brier`` is over claims that the task can verify, with
    labels read as probabilities, and so is that of the first and of the last belief.

    of: the task.  judge: ``rule``, for a task that can be asked about claims; ``none``: no tracking and no correctness;
    else a helper by name (see :func:`stratagem.helpers.named.helper`), which judges correctness only where the task
    knows the truth. Where it is down, what it would have said is left out.  pay: ``beliefs``, as above, or
    ``outcome``: only role 1 is paid.  discount: in [0, 1].  belief_tokens: limit on tokens of a belief, and of an
    action.

    Raises :class:`InputError` for a rule where the task has none, a judge that is none, and values out of range.
    """

    description = "another task, whose policy sees a belief in words in place of the history"

    def __init__(
        self,
        of: Task,
        judge: str | None = None,
        pay: Pay = "beliefs",
        discount: float = 0.9,
        belief_tokens: int = 256,
    ) -> None:
        if isinstance(of, BeliefTask):
            raise InputError("task 'belief': of a task with beliefs is not allowed; name the task itself")
        observed = isinstance(of, ObservedTask)
        judge = judge or ("rule" if observed else "none")
        if judge == "rule" and not observed:
            raise InputError(
                f"task 'belief': judge=rule is not allowed with {of.name!r}, which cannot be asked about claims; it "
                "must be none or a helper"
            )
        if judge not in ("rule", "none"):
            helper(judge)
        if pay not in ("beliefs", "outcome"):
            raise InputError(f"task 'belief': pay={pay!r} is not allowed; it must be beliefs or outcome")
        if not 0 <= discount <= 1:
            raise InputError(f"task 'belief': discount={discount} is not allowed; it must lie in 0..1")
        if not 1 <= belief_tokens <= 100_000:
            raise InputError(f"task 'belief': belief_tokens={belief_tokens} is not allowed; it must lie in 1..100000")
        self.of, self.judge, self.pay, self.discount = of, judge, pay, discount
        self.name = f"belief:{of.name}"
        self.max_turns = 2 * of.max_turns
        self.max_new_tokens = max(of.max_new_tokens, belief_tokens)
        self.stop = of.stop
        self.system = of.system
        paid = dict(zip(of.reward_names, of.reward_weights or (1.0,) * len(of.reward_names), strict=True))
        paid |= {name: 0.0 for name in NOTED if name not in paid}
        self.reward_names, self.reward_weights = tuple(paid), tuple(paid.values())

    def environment(self, split: Split, index: int) -> BeliefEnvironment:
        return BeliefEnvironment(self, self.of.environment(split, index), index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The actions of the task, with the belief of its perfect observer where it has one."""
        return self._with_beliefs(split, index, self.of.solution(split, index))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Actions that do not solve the task, whatever is believed."""
        return self._with_beliefs(split, index, self.of.corrupted(split, index))

    def checkable(self, split: Split, index: int) -> bool:
        return self.of.checkable(split, index)

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def _with_beliefs(self, split: Split, index: int, actions: Iterator[str]) -> Iterator[str]:
        inner = self.of.environment(split, index)
        try:
            inner.reset()
            for action in actions:
                yield perfect_belief(inner)
                yield action
                if inner.step(action).done:
                    return
        finally:
            inner.close()


class BeliefEnvironment(Environment):
    """One episode. Its state is the task's, with the belief and whose turn it is.

    beliefs: what was written so far.
    """

    def __init__(self, task: BeliefTask, inner: Environment, index: int) -> None:
        self.task, self.inner, self._seed = task, inner, index

    def reset(self) -> Observation:
        self._seen = self.inner.reset()
        self._goal = "\n".join(filter(None, (self.task.of.system, self._seen.text)))
        self._belief = NO_BELIEF
        self._turns = 0
        self._earned: list[float] = []
        self.beliefs: list[Believed] = []
        return self._observe(BELIEF)

    def step(self, action: str) -> Step:
        self._turns += 1
        return self._acted(action) if len(self.beliefs) * 2 == self._turns else self._believed(action)

    def close(self) -> None:
        self.inner.close()

    def _believed(self, text: str) -> Step:
        belief = text.strip()[:LONGEST_BELIEF]
        after = claims(belief)
        judgement = self._judge(belief)
        brier = None
        if isinstance(self.inner, ObservedEnvironment):
            said = [(claim.probability, self.inner.truth(claim.text)) for claim in after]
            errors = [(p - true) ** 2 for p, true in said if p is not None and true is not None]
            brier = fmean(errors) if errors else None
        self.beliefs.append(
            Believed(
                format_gate(after),
                None if judgement.tracked is None else tracking(*judgement.tracked, len(after)),
                None if judgement.checked is None else correctness(*judgement.checked),
                diversity(after),
                brier,
            )
        )
        self._belief = belief or NO_BELIEF
        self._earned.append(0.0)
        return Step(self._observe(POLICY), well_formed=self.beliefs[-1].gate > 0)

    def _judge(self, belief: str) -> Judgement:
        if self.task.judge == "none":
            return Judgement()
        inner = self.inner
        if self.task.judge == "rule":
            assert isinstance(inner, ObservedEnvironment)
            return by_rule(claims(self._belief), claims(belief), inner)
        truth = inner.state() if isinstance(inner, ObservedEnvironment) else None
        return ask_judge(helper(self.task.judge), self._belief, self._seen.text, belief, truth, self._seed)

    def _acted(self, action: str) -> Step:
        step = self.inner.step(action)
        self._seen = step.observation
        self._earned.append(step.reward)
        if not step.done:
            return replace(step, observation=self._observe(BELIEF), turn_rewards=None)
        rewards = self._earned if step.turn_rewards is None else self._interleaved(step.turn_rewards)
        paid = self._paid(float(step.success))
        if self.task.pay == "beliefs":
            rewards = list(chain.from_iterable(zip(paid, rewards[1::2], strict=True)))
        # Of an episode that was cut, a critic is asked what the policy would have read.
        return replace(
            step,
            observation=self._observe(POLICY),
            reward=rewards[-1],
            turn_rewards=rewards,
            components={**step.components, **self._noted(paid)},
        )

    def _interleaved(self, rewards: Sequence[float]) -> list[float]:
        """What the task says of its own turns, with 0 for beliefs."""
        return list(chain.from_iterable(zip(repeat(0.0), rewards)))

    def _paid(self, result: float) -> list[float]:
        """The reward of every belief."""
        last = len(self.beliefs) - 1
        return [b.reward(result, last - k, self.task.discount) for k, b in enumerate(self.beliefs)]

    def _noted(self, paid: list[float]) -> dict[str, float]:
        brier = [belief.brier for belief in self.beliefs]
        means: tuple[Sequence[float | None], ...] = (
            [b.gate for b in self.beliefs],
            [b.track for b in self.beliefs],
            [b.right for b in self.beliefs],
            [b.diverse for b in self.beliefs],
            paid,
            brier,
            brier[:1],
            brier[-1:],
        )
        return {name: _mean(values) for name, values in zip(NOTED, means, strict=True)}

    def _observe(self, role: int) -> Observation:
        told = f"Observation: {self._seen.text}"
        text = f"Goal: {self._goal}\nBelief:\n{self._belief}\n{told}"
        opening: list[dict[str, str]] = []
        if role == BELIEF:
            opening.append({"role": "system", "content": HINT})
        elif self.task.of.system is not None:
            opening.append({"role": "system", "content": self.task.of.system})
        opening.append({"role": "user", "content": text})
        key = state_key("belief", self._seen.state_key, self._belief, role)
        return Observation(text, key, role, self._turns, tuple(opening))


def perfect_belief(inner: Environment) -> str:
    """What its perfect observer believes; of a task without one, that there is something to do."""
    return (
        inner.belief() if isinstance(inner, ObservedEnvironment) else written([("the goal is not reached", "certain")])
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else 0.0


def from_spec(argument: str | None, options: Mapping[str, Any]) -> BeliefTask:
    """``belief:TASK[,judge=rule,pay=beliefs,discount=0.9,belief_tokens=256,option=value]``; the others are TASK's."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task belief needs another task, such as belief:rooms")
    own = {name: options[name] for name in ("judge", "pay", "discount", "belief_tokens") if name in options}
    further = [f"{name}={value}" for name, value in options.items() if name not in own]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task belief:{argument}: is not played in text")
    try:
        numbers: dict[str, Any] = {
            name: kind(own[name]) for name, kind in (("discount", float), ("belief_tokens", int)) if name in own
        }
    except ValueError as error:
        raise InputError(f"task 'belief': {error}") from None
    return BeliefTask(task, own.get("judge"), own.get("pay", "beliefs"), **numbers)
