"""Advantages that compare turns of a group which share a state, and what they are combined with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class SharedStates(Advantage):
    """``A_u = sum_k w_k a_k(u)``: a turn against those of its group that were in the same state, by the same way.

    ``G_u = r_u + discount G_{u+1}`` is the discounted reward from turn ``u`` on. Window ``k`` of a turn is the state it
    acted in and the ``k - 1`` states before it, ``k = 1 .. history + 1``, as far as its episode goes back. ``a_k(u) =
    G_u - mean G`` over the turns of the group with an equal window, divided by ``std G + eps`` when ``standardize``;
    visits of one trajectory count each. Windows that no other turn shares are left out, and ``w_k`` is proportional to
    ``(k + 1)^sharpness`` over those that are left. A turn without any gets 0; so does one at its group's mean.

    ``history = 0`` is the step term of GiGPO (arXiv 2505.10978), longer windows are HGPO's (arXiv 2602.22817).
    States are keys, ``x.turn_state``; rewards are ``x.turn_rewards()``, so what a task takes off for an action that is
    not valid belongs into its turn's reward.

    discount: per turn, in [0, 1].  history: states before the present one.
    sharpness: 0 weighs all windows alike; the larger it is, the more the longest shared window decides alone.
    standardize: whether to divide by the standard deviation.  correction: 1 for that of a sample (divisor n - 1), 0 for
    the population's.  eps: added to it.
    drop_zero: leave out windows with ``a_k = 0`` as well, as HGPO's released code does. A turn that is exactly average
    among its like then counts for what shorter windows say of it.
    base: an advantage that joins the mixture like a window ``k = 0``, with a weight proportional to 1.

    Raises ``ValueError`` when ``turn_state`` is not set, or a reward is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"turn_state"})

    discount: Annotated[float, Ge(0), Le(1)] = 0.95
    history: Annotated[int, Ge(0)] = 0
    sharpness: Annotated[float, Ge(0), Le(100)] = 1.0
    standardize: bool = True
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6
    drop_zero: bool = False
    base: Advantage | None = None

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit, weight = self._over_windows(x)
        if self.base is None:
            return x.to_tokens(turn=credit)
        base = self.base(x)
        own = self._weight(0)
        share = (own / (own + weight)).to(credit.dtype)
        mixed = x.to_tokens(turn=(1 - share) * credit).addcmul(x.to_tokens(turn=share), base)
        return torch.where(base == 0, x.to_tokens(turn=credit), mixed) if self.drop_zero else mixed

    def _over_windows(self, x: Experience) -> tuple[Float[Tensor, " turns"], Float64[Tensor, " turns"]]:
        """Mean over the windows of each turn, and their weight together."""
        returns, position = self._returns(x), x.trajectory_of_turn.position()
        total, weight = torch.zeros((2, x.turns), dtype=torch.float64, device=x.device)
        alike = Partition.by(_states(x), within=x.group_of_turn)
        state = alike.labels
        for back in range(self.history + 1):
            fits = position >= back
            if back:
                alike = Partition.by(torch.where(fits, state.roll(back), -1), within=alike)
            deviation = self._deviation(alike, returns)
            kept = fits & alike.spread(alike.size() > 1)
            if self.drop_zero:
                kept &= deviation != 0
            window = self._weight(back + 1) * kept
            total += window * deviation
            weight += window
        return torch.where(weight > 0, total / weight.where(weight > 0, 1.0), 0.0).to(returns.dtype), weight

    def _returns(self, x: Experience) -> Float[Tensor, " turns"]:
        returns = x.discounted_returns(self.discount)
        if not bool(returns.isfinite().all()):
            bad = int(torch.nonzero(~returns.isfinite())[-1])
            raise ValueError(f"shared_states: turn {bad} has the discounted return {float(returns[bad])}")
        return returns

    def _deviation(self, alike: Partition, returns: Float[Tensor, " turns"]) -> Float[Tensor, " turns"]:
        if self.standardize:
            return alike.standardize(returns, self.correction, self.eps)
        return alike.center(returns)

    def _weight(self, window: int) -> float:
        """Of a window, as a share of the longest one's: powers of whole numbers would overflow."""
        return float(((window + 1) / (self.history + 2)) ** self.sharpness)


@dataclass(frozen=True)
class OverTurns(Advantage):
    """``A`` as if every turn were a trajectory that earned what the whole of its own did.

    Means and deviations of a group then count a trajectory as often as it has turns, which is what the released code of
    GiGPO does for its episode term unless told otherwise.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process"})

    of: Advantage

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.reward is None:
            x = x.replace(reward=x.returns, reward_names=("reward",), reward_weights=(1.0,))
        return self.of(x.replace(inputs=None).by_turn())


@dataclass(frozen=True)
class LoneTrajectories(Advantage):
    """``A``, but a trajectory that is alone in its group stays in the batch, with nothing or with its return.

    Without it a recipe drops trajectories that its advantage cannot compare, and other terms of a sum do not see them
    either.

    earns: ``nothing``, or its ``return``, as in the released code of GiGPO (a mean of 0 and a deviation of 1).
    """

    of: Advantage
    earns: Literal["nothing", "return"] = "nothing"

    def least_group(self) -> int:
        return 1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        group = x.group_of_trajectory
        alone = group.spread(group.size() == 1)
        if not bool(alone.any()):
            return self.of(x)
        returns = x.returns if self.earns == "return" else torch.zeros_like(x.returns)
        credit = x.to_tokens(trajectory=returns)
        if bool(alone.all()):
            return credit
        compared = self.of(x.select(~alone))
        return credit.to(compared.dtype).masked_scatter(x.trajectory_of_token.spread(~alone), compared)


def _states(x: Experience) -> Tensor:
    if x.turn_state is None:
        raise ValueError("shared_states compares turns by x.turn_state, which this experience does not have")
    return x.turn_state
