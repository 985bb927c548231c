"""Negative advantages that are left out: where the policy is unsure, or while it is too unsure as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Correction


@dataclass(frozen=True)
class SureNegatives(Correction):
    """0 where ``A < 0`` and ``H > threshold``, 1 elsewhere: bad tokens of which the policy is unsure are not unlearned.

    ``H`` is the entropy before the update, of the token or the mean over the tokens of its trajectory that may train.
    Normalisers still count what is left out. (Negative gradient clipping, arXiv 2512.12967, eq. 8 to 10, whose
    updates are on-policy, so that entropies before the update are the present ones.)

    threshold: in nats; infinity leaves out nothing.  unit: whose entropy, a ``token``'s or a ``trajectory``'s.

    Raises ``ValueError`` when entropies or advantages are missing.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    threshold: Annotated[float, Ge(0)]
    unit: Literal["token", "trajectory"] = "token"

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if x.entropy is None or x.advantage is None:
            raise ValueError("sure negatives need x.entropy and x.advantage; recipe.credit(x) sets the latter")
        entropy = x.entropy if self.unit == "token" else x.trajectory_of_token.spread(mean_entropies(x)[0])
        left_out = (x.advantage < 0) & (entropy > self.threshold)
        return (~left_out).to(out.logp.dtype)


@dataclass(frozen=True)
class EntropyHysteresis(Correction):
    """0 where ``A < 0`` from the batch whose entropy is above ``high`` to the one whose is below ``low``; else 1.

    The entropy of a batch is the mean over trajectories of the mean over their tokens that may train, before the
    update. Above ``high`` the policy learns from good trajectories alone, by which its entropy falls; below ``low``,
    from all again; in between, as before. A run begins with all. Which it is, is decided once for each batch
    (:meth:`before_steps`), and remembered. A batch without a good token moves nothing. (Adaptive entropy-controlled
    policy optimization, arXiv 2512.12967. That it stays as it was between the bounds is how we read the paper. Its
    bounds were not available; the defaults are read off a figure in which the entropy moves between 0.1 and 0.3.)

    low, high: in nats, ``low`` below ``high``.
    kept_only: whether what is kept counts so much more that a mean over tokens is one over the kept tokens alone; by
    default normalisers count what is left out, as in the paper's equation.

    Logged: ``without_negatives``, 1 while they are left out.

    Raises :class:`InputError` for bounds out of order; ``ValueError`` when entropies or advantages are missing, or an
    entropy that counts is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    low: Annotated[float, Ge(0)] = 0.15
    high: Annotated[float, Ge(0)] = 0.25
    kept_only: bool = False
    _memory: dict[str, Tensor] = field(
        default_factory=lambda: {"without": torch.zeros((), dtype=torch.float64)}, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise InputError(f"{self.part_name()}.low = {self.low}: must be below high = {self.high}")

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def before_steps(self, x: Experience) -> Experience:
        means, tokens = mean_entropies(x)
        means = means[tokens > 0]
        if len(means):
            entropy = float(means.mean())
            if entropy > self.high:
                self._memory["without"].fill_(1.0)
            elif entropy < self.low:
                self._memory["without"].fill_(0.0)
        return x

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if not self._memory["without"]:
            return torch.ones_like(out.logp, requires_grad=False)
        if x.advantage is None:
            raise ValueError("an entropy hysteresis needs x.advantage; recipe.credit(x) sets it")
        kept = (x.advantage >= 0).to(out.logp.dtype)
        return kept * x.whole.remembered((self, "scale"), lambda: _scale(x.whole)).to(kept) if self.kept_only else kept

    def judge(self, out: PolicyOutput, x: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        state = torch.full_like(out.logp, float(self._memory["without"]), requires_grad=False)
        return self(out, x), {"without_negatives": state}


def mean_entropies(x: Experience) -> tuple[Float[Tensor, " trajectories"], Float[Tensor, " trajectories"]]:
    """Mean entropy before the update of every trajectory's tokens that may train, 0 without any, and their number.

    Raises ``ValueError`` when there are no entropies, or a mean is not finite.
    """
    if x.entropy is None:
        raise ValueError("the entropy of trajectories needs x.entropy")
    level = x.trajectory_of_token
    tokens = level.sum(x.learnable().double())
    means = level.sum(x.of_learnable(x.entropy).double()) / tokens.clamp(min=1)
    if not bool(means.isfinite().all()):
        bad = int(torch.nonzero(~means.isfinite())[0])
        raise ValueError(f"x.entropy: trajectory {bad} has one that is not finite")
    return means, tokens


def _scale(x: Experience) -> Tensor:
    """Tokens that may train for each of them that is kept; 1 when there is none to keep."""
    assert x.advantage is not None
    kept = torch.count_nonzero(x.learnable() & (x.advantage >= 0))
    return torch.where(kept > 0, x.learnable_tokens / kept.clamp(min=1), 1.0)
