"""What a task is: episodes by seed, text in and text out, with its own proof that its verifier can be trusted."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from stratagem.tasks.structured import Plan

Split = Literal["train", "test"]

_SEARCHED = 50


def state_key(*parts: object) -> int:
    """A stable signed 64-bit key of ``parts`` (by their ``repr``): equal states have equal keys in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def answer_key(answer: object | None) -> int:
    """A stable key of an answer, at least 0: equal answers have equal keys; -1 for None, which is none."""
    return -1 if answer is None else state_key(answer) & (2**63 - 1)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy reads before it acts.

    ``state_key`` identifies the true state when the environment knows it and the observation text otherwise;
    step-level methods compare turns by it. ``role`` numbers who acts next (0 unless several roles share a policy).

    ``context`` numbers the conversation in which this is read and answered. Conversations of an episode know nothing of
    each other; each may be gone on with whenever its number comes again. A number that is new opens an empty one: with
    the messages of ``opening`` (``{"role": ..., "content": ...}``), or without them as every episode opens, with the
    task's system message and ``text``. So a sub-agent gets a number of its own, and an agent that rewrites what it
    remembers goes on under a new one.
    """

    text: str
    state_key: int
    role: int = 0
    context: int = 0
    opening: tuple[Mapping[str, str], ...] = ()


def restated(observation: Observation, change: Callable[[str], str]) -> Observation:
    """The observation with its text changed; of one with an opening, the first question there."""
    if not observation.opening:
        return replace(observation, text=change(observation.text))
    asked = next((place for place, message in enumerate(observation.opening) if message["role"] == "user"), 0)
    opening = [dict(message) for message in observation.opening]
    opening[asked]["content"] = change(opening[asked]["content"])
    return replace(observation, opening=tuple(opening))


@dataclass(frozen=True, slots=True)
class Step:
    """What one action led to.

    ``reward`` is this turn's reward. ``done`` ends the episode; ``truncated`` says it ended by a limit of the
    environment rather than in a terminal state. ``success`` is what evaluation counts and is read on the last step.
    ``components`` are further named rewards of the whole trajectory (added up over turns), one for each name in
    the task's ``reward_names`` after the first.

    ``executed``: False when the environment could not carry the action out: unintelligible text, or an action that is
    impossible where it was tried.

    ``turn_rewards``: for a task where later turns decide what earlier ones were worth, the rewards of all turns so far,
    this one last. They take the place of ``reward`` and of all that was said of these turns before. None: earlier turns
    keep what they have.

    ``ran``: whether the program, query or other tool call that the action made was carried out; None: it made none.
    ``well_formed``: whether the action was in the task's format; an advantage may give one that was not no credit.
    """

    observation: Observation
    reward: float = 0.0
    done: bool = False
    truncated: bool = False
    success: bool = False
    components: Mapping[str, float] = field(default_factory=dict)
    turn_rewards: Sequence[float] | None = None
    ran: bool | None = None
    executed: bool = True
    well_formed: bool = True


class Environment(ABC):
    """One episode. Everything random in it follows from the seed it was built with."""

    @abstractmethod
    def reset(self) -> Observation:
        """Start the episode and return its first observation."""

    @abstractmethod
    def step(self, action: str) -> Step:
        """Take the policy's text as an action. Unintelligible text is a legal action with a defined outcome."""

    def close(self) -> None:
        """Release what the episode holds. Called once, also after an error."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What :meth:`Task.check` did: how many solutions were accepted and how many corrupted ones rejected."""

    episodes: int
    solutions_accepted: int
    corruptions_rejected: int


class AnyTask(Protocol):
    """What every task says of itself, of whatever kind. ``family`` decides which policies can act in it."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def family(self) -> str: ...


class Task(ABC):
    """Episodes a policy is trained and evaluated on.

    ``name``: how the command line calls it. ``description``: one line. ``max_turns``: turn limit per episode.
    ``max_new_tokens``: token limit per turn. ``stop``: strings that end a turn (the chat format's own end token
    always does). ``system``: optional system message. ``reward_names``: the columns of the trajectory reward; the
    first is the sum of turn rewards. ``reward_weights``: what each column counts in the return, None: 1 each; at 0 it
    is noted and pays nothing.
    """

    name: str
    description: str
    max_turns: int = 1
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    system: str | None = None
    reward_names: tuple[str, ...] = ("reward",)
    reward_weights: tuple[float, ...] | None = None
    family: ClassVar[str] = "text"

    @abstractmethod
    def environment(self, split: Split, index: int) -> Environment:
        """The episode with this number. Equal arguments give equal episodes; no test episode is a train episode."""

    @abstractmethod
    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Actions that solve the episode, in order. Raises ``NotImplementedError`` where no solver exists."""

    @abstractmethod
    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Actions that look like a solution of the episode and are not."""

    def candidates(self, split: Split, index: int) -> Sequence[Sequence[str]]:
        """All there is to do in an episode, each as the actions of its turns, for samplers that try everything once.

        Raises ``NotImplementedError`` where that cannot be listed, which is the rule.
        """
        raise NotImplementedError(f"task {self.name!r} does not list what there is to do")

    def after(self, split: Split, index: int, attempts: Sequence[str]) -> Environment:
        """The episode with this number behind earlier attempts at it: its first observation shows them.

        Raises ``NotImplementedError`` for a task in which nothing is attempted again, which is the rule.
        """
        raise NotImplementedError(f"task {self.name!r} has no attempts that could be improved")

    def start_states(self, split: Split) -> int | None:
        """The number of different episodes of a split; None: there is no end of them, or nobody counted."""
        return None

    def answer(self, text: str) -> str | None:
        """What an episode's last action says, so that equal answers are equal text; None where it says nothing.

        A group votes by it. By default all of the text but the space around it.
        """
        return text.strip() or None

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        """What each of these actions, taken from the start of the episode, is after, as a demonstrator would say."""
        return ["solve the task"] * len(actions)

    def plan(self, text: str) -> Plan | None:
        """Where in the text of a turn its parts lie; None where turns have no parts but the action."""
        return None

    def check(self, episodes: int = 20, split: Split = "train") -> CheckReport:
        """Prove that the verifier accepts the task's own solutions and rejects corrupted ones.

        Raises ``AssertionError`` naming the episode when it does not, and when too few episodes can be checked.
        """
        numbers = list(islice(filter(partial(self.checkable, split), range(_SEARCHED * episodes)), episodes))
        for index in numbers:
            if not self._replay(split, index, self.solution(split, index)):
                raise AssertionError(f"{self.name}: {split} episode {index}: the task's own solution was rejected")
            if self._replay(split, index, self.corrupted(split, index)):
                raise AssertionError(f"{self.name}: {split} episode {index}: a corrupted solution was accepted")
        if len(numbers) < episodes:
            raise AssertionError(
                f"{self.name}: only {len(numbers)} of {_SEARCHED * episodes} {split} episodes can be checked"
            )
        return CheckReport(episodes, episodes, episodes)

    def checkable(self, split: Split, index: int) -> bool:
        """Whether an episode has both a solution and a corrupted one: not where every action is right."""
        return True

    def _replay(self, split: Split, index: int, actions: Iterator[str]) -> bool:
        environment = self.environment(split, index)
        try:
            environment.reset()
            for _, action in zip(range(self.max_turns), actions, strict=False):
                step = environment.step(action)
                if step.done:
                    return step.success
            return False
        finally:
            environment.close()
