"""The smallest policy over steps: a softmax for every look of a state, and a critic that adds up what was said."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.policy import NodeInputs
from stratagem.parts import View
from stratagem.planning.steps import Ask, Judged, Kind, Place, Step
from stratagem.seeding import uniform
from stratagem.training.heads import Perceptron
from stratagem.training.module_policy import ModulePolicy
from stratagem.training.world import check_asked

Q = TypeVar("Q")


class Walk(NamedTuple, Generic[Q]):
    """A question and what was said to it so far. said: look and choice of every token.  at: what it came to."""

    question: Q
    said: tuple[tuple[int, int], ...]
    at: Hashable


class StepWorld(Protocol[Q]):
    """What questions look like to a table, and what choices lead to.

    looks, choices: how many there are.  most: tokens of a path at most.
    """

    @property
    def looks(self) -> int: ...
    @property
    def choices(self) -> int: ...
    @property
    def most(self) -> int: ...

    def start(self, question: Q) -> Walk[Q]:
        """Before the first token."""

    def look(self, walk: Walk[Q], kind: Kind) -> int:
        """Row of the table that the next token is chosen by."""

    def then(self, walk: Walk[Q], choice: int, kind: Kind) -> Walk[Q]:
        """After it."""

    def ended(self, walk: Walk[Q]) -> bool:
        """Whether a final answer was given."""

    def answer(self, walk: Walk[Q]) -> Hashable | None:
        """That answer; None where there is none."""

    def right(self, walk: Walk[Q]) -> bool:
        """Whether it is the truth."""


class StepTable(ModulePolicy):
    """``pi(c | look) = softmax(logits[look])_c``; ``v = base[n] + sum (worth[look, c] + trust log pi(c | look))``.

    The critic reads a path as a sum over the ``n`` tokens said in it, whatever their order; like a head on a model's
    hidden states it can tell how sure the policy was of them, which it does not move. ``after`` is the path as
    features: a count of every pair of look and choice, the number of tokens as one of ``most + 1`` columns, and
    ``sum log pi``.

    logits: float [looks, choices], where learning starts.  most: tokens of a path at most.
    """

    kind: ClassVar[str] = "steps"
    says: ClassVar[frozenset[str]] = frozenset({"value_after", "after", "entropy"})

    def __init__(self, logits: Float[Tensor, "looks choices"], most: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().float().clone())
        self.worth = nn.Parameter(torch.zeros_like(self.logits))
        self.base = nn.Parameter(torch.zeros(most + 1))
        self.trust = nn.Parameter(torch.zeros(()))

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs) or x.action is None:
            raise ValueError(f"a table over steps reads NodeInputs and actions, not {type(x.inputs).__name__}")
        look, choice = x.inputs.node, x.action
        every = torch.log_softmax(self.logits / temperature, -1)
        logp = every[look, choice]
        sure = torch.log_softmax(self.logits.detach(), -1)[look, choice]
        return PolicyOutput(
            logp,
            torch.special.entr(every.exp()).sum(-1)[look] if "entropy" in also else None,
            value_after=self._values(x, look, choice, sure) if "value_after" in also else None,
            after=self._features(x, look, choice, sure) if "after" in also else None,
        )

    def _values(self, x: Experience, look: Tensor, choice: Tensor, sure: Tensor) -> Float[Tensor, " tokens"]:
        said = self.worth[look, choice] + self.trust * sure
        return self.base[1 + x.trajectory_of_token.position()] + _running(said.unsqueeze(1), x)[:, 0]

    @torch.no_grad()
    def _features(self, x: Experience, look: Tensor, choice: Tensor, sure: Tensor) -> Float[Tensor, "tokens width"]:
        pair = look * self.logits.shape[1] + choice
        said = torch.nn.functional.one_hot(pair, self.logits.numel()).float()
        place = torch.nn.functional.one_hot(1 + x.trajectory_of_token.position(), len(self.base)).float()
        return torch.cat([_running(torch.cat([said, sure.unsqueeze(1)], 1), x), place], 1)

    def head(self, place: Literal["before", "after"], hidden: int, source: torch.Generator) -> Perceptron:
        """A map from the features of a path. Raises :class:`InputError` for those before a token."""
        if place == "before":
            raise InputError("a table over steps has features after a step only")
        return Perceptron(self.logits.numel() + 1 + len(self.base), hidden, source)

    def policy_parameters(self) -> Iterator[Tensor]:
        """The logits."""
        yield self.logits

    def critic_parameters(self) -> Iterator[Tensor]:
        """What tokens are worth."""
        yield from (self.worth, self.base, self.trust)

    def arguments(self) -> dict[str, Any]:
        """Sizes."""
        looks, choices = self.logits.shape
        return {"looks": looks, "choices": choices, "most": len(self.base) - 1}


def _running(values: Float[Tensor, "tokens width"], x: Experience) -> Float[Tensor, "tokens width"]:
    """Sums from the beginning of each trajectory up to each token."""
    sums, first = values.cumsum(0), x.trajectory_of_token.first()
    before = sums[first] - values[first]
    number = torch.zeros(x.tokens, dtype=torch.int64, device=values.device).index_fill(0, first, 1).cumsum(0) - 1
    return sums - before[number]


@dataclass
class TableSteps(Generic[Q]):
    """A table that proposes steps in a world, judges states by its critic, and reads paths again.

    A ``reason`` or ``reflect`` step is one token; a ``finish`` step all that are left to the answer.

    temperature: of proposals, above 0; 0: the likeliest choice, always.
    """

    world: StepWorld[Q]
    policy: StepTable
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"table_steps.temperature = {self.temperature}: must be at least 0 and finite")
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """The weights have moved."""
        logits = self.policy.logits.double()
        if self.temperature == 0:
            odds = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[1]).double()
        else:
            odds = torch.softmax(logits / self.temperature, -1)
        self._odds, self._bounds = odds, odds.cumsum(-1)
        worth = self.policy.worth + self.policy.trust * torch.log_softmax(self.policy.logits, -1)
        self._worth: list[list[float]] = worth.tolist()
        self._base: list[float] = self.policy.base.tolist()

    def propose(self, asks: Sequence[Ask[Walk[Q]]]) -> list[list[Step[Walk[Q]]]]:
        """Steps for every ask, each drawn by itself; none from a state that has ended, but to reflect."""
        going = [ask for ask in asks if self._goes_on(ask)]
        looks = [self.world.look(ask.state, ask.kind) for ask in going]
        drawn = iter(self._drawn(looks, [ask.seed for ask in going], max((ask.number for ask in going), default=0)))
        return [self._steps(ask, next(drawn)[: ask.number]) if self._goes_on(ask) else [] for ask in asks]

    def judge(self, places: Sequence[Place[Walk[Q]]]) -> list[Judged]:
        """``tanh`` of the critic's value of every state."""
        return [Judged(math.tanh(self.value(place.state))) for place in places]

    def record(self, paths: Sequence[tuple[Walk[Q], Sequence[Step[Walk[Q]]]]]) -> Experience:
        """A batch with one trajectory for each path, one turn for each step, every trajectory a group."""
        ends = [steps[-1].state for _, steps in paths]
        walks = [(root, end) for (root, _), end in zip(paths, ends, strict=True) if end is not None]
        if len(walks) < len(paths):
            raise InputError("a path that cannot be read cannot be recorded")
        said = [end.said[len(root.said) :] for root, end in walks]
        tokens = [pair for one in said for pair in one]
        lengths = torch.tensor([len(one) for one in said])
        return Experience.from_lengths(
            [step.tokens for _, steps in paths for step in steps],
            [len(steps) for _, steps in paths],
            [1] * len(paths),
            inputs=NodeInputs(torch.tensor([look for look, _ in tokens]), lengths),
            action=torch.tensor([choice for _, choice in tokens]),
        )

    def _goes_on(self, ask: Ask[Walk[Q]]) -> bool:
        return len(ask.state.said) < self.world.most and (ask.kind == "reflect" or not self.world.ended(ask.state))

    def _drawn(self, looks: Sequence[int], seeds: Sequence[int], count: int) -> list[list[int]]:
        if not looks:
            return []
        numbers = uniform(torch.tensor(seeds).unsqueeze(1), torch.arange(count))
        bounds = self._bounds[torch.tensor(looks)]
        choices: list[list[int]] = torch.searchsorted(bounds, numbers * bounds[:, -1:], right=True).tolist()
        return choices

    def _steps(self, ask: Ask[Walk[Q]], choices: Sequence[int]) -> list[Step[Walk[Q]]]:
        return [self._step(ask, choice, number) for number, choice in enumerate(choices)]

    def _step(self, ask: Ask[Walk[Q]], choice: int, number: int) -> Step[Walk[Q]]:
        walk, said, odds = ask.state, [choice], float(self._odds[self.world.look(ask.state, ask.kind), choice])
        walk = self.world.then(walk, choice, ask.kind)
        while ask.kind == "finish" and not self.world.ended(walk) and len(walk.said) < self.world.most:
            look = self.world.look(walk, "reason")
            [row] = self._drawn([look], [ask.seed], (number + 1) * (len(said) + 1) * self.world.most)
            odds *= float(self._odds[look, row[-1]])
            said.append(row[-1])
            walk = self.world.then(walk, row[-1], "reason")
        prior = odds ** (1 / len(said))
        return Step((ask.kind, *said), walk, prior, len(said), self.world.ended(walk), self.world.answer(walk))

    def value(self, walk: Walk[Q]) -> float:
        """What the critic says of a state, before ``tanh``."""
        return self._base[len(walk.said)] + sum(self._worth[look][choice] for look, choice in walk.said)
