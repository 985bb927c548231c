"""Credit where a batch holds demonstrations beside the policy's own trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class WithDemonstrations(Advantage):
    """``alpha A`` on rollouts, with ``A`` made of the rollouts alone; ``beta value`` on every token of a demonstration.

    Demonstrations move no baseline and no deviation of ``A``. ``alpha = beta = 1`` unless a blend is asked for, which
    follows the group's pass rate ``P`` and is to be used without a selection: ``alpha = P`` for ``linear``, ``alpha =
    sigmoid((P - gate) / width)`` for ``sigmoid``, and ``beta = 1 - alpha``. The blends are a reconstruction: arXiv
    2509.04419 leaves the weights a function of ``P`` and uses a hard gate, which here is the selection ``ByPassRate``.

    of: ``A``.  value: of a demonstrated token.  gate, in [-1, 1], and width, above 0: of the sigmoid, in units of the
    pass rate.

    Raises :class:`InputError` for a gate or width that the blend does not read.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"initialisation.stage.instruction_tuning"})

    of: Advantage
    value: float = 1.0
    blend: Literal["none", "linear", "sigmoid"] = "none"
    gate: Annotated[float, Ge(-1), Le(1)] = 0.0
    width: Annotated[float, Gt(0)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blend != "sigmoid" and (self.gate, self.width) != (0.0, 0.1):
            raise InputError(
                f"with_demonstrations.gate = {self.gate}, width = {self.width}: only the sigmoid blend has them, "
                f"and blend = {self.blend!r}"
            )

    def needs(self) -> frozenset[str]:
        return super().needs() | (frozenset() if self.blend == "none" else {"pass_rate"})

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self._credit(x)
        if self.blend == "none":
            return credit
        if x.pass_rate is None:
            raise ValueError("a blend by pass rate needs x.pass_rate; recipe.credit(x) sets it")
        explored = x.pass_rate
        if self.blend == "sigmoid":
            explored = torch.sigmoid((x.pass_rate - self.gate) / self.width)
        group = x.group_of_trajectory
        weight = torch.where(x.played(), group.spread(explored), 1 - group.spread(explored))
        return credit * x.trajectory_of_token.spread(weight)

    def _credit(self, x: Experience) -> Float[Tensor, " tokens"]:
        played = x.played()
        if bool(played.all()):
            return self.of(x)
        if not bool(played.any()):
            return torch.full((x.tokens,), self.value, device=x.device)
        own = self.of(x.select(played))
        credit = torch.full((x.tokens,), self.value, device=x.device, dtype=own.dtype)
        return credit.masked_scatter(x.trajectory_of_token.spread(played), own)
