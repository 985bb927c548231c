"""Advantages that rest on a learned value function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GAE(Advantage):
    """Generalized advantage estimation over the tokens of each trajectory (arXiv 1506.02438).

    ``delta_t = r_t + discount V_{t+1} - V_t``, ``A_t = delta_t + discount trace A_{t+1}``. ``V`` after a true end is 0,
    after a cut it is ``final_value``. The critic's target is ``A_t + V_t``.

    discount, trace: gamma and lambda, per token, in [0, 1].
    critic_trace: lambda of the critic's target; None: ``trace``. With 1 the target is the discounted return itself.
    bootstrap: ``V`` where a trajectory is cut that is still ``running``: its ``final_value``, or its ``last_value``,
    ``V_l := V_{l-1}`` (EGAE, arXiv 2506.15050): that of the last state in which it acted, so that without a reward the
    last ``delta`` is ``(discount - 1) V_{l-1}``.

    Raises ``ValueError`` when a running trajectory should be continued with a ``final_value`` that the batch lacks.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"value"})

    discount: Annotated[float, Ge(0), Le(1)] = 1.0
    trace: Annotated[float, Ge(0), Le(1)] = 0.95
    critic_trace: Annotated[float, Ge(0), Le(1)] | None = None
    bootstrap: Literal["final_value", "last_value"] = "final_value"

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self._estimate(x, self.trace)

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self._estimate(x, self.trace if self.critic_trace is None else self.critic_trace) + _value(x)

    def _estimate(self, x: Experience, trace: float) -> Float[Tensor, " tokens"]:
        return x.trajectory_of_token.gae(x.token_rewards(), _value(x), self.discount, trace, self._left(x))

    def _left(self, x: Experience) -> Float[Tensor, " trajectories"] | None:
        """The value of the state in which each trajectory was left; None: 0 for all."""
        if x.running is None or (x.final_value is None and not bool(x.running.any())):
            return x.final_value
        if self.bootstrap == "final_value":
            if x.final_value is None:
                raise ValueError("GAE needs x.final_value of trajectories that are running, or bootstrap='last_value'")
            return x.final_value
        value, by = _value(x), x.trajectory_of_token
        last = value.new_zeros(x.trajectories)
        last[by.size() > 0] = value[by.last()]
        return torch.where(x.running, last, 0.0 if x.final_value is None else x.final_value)


def _value(x: Experience) -> Tensor:
    if x.value is None:
        raise ValueError("GAE needs x.value")
    return x.value
