"""Rollouts that now and then do anything, for learners that would otherwise only see what they think best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from stratagem.sampling.samplers import Rollouts


@dataclass(frozen=True)
class EpsilonGreedy(Rollouts):
    """Whole episodes by the likeliest actions, and with probability ``epsilon`` by any that is legal, each as likely.

    ``behavior_logp`` is of this mixture.  epsilon: in [0, 1]; schedules lower it as ``sampler.epsilon``.
    """

    epsilon: Annotated[float, Ge(0), Le(1)] = 1.0

    @property
    def asks(self) -> dict[str, str]:
        return {**super().asks, "exploration": f"epsilon = {self.epsilon}: {{who}} samples from its policy"}


@dataclass(frozen=True)
class DependentRollouts(Rollouts):
    """Whole episodes by agents of which some see what others are about to do (arXiv 2306.01920).

    dependence: probability with which each edge of their graph is kept in a turn, in [0, 1]: 1 leaves the graph as it
    is, 0 agents that act alone. Schedules lower it as ``sampler.dependence``. Agents that never see each other's
    actions act alone whatever it is.
    """

    dependence: Annotated[float, Ge(0), Le(1)] = 1.0

    @property
    def asks(self) -> dict[str, str]:
        return {**super().asks, "dependence": f"dependence = {self.dependence}: {{who}} acts alone"}
