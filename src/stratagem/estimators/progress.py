"""What each turn contributes to the return, learned from returns alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Estimator, Head

NEAR = 0.1
"""A sum this close to the return is counted as right."""


@dataclass(frozen=True)
class ReturnDecomposition(Estimator):
    """``min mean_i (sum_u c_iu - R_i)^2``: contributions of turns that add up to the return (arXiv 2505.20732).

    ``c_u`` is read after the last token of turn ``u``, so it may depend on all that came before; it is
    ``turn_progress``. A turn without tokens contributes 0. The sum alone does not tell the contributions apart: that a
    turn gets what it deserves rests on the same turns, or turns that look alike, occurring in trajectories of different
    returns. Where all returns are equal, any split would do.

    left_out: trajectories nothing is learned from: those still ``running``, whose return is not known yet; or all that
    were ``truncated`` by a limit. A limit on turns is for many tasks the only way to fail: without those trajectories
    there would be no failures to learn from.

    Figures: ``mse``, ``mae`` and ``near`` (share within 0.1) of the sums; ``outside`` (share of returns outside [0,
    1]); ``uninformative`` (1 where all returns are equal); each over what is learned from.

    Raises ``ValueError`` naming a trajectory whose return is not finite.
    """

    says: ClassVar[frozenset[str]] = frozenset({"turn_progress"})
    tags: ClassVar[frozenset[str]] = frozenset(
        {"reward.granularity.process", "reward.shaping.outcome_to_process", "reward.verifier.model"}
    )
    heads: ClassVar[Mapping[str, Head]] = {"progress": Head("after")}

    left_out: Literal["running", "truncated"] = "running"

    def loss(self, said: Mapping[str, Tensor], slow: Mapping[str, Tensor], x: Experience) -> Float[Tensor, ""]:
        error, learned = self._errors(said, x)
        return torch.where(learned, error, 0.0).square().sum() / learned.sum().clamp(min=1)

    def fill(self, said: Mapping[str, Tensor], x: Experience) -> Experience:
        return x.replace(turn_progress=said["progress"].squeeze(1))

    def figures(self, said: Mapping[str, Tensor], x: Experience) -> dict[str, float]:
        error, learned = self._errors(said, x)
        if not bool(learned.any()):
            return {"uninformative": 1.0}
        error, returns = error.detach()[learned], x.returns[learned]
        return {
            "mse": float(error.square().mean()),
            "mae": float(error.abs().mean()),
            "near": float((error.abs() <= NEAR).float().mean()),
            "outside": float(((returns < 0) | (returns > 1)).float().mean()),
            "uninformative": float(bool((returns == returns[0]).all())),
        }

    def _errors(
        self, said: Mapping[str, Tensor], x: Experience
    ) -> tuple[Float[Tensor, " trajectories"], Bool[Tensor, " trajectories"]]:
        """``sum_u c_u - R`` of every trajectory, and those that are learned from."""
        returns = x.returns
        if not bool(returns.isfinite().all()):
            bad = int(torch.nonzero(~returns.isfinite())[0])
            raise ValueError(f"{self.part_name()}: trajectory {bad} has return {float(returns[bad])}: must be finite")
        cut = x.truncated if self.left_out == "truncated" else x.running
        learned = x.trajectory_of_token.size() > 0
        if cut is not None:
            learned = learned & ~cut
        return x.trajectory_of_turn.sum(said["progress"].squeeze(1)) - returns, learned
