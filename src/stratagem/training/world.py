"""What the loop asks of a policy and of the place it acts in; language and control each have one of both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.partition import Partition
from stratagem.parts import Sampler, View
from stratagem.recipe import Recipe
from stratagem.training.journal import Journal

PROBED = 2**20
"""Batches that are only measured are numbered from here, so that what they sample is their own."""


class FrozenPolicy(Protocol):
    """A policy that only says what it said before training."""

    def __call__(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """As :class:`Policy` does, without gradients."""
        ...


class Policy(Protocol):
    """A policy that can be asked again about what it did.

    says: fields of :class:`PolicyOutput` it can be asked for beside ``logp``.  views: kinds of views it answers in.
    """

    @property
    def says(self) -> frozenset[str]: ...

    @property
    def views(self) -> tuple[type[View], ...]: ...

    def __call__(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probabilities of every action in ``x`` and what ``also`` names, with gradients, in row order.

        view: how the actions are looked at; None: as they were chosen. Raises :class:`InputError` (by
        :func:`check_asked`) for what the policy does not say, or a view it does not know.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes; batches are brought there."""
        ...

    def policy_parameters(self) -> Iterable[Tensor]:
        """Trainable parameters of the policy itself."""
        ...

    def critic_parameters(self) -> Iterable[Tensor]:
        """Trainable parameters that only the value uses."""
        ...

    def hidden_matrices(self) -> Iterable[Tensor]:
        """Those of the policy's parameters that are weights of linear maps between hidden features.

        Float [outputs, inputs, ...], with axes behind the second for a kernel. No embedding, no table, and no layer
        that reads the observation or gives the action: what an optimizer for matrices may step as a whole.
        """
        ...

    def view_parameters(self, view: View | None) -> Iterable[Tensor]:
        """Trainable parameters that only this view uses, the same ones whenever asked; most views have none."""
        ...

    def frozen(self) -> FrozenPolicy:
        """What it was before training, or a copy of what it is: to measure KL against."""
        ...

    def copy(self) -> Self:
        """A copy of all that was learned, which no longer moves by itself; its state may be overwritten."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything learned, by name, as torch modules have it; what a checkpoint holds."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore what :meth:`state_dict` returned. Raises ``RuntimeError`` when it does not fit."""
        ...

    def save(self, directory: Path, card: str, /) -> None:
        """Write the policy for others to use, with a model card."""
        ...


@dataclass(frozen=True, eq=False)
class Prompts:
    """How likely a policy finds the prompts of a batch, equal ones once.

    logp: of every token given those before it; the first one of a prompt has none.  prompt_of_token: by prompt.
    prompt_of_trajectory: number of the prompt that each trajectory answers.
    """

    logp: Float[Tensor, " tokens"]
    prompt_of_token: Partition
    prompt_of_trajectory: Int[Tensor, " trajectories"]


@runtime_checkable
class PromptReader(Protocol):
    """A policy that is a model of what it reads as well, and so can say how likely a prompt was."""

    def prompt_logp(self, x: Experience, *, temperature: float = 1.0) -> Prompts:
        """Of all that the policy reads in each trajectory before it first acts."""
        ...


class _Asked(Protocol):
    @property
    def says(self) -> frozenset[str]: ...

    @property
    def views(self) -> tuple[type[View], ...]: ...


def check_asked(policy: _Asked, also: Collection[str], view: View | None) -> None:
    """Raise :class:`InputError` naming what this policy cannot be asked for."""
    kind = type(policy).__name__
    lacking = sorted(set(also) - policy.says)
    if lacking:
        raise InputError(f"{kind} does not say {', '.join(lacking)}; it says {', '.join(sorted(policy.says))}")
    if view is not None and not isinstance(view, policy.views):
        known = ", ".join(known.part_name() for known in policy.views) or "none"
        raise InputError(f"{kind} has no view {view.part_name()}; it has {known}")
    unsaid = sorted(name for name in also if view is not None and f"output.{name}" in view.forbids)
    if view is not None and unsaid:
        raise InputError(f"{kind} does not say {', '.join(unsaid)} in the view {view.part_name()}")


@dataclass(frozen=True)
class Collected:
    """What one call of :meth:`World.collect` brought.

    x: the batch; None when every episode was lost, empty when the sampler rejected every group.
    tokens: how many the policy wrote (or actions it took), whatever became of them; a run's budget counts these.
    metrics: what happened (``reward``, ``success``, ``episodes/failed``, ``timing/...``).
    samples: a few episodes a person can read, as plain data.
    begun: numbers (:attr:`Experience.episode`) of all training episodes that were begun for it, for the ledger; None
    where the world does not account for them.  failed: those of them that failed.
    """

    x: Experience | None
    tokens: int
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    begun: Sequence[int] | None = None
    failed: Sequence[int] = ()


@dataclass(frozen=True)
class Evaluation:
    """How a policy did on held-out episodes.

    mode: ``sampled`` (as in training) or ``greedy`` (the most likely action).  success: share of episodes, or None
    where the task knows no success.  interval: 95 % interval of the success (Wilson), or of the mean return
    (normal) without success.  returns: mean, and its standard deviation over episodes.
    """

    mode: Literal["sampled", "greedy"]
    episodes: int
    success: float | None
    interval: tuple[float, float]
    mean_return: float
    std_return: float
    mean_length: float
    failed: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)


class World(Protocol):
    """A task and a policy acting in it. Everything random follows from the seed it was built with and its own state."""

    @property
    def policy(self) -> Policy:
        """What acts and learns."""
        ...

    @property
    def task_name(self) -> str:
        """How the task is called."""
        ...

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with what this kind of task needs set differently (such as its sampler)."""
        ...

    def serve(self, version: int) -> None:
        """From now on act with the policy's present weights, as ``version``."""
        ...

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Roll out what the sampler asks for, with the weights last served. Sets ``behavior_logp``."""
        ...

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """Play held-out episodes, the same ones each time, from number ``first`` on, without disturbing training."""
        ...

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that :meth:`collect` depends on beside policy, seed and step: tensors, and plain JSON data."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        ...

    def close(self) -> None:
        """Release environments and workers."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A world that can be told to give up what it is collecting."""

    def interrupt(self) -> None:
        """From now on raise in :meth:`World.collect` as soon as the present turn is over. Called by another thread."""
        ...


@runtime_checkable
class Journaling(Protocol):
    """A world that can take finished episodes from a journal instead of playing them again."""

    def keep(self, journal: Journal) -> None:
        """From now on enter every training episode that ends, and take those that are there."""
        ...


@runtime_checkable
class BuildsPolicy(Protocol):
    """A world whose fresh policy is made as the recipe asks."""

    def build_policy(self, recipe: Recipe) -> None:
        """From now on act with a policy of ``recipe.architecture``, a fresh one where none was given.

        Raises :class:`InputError` when the policy that was given is of another one.
        """
        ...
