"""What a search over steps is given and gives back: policies that propose, judges that value, solutions found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.seeding import derive

S = TypeVar("S")
Kind = Literal["reason", "finish", "reflect"]
"""What a step is to do: go on, come to the answer, or look again at an answer that was given."""


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One step: what was said, and the state it leads to.

    said: equal steps from one state are duplicates.  state: all that was said so far; None: it cannot be read, and
    nothing follows.  prior: how likely the policy was to say it, its tokens' geometric mean, in [0, 1].
    tokens: how many it sampled.  ended: whether a final answer was given.  answer: that answer, None without one.
    """

    said: Hashable
    state: S | None
    prior: float = 1.0
    tokens: int = 0
    ended: bool = False
    answer: Hashable | None = None


class Place(NamedTuple, Generic[S]):
    """A state to be judged. depth: steps up to it.  seed: of all that is random in the judgement."""

    state: S
    depth: int
    seed: int


class Ask(NamedTuple, Generic[S]):
    """What a policy is asked for: so many steps from a state.

    number: of steps.  kind: what they are to do.  seed: everything random follows from it.
    """

    state: S
    depth: int
    seed: int
    number: int = 1
    kind: Kind = "reason"


class Judged(NamedTuple):
    """What a state is worth, and how many tokens it took to find out."""

    value: float
    tokens: int = 0


class StepPolicy(Protocol[S]):
    """Says what may come next."""

    def propose(self, asks: Sequence[Ask[S]]) -> Sequence[Sequence[Step[S]]]:
        """Steps for every ask, at most as many as it asks for; none where nothing can follow."""


class StepJudge(Protocol[S]):
    """Says what states are worth."""

    def judge(self, places: Sequence[Place[S]]) -> Sequence[Judged]:
        """The value of every state, in their order."""


Reward = Callable[[S], float]
"""What a state with a final answer is worth, where the truth is known."""


@dataclass(frozen=True, slots=True)
class Solution(Generic[S]):
    """A path from a question to an answer.

    values: what the search made of every step.  score: by which it was compared with others.
    reward: where the truth was known, else None.
    """

    steps: tuple[Step[S], ...]
    values: tuple[float, ...]
    score: float
    reward: float | None = None

    @property
    def state(self) -> S:
        """The last one."""
        state = self.steps[-1].state
        assert state is not None
        return state

    @property
    def answer(self) -> Hashable | None:
        """The one it came to."""
        return self.steps[-1].answer


@dataclass(frozen=True)
class Found(Generic[S]):
    """What a search found for one question.

    solutions: all paths to an answer, in the order in which they were found.  chosen: the one it stands by, None
    without any.  tokens: sampled in all, by policy and judge.  statistics: figures of the search, by name.
    """

    solutions: tuple[Solution[S], ...]
    chosen: Solution[S] | None
    tokens: int
    statistics: Mapping[str, float]


@dataclass(frozen=True)
class Search(Part):
    """A way to look for solutions: ``search(roots, policy, judge, reward, seed, tokens) -> found``.

    depth: most steps of a path; one that goes on after them is lost.  distinct: a step that was said before from the
    same state is dropped, the first is kept.
    """

    kind: ClassVar[str] = "search"

    depth: Annotated[int, Ge(1)] = 8
    distinct: bool = True

    def __call__(
        self,
        roots: Sequence[S],
        policy: StepPolicy[S],
        judge: StepJudge[S] | None = None,
        reward: Reward[S] | None = None,
        seed: int = 0,
        tokens: int | None = None,
    ) -> list[Found[S]]:
        """Look for solutions of all questions side by side, so that policy and judge are asked in batches.

        roots: their states before the first step.  judge: may only be missing where the search values no state.
        reward: of answers, where the truth is known; None: the judge values them, too.
        tokens: per question; once they are spent no more is looked for (the last round may spend more). None: no bound.

        What is found for a question follows from its root, its place among the roots, and the seed; not from the other
        questions. Raises :class:`InputError` for a judge that is missing and fewer tokens than 1.
        """
        raise NotImplementedError

    def _check(self, judge: Any, needed: bool, tokens: int | None) -> None:
        if needed and judge is None:
            raise InputError(f"{self.part_name()}: needs a judge to value states")
        if tokens is not None and tokens < 1:
            raise InputError(f"{self.part_name()}: tokens = {tokens}: must be at least 1, or None for no bound")


@dataclass(frozen=True)
class Rollouts(Generic[S]):
    """A judge that lets the policy go on to the end: mean reward of ``max(floor(most / (depth + 1)), least)`` tries.

    A try that comes to no answer within ``depth`` steps of the question earns ``lost``.

    policy: that goes on.  reward: of answers.  most, least: tries of the root and of deep states.

    Raises :class:`InputError` for numbers out of range.
    """

    policy: StepPolicy[S]
    reward: Reward[S]
    most: int = 20
    least: int = 5
    depth: int = 8
    lost: float = 0.0

    def __post_init__(self) -> None:
        for name in ("most", "least", "depth"):
            if getattr(self, name) < 1:
                raise InputError(f"rollouts.{name} = {getattr(self, name)}: must be at least 1")

    def tries(self, depth: int) -> int:
        """How many there are from a state of this depth."""
        return max(self.most // (depth + 1), self.least)

    def judge(self, places: Sequence[Place[S]]) -> list[Judged]:
        """Mean reward of the tries from every state; all tries of all states go on side by side."""
        earned, spent = [0.0] * len(places), [0] * len(places)
        going = [
            (number, Ask(place.state, place.depth, derive(place.seed, "try", one)))
            for number, place in enumerate(places)
            for one in range(self.tries(place.depth))
        ]
        while going:
            further = []
            for (number, ask), steps in zip(going, self.policy.propose([ask for _, ask in going]), strict=True):
                spent[number] += sum(step.tokens for step in steps)
                step = steps[0] if steps else None
                if step is None or step.state is None:
                    earned[number] += self.lost
                elif step.ended:
                    earned[number] += self.reward(step.state)
                elif ask.depth + 1 >= self.depth:
                    earned[number] += self.lost
                else:
                    further.append((number, Ask(step.state, ask.depth + 1, (ask.seed + 1) % 2**63)))
            going = further
        return [
            Judged(total / self.tries(place.depth), cost)
            for total, cost, place in zip(earned, spent, places, strict=True)
        ]
