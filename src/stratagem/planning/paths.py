"""What is learned from searches: paths with a value for every step, as a batch, and a policy that learns from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Objective
from stratagem.planning.steps import Found, Solution, Step, StepJudge, StepPolicy
from stratagem.planning.tree import LEAST
from stratagem.seeding import derive, generator
from stratagem.training.microbatches import microbatches

S = TypeVar("S")


class Learner(Protocol):
    """A policy as an objective asks it."""

    def __call__(self, x: Experience, *, also: Sequence[str] = ()) -> PolicyOutput: ...
    def policy_parameters(self) -> Iterator[Tensor] | list[Any]: ...
    def critic_parameters(self) -> Iterator[Tensor] | list[Any]: ...


class StepLearner(StepPolicy[S], StepJudge[S], Protocol[S]):
    """A policy that proposes steps, judges states by its critic, and can read paths again to learn from them.

    policy: of the weights.
    """

    @property
    def policy(self) -> Any: ...

    def record(self, paths: Sequence[tuple[S, Sequence[Step[S]]]]) -> Experience:
        """A batch with one trajectory for each path from a root, one turn for each step; one group per trajectory."""

    def refresh(self) -> None:
        """The weights have moved."""


@dataclass(frozen=True, slots=True)
class Path(Generic[S]):
    """A solution to learn from. targets: for every step.  right: whether its answer is."""

    root: S
    steps: tuple[Step[S], ...]
    targets: tuple[float, ...]
    right: bool


def chosen_paths(root: S, found: Found[S], most: int, seed: int) -> list[Path[S]]:
    """At most so many right and so many wrong solutions of a question, drawn without replacement, none twice.

    Targets are the search's values of the steps; that of the last step is the reward. Two solutions are the same when
    the same was said in all steps; the first is kept. Raises ``ValueError`` for solutions without a reward.
    """
    kept: dict[tuple[object, ...], Solution[S]] = {}
    for solution in found.solutions:
        kept.setdefault(tuple(step.said for step in solution.steps), solution)
    paths: list[Path[S]] = []
    for right in (True, False):
        sides = [one for one in kept.values() if (_earned(one) >= LEAST) == right]
        order = torch.randperm(len(sides), generator=generator(seed, "paths", int(right)))[:most]
        for place in sorted(order.tolist()):
            one = sides[place]
            paths.append(Path(root, one.steps, (*one.values[:-1], _earned(one)), right))
    return paths


def _earned(solution: Solution[Any]) -> float:
    if solution.reward is None:
        raise ValueError("paths can only be learned from where the search was given a reward")
    return solution.reward


def labelled(x: Experience, paths: Sequence[Path[Any]]) -> Experience:
    """The batch of these paths with what a loss reads of them.

    ``advantage``: 1 for the tokens of right paths, 0 for others.  ``value_target``: at the last token of every step
    its target, 0 elsewhere; ``critic_mask`` says where there is one.  ``success``: whether a path is right.
    """
    last = x.turn_of_token.last()
    right = torch.tensor([path.right for path in paths], dtype=torch.bool)
    ends = torch.zeros(x.tokens, dtype=torch.bool).index_fill(0, last.cpu(), True)
    targets = torch.tensor([target for path in paths for target in path.targets], dtype=torch.float32)
    filled = torch.nonzero(x.turn_of_token.size().cpu() > 0).squeeze(1)
    return x.replace(
        advantage=x.to_tokens(trajectory=right.float().to(x.device)),
        value_target=torch.zeros(x.tokens).index_copy(0, last.cpu(), targets[filled]).to(x.device),
        critic_mask=ends.to(x.device),
        success=right.to(x.device),
    )


@dataclass(frozen=True)
class Fitting:
    """How weights are fitted to a batch: Adam over shuffled mini-batches of whole paths.

    learning_rate: above 0.  epochs: passes.  batch: paths of a mini-batch.  max_grad_norm: longer gradients are scaled
    down to it.  microbatch_tokens: most positions in one forward pass; changes no number.

    Raises :class:`InputError` for a number out of range.
    """

    learning_rate: float = 1e-2
    epochs: int = 1
    batch: int = 32
    max_grad_norm: float = 1.0
    microbatch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"fitting.{name} = {getattr(self, name)}: must be above 0")
        for name in ("epochs", "batch", "microbatch_tokens"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"fitting.{name} = {number}: must be at least 1")

    def __call__(self, policy: Learner, objective: Objective, x: Experience, seed: int) -> float:
        """Fit a policy in place; the mean loss over the last pass, 0 without paths.

        Raises :class:`BrokenRunError` when a loss is not finite.
        """
        parameters = [*policy.policy_parameters(), *policy.critic_parameters()]
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        also = sorted(name.removeprefix("output.") for name in objective.needs() if name.startswith("output."))
        mean = 0.0
        for epoch in range(self.epochs):
            order = torch.randperm(x.trajectories, generator=generator(seed, "epoch", epoch))
            pieces = order.split(self.batch) if x.trajectories else ()
            losses = [self._step(policy, objective, x.select(piece), optimizer, parameters, also) for piece in pieces]
            mean = sum(losses) / len(losses) if losses else 0.0
        return mean

    def _step(
        self,
        policy: Learner,
        objective: Objective,
        x: Experience,
        optimizer: torch.optim.Optimizer,
        parameters: list[Any],
        also: Sequence[str],
    ) -> float:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for piece in microbatches(x, self.microbatch_tokens):
            loss = objective(policy(piece, also=also), piece).loss
            if not bool(loss.isfinite()):
                raise BrokenRunError(f"{objective.part_name()}: the loss is {float(loss.detach())}")
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        optimizer.step()
        return total


def learn_from(
    learner: StepLearner[S], objective: Objective, paths: Sequence[Path[S]], fitting: Fitting, seed: int
) -> float:
    """Fit a learner to paths; the mean loss over the last pass. Without paths nothing happens, and it is 0."""
    if not paths:
        return 0.0
    x = labelled(learner.record([(path.root, path.steps) for path in paths]), paths)
    loss = fitting(learner.policy, objective, x, derive(seed, "fit"))
    learner.refresh()
    return loss


def relabelled(path: Path[S], targets: Sequence[float]) -> Path[S]:
    """The same path with other targets."""
    return replace(path, targets=tuple(targets))
