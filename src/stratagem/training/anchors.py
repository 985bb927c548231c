"""The weights a proximal policy asks for: kept, averaged, and asked about a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives.proximal import IterationStart, MovingAverage, SamplingVersion
from stratagem.parts import Proximal
from stratagem.training.weights import learned, put, taken
from stratagem.training.world import FrozenPolicy, Policy

Ask = Callable[[FrozenPolicy, Experience], Float[Tensor, " tokens"]]
"""Log-probabilities of a batch under a policy, as the recipe asks for them."""


class Anchor(ABC):
    """Sets ``old_logp`` as one kind of :class:`Proximal` wants it; told of every change of the weights.

    Each call is given the proximal as it is in the recipe at that time, for schedules may have changed its numbers.
    """

    def served(self, proximal: Any, version: int) -> None:
        """From now on rollouts are sampled with the policy's present weights, as ``version``."""

    def moved(self, proximal: Any, active: float) -> None:
        """The policy has taken an optimizer step from a loss in which this share of the tokens was active."""

    def refused(self, proximal: Any) -> None:
        """A step was not taken, since no token was active."""

    @abstractmethod
    def fill(self, proximal: Any, x: Experience, ask: Ask) -> Experience:
        """The batch with ``old_logp`` set."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that does not follow from the policy."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""


@singledispatch
def anchor(proximal: Proximal, policy: Policy) -> Anchor:
    """What keeps the weights that a proximal asks for; a new kind of proximal registers its own.

    Raises :class:`InputError` for a kind nobody has registered.
    """
    raise InputError(f"proximal {proximal.part_name()}: the trainer does not know which weights to keep for it")


@anchor.register
def _(proximal: SamplingVersion, policy: Policy) -> Anchor:
    return Snapshots(policy) if proximal.route == "snapshots" else Recorded()


@anchor.register
def _(proximal: MovingAverage, policy: Policy) -> Anchor:
    return Averaged(policy)


@anchor.register
def _(proximal: IterationStart, policy: Policy) -> Anchor:
    return Kept(policy)


# ---- exact ----------------------------------------------------------------------------------------------------------


class Snapshots(Anchor):
    """The weights of the last versions that sampled, in main memory, and one policy that takes them on in turn."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._asked = policy.copy()
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._present: int | None = None

    def served(self, proximal: SamplingVersion, version: int) -> None:
        """Keep the present weights, too, and no more versions than ``proximal.keep``."""
        if version not in self._kept:
            self._kept[version] = taken(self._policy)
        self._present = version
        for old in sorted(self._kept)[: -proximal.keep]:
            del self._kept[old]

    def moved(self, proximal: SamplingVersion, active: float) -> None:
        """The policy is no longer the one that was served."""
        self._present = None

    def fill(self, proximal: SamplingVersion, x: Experience, ask: Ask) -> Experience:
        """Ask every version in the batch about the trajectories it took part in, and keep what it says of its own.

        Raises :class:`InputError` for tokens of versions that are not kept, unless they are to be masked.
        """
        versions = torch.full((x.tokens,), -1, device=x.device) if x.version is None else x.version
        rows, said, gone = [], [], []
        for version in versions.unique().tolist():
            own = versions == version
            if version not in self._kept:
                gone.append(version)
                continue
            piece = x.microbatch(x.trajectory_of_token.sum(own) > 0)
            assert piece.parent is not None
            here = piece.parent[1]
            rows.append(here[own[here]])
            said.append(ask(self._as_of(version), piece)[own[here]])
        known = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        old_logp = torch.zeros(x.tokens, device=x.device)
        if rows:
            known[torch.cat(rows)] = True
            values = torch.cat(said)
            old_logp = old_logp.to(values.dtype).index_copy(0, torch.cat(rows), values)
        kept = f"{len(self._kept)}, from {min(self._kept)} to {max(self._kept)}" if self._kept else "none"
        why = f"version {', '.join(map(str, gone))} is not kept (kept: {kept}; raise proximal.keep = {proximal.keep})"
        return _with_old_logp(proximal, x, old_logp, known, "no version tags" if x.version is None else why)

    def _as_of(self, version: int) -> Policy:
        """The policy with the weights of a version."""
        if version == self._present:
            return self._policy
        put(self._asked, self._kept[version])
        return self._asked

    def state_dict(self) -> dict[str, Tensor]:
        """Every snapshot."""
        return {f"{version}.{name}": t for version, kept in self._kept.items() for name, t in kept.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore them."""
        self._kept, self._present = {}, None
        for path, tensor in tensors.items():
            version, name = path.split(".", 1)
            self._kept.setdefault(int(version), {})[name] = tensor.clone()


class Kept(Anchor):
    """A policy with the weights as they were when an iteration began, and how many batches have begun."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._start = policy.copy()
        self._batches = torch.zeros((), dtype=torch.int64)

    def served(self, proximal: IterationStart, version: int) -> None:
        """One more batch begins; where it is the first of an iteration, keep the present weights."""
        if int(self._batches) % proximal.every == 0:
            put(self._start, learned(self._policy))
        self._batches += 1

    def fill(self, proximal: IterationStart, x: Experience, ask: Ask) -> Experience:
        """Ask the kept policy about every token."""
        return x.replace(old_logp=ask(self._start, x))

    def state_dict(self) -> dict[str, Tensor]:
        """Both."""
        kept = self._start.state_dict()
        return {"batches": self._batches, **{f"start.{name}": kept[name] for name in learned(self._policy)}}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore them. Raises ``KeyError`` when something is missing."""
        self._batches = tensors["batches"].clone()
        put(self._start, {name: tensors[f"start.{name}"] for name in learned(self._policy)})


class Recorded(Anchor):
    """Takes what was noted when the token was sampled; NaN is no note."""

    def fill(self, proximal: SamplingVersion, x: Experience, ask: Ask) -> Experience:
        """``old_logp`` is ``version_logp``. Raises :class:`InputError` where there is none, unless it may be masked."""
        noted = torch.full((x.tokens,), torch.nan, device=x.device) if x.version_logp is None else x.version_logp
        known = ~noted.isnan()
        why = "no version_logp was recorded as they were sampled"
        return _with_old_logp(proximal, x, torch.where(known, noted, 0.0), known, why)


def _with_old_logp(
    proximal: SamplingVersion, x: Experience, old_logp: Tensor, known: Bool[Tensor, " tokens"], why: str
) -> Experience:
    """The batch with ``old_logp``; tokens without are masked, or refused with the reason."""
    lost = int((x.learnable() & ~known).sum())
    if not lost:
        return x.replace(old_logp=old_logp)
    if proximal.missing == "raise":
        raise InputError(
            f"proximal {proximal.part_name()}: {lost} of {x.tokens} tokens have no old log-probability: {why}; "
            "with proximal.missing = mask they are left out"
        )
    return x.replace(old_logp=old_logp, mask=x.learnable() & known)


# ---- approximate ----------------------------------------------------------------------------------------------------


class Averaged(Anchor):
    """A policy with the exponentially weighted mean of the weights since the last reset, and the sum of the shares."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._mean = policy.copy()
        self._weight = torch.ones((), dtype=torch.float64)

    @torch.no_grad()
    def moved(self, proximal: MovingAverage, active: float) -> None:
        """``w <- 1 + beta w``, ``mean <- mean + (theta - mean) / w``; with too few active tokens both start over."""
        decay = 0.0 if active < proximal.reset_below else proximal.decay
        self._weight = 1 + decay * self._weight
        mean, share = self._mean.state_dict(), float(1 / self._weight)
        for name, tensor in learned(self._policy).items():
            mean[name].lerp_(tensor.to(mean[name].dtype), share)

    def refused(self, proximal: MovingAverage) -> None:
        """Too few active tokens, unless none are too few: start over."""
        if proximal.reset_below > 0:
            self.moved(proximal, 0.0)

    def fill(self, proximal: MovingAverage, x: Experience, ask: Ask) -> Experience:
        """Ask the mean about every token."""
        return x.replace(old_logp=ask(self._mean, x))

    def state_dict(self) -> dict[str, Tensor]:
        """The mean and the sum of its weights."""
        mean = self._mean.state_dict()
        return {"weight": self._weight, **{f"mean.{name}": mean[name] for name in learned(self._policy)}}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore them. Raises ``KeyError`` when something is missing."""
        self._weight = tensors["weight"].clone()
        put(self._mean, {name: tensors[f"mean.{name}"] for name in learned(self._policy)})
