"""Critics of whole turns: what is to come before a turn acts, and once it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Estimator, Head


@dataclass(frozen=True)
class TurnCritics(Estimator):
    """Two ``Q`` and two ``V`` of turns, learned by temporal differences (ArCHer, arXiv 2402.19446).

    ``Q_i(o, a) -> r + discount V'_i(o')`` and ``V_i(o) -> Q'_i(o, a)`` with ``a`` of the present policy, each by mean
    squares, each pair by itself; ``V'`` and ``Q'`` are slow copies. ``o`` is all that was read before turn ``u``, ``a``
    all the tokens of the turn, ``o'`` what was read before the next one. They are ``turn_value`` and
    ``turn_action_value`` [turns, 2], of the critics themselves, not the slow copies.

    No action is drawn for ``V``: that of the batch is of the present policy when the batch is fresh. An older one
    counts by the weight ``pi(a | o) / mu(a | o)``, so that what ``V`` tends to is the mean over the present policy's
    actions all the same. ``actions = "as_sampled"`` counts all alike: then ``V`` is of who sampled, as in learning from
    a fixed set of trajectories.

    The twins start from different hidden layers. Tables and linear maps have none, and their twins agree.

    discount: per turn, in [0, 1].  rate: ``slow <- slow + rate (critic - slow)`` after each step, in [0, 1].
    expectile: of ``Q'`` that ``V`` tends to, in (0, 1): 0.5 is the mean, one near 1 almost the best action seen
    (implicit Q-learning, arXiv 2110.06169).  largest_weight: of an older action, above 0.
    truncation: what follows the last turn of a trajectory cut by a limit. It is not in the batch, so nothing is learned
    about that ``Q`` (``left_out``); or it is 0, as if the episode had ended (``terminal``, as in the released code).

    Figures: ``q_loss``, ``v_loss``, ``q_mean``, ``v_mean``, and ``weight``, the mean weight of actions.

    A turn without tokens is no action: it is passed over, and what it earned is its trajectory's last action's.

    Raises ``ValueError`` where the batch does not say which trajectories finished.
    """

    says: ClassVar[frozenset[str]] = frozenset({"turn_value", "turn_action_value"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process", "reward.verifier.model"})
    heads: ClassVar[Mapping[str, Head]] = {"value": Head("before", 2), "action_value": Head("after", 2)}
    requires: ClassVar[frozenset[str]] = frozenset({"finished"})

    discount: Annotated[float, Ge(0), Le(1)] = 0.95
    rate: Annotated[float, Ge(0), Le(1)] = 0.1
    expectile: Annotated[float, Gt(0), Lt(1)] = 0.5
    actions: Literal["weighted", "as_sampled"] = "weighted"
    largest_weight: Annotated[float, Gt(0)] = 10.0
    truncation: Literal["left_out", "terminal"] = "left_out"

    @property
    def slow_rate(self) -> float:
        return self.rate

    def loss(self, said: Mapping[str, Tensor], slow: Mapping[str, Tensor], x: Experience) -> Float[Tensor, ""]:
        q_loss, v_loss = self._losses(said, slow, x)
        return q_loss + v_loss

    def fill(self, said: Mapping[str, Tensor], x: Experience) -> Experience:
        return x.replace(turn_value=said["value"], turn_action_value=said["action_value"])

    def figures(self, said: Mapping[str, Tensor], x: Experience) -> dict[str, float]:
        q_loss, v_loss = self._losses(said, said, x)
        return {
            "q_loss": float(q_loss),
            "v_loss": float(v_loss),
            "q_mean": float(said["action_value"].mean()),
            "v_mean": float(said["value"].mean()),
            "weight": float(self.weights(x).mean()),
        }

    def weights(self, x: Experience) -> Float[Tensor, " turns"]:
        """``pi(a | o) / mu(a | o)`` of every turn, at most ``largest_weight``; 1 where the policy has not moved."""
        if self.actions == "as_sampled" or x.old_logp is None or x.behavior_logp is None:
            return torch.ones(x.turns, device=x.device)
        log_weight = x.turn_of_token.sum(x.of_learnable(x.old_logp - x.behavior_logp))
        return log_weight.clamp(max=math.log(self.largest_weight)).exp()

    def _losses(
        self, said: Mapping[str, Tensor], slow: Mapping[str, Tensor], x: Experience
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Of ``Q`` and of ``V``: means over turns, added up over the twins."""
        if x.finished is None:
            raise ValueError(f"{self.part_name()} needs x.finished")
        acted = torch.nonzero(x.turn_of_token.size() > 0).squeeze(1)
        by = x.trajectory_of_turn.select(acted)
        last, ended = by.is_last(), by.spread(x.finished)
        following = torch.where(last.unsqueeze(1), 0.0, slow["value"].detach()[acted].roll(-1, 0))
        earned = x.turn_of_token.sum(x.token_rewards())[acted]
        target = earned.unsqueeze(1) + self.discount * following
        known = torch.ones_like(last) if self.truncation == "terminal" else ~last | ended
        q_error = torch.where(known.unsqueeze(1), said["action_value"][acted] - target, 0.0)
        above = slow["action_value"].detach()[acted] - said["value"][acted]
        weight = self.weights(x)[acted].unsqueeze(1)
        side = 2 * (self.expectile - (above.detach() < 0).to(above.dtype)).abs()
        q_loss = q_error.square().sum() / known.sum().clamp(min=1)
        return q_loss, (weight * side * above.square()).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
