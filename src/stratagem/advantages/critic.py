"""Advantages that rest on a learned value function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

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
    """

    requires: ClassVar[frozenset[str]] = frozenset({"value"})

    discount: Annotated[float, Ge(0), Le(1)] = 1.0
    trace: Annotated[float, Ge(0), Le(1)] = 0.95

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return x.trajectory_of_token.gae(x.token_rewards(), _value(x), self.discount, self.trace, x.final_value)

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self(x) + _value(x)


def _value(x: Experience) -> Tensor:
    if x.value is None:
        raise ValueError("GAE needs x.value")
    return x.value
