"""Advantages that rest on a learned value function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GAE(Advantage):
    """Generalized advantage estimation over the tokens of each trajectory (arXiv 1506.02438).

    ``delta_t = r_t + discount V_{t+1} - V_t``, ``A_t = delta_t + discount trace A_{t+1}``. ``V`` after a true end is 0,
    after a cut it is ``final_value``. The critic's target is ``A_t + V_t``. What follows a turn of ``turn_duration``
    tau counts ``discount^tau`` (a semi-Markov decision); its reward is taken as it is.

    discount, trace: gamma and lambda, per step, in [0, 1].
    critic_trace: lambda of the critic's target; None: ``trace``. With 1 the target is the discounted return itself.
    bootstrap: ``V`` where a trajectory is cut that is still ``running``: its ``final_value``, or its ``last_value``,
    ``V_l := V_{l-1}`` (EGAE, arXiv 2506.15050): that of the last state in which it acted, so that without a reward the
    last ``delta`` is ``(discount - 1) V_{l-1}``.
    step: what a step is.
    ``token``: every token; a discount below 1 then charges an action for its tokens.
    ``turn``: a turn; ``V`` is read, and learned, at its first token, and all its tokens share one ``A``.
    ``decomposed``: tokens, with ``discount`` on the last one of each turn alone and 1 on the others (the Bellman backup
    with action decomposition, arXiv 2405.15821): credit per token, and an optimum that does not depend on how many
    tokens say an action. The three agree where every turn has one token; the first and the last for ``discount = 1``.

    Raises ``ValueError`` when a running trajectory should be continued with a ``final_value`` that the batch lacks, and
    for a turn without tokens unless ``step`` is ``token``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"value"})

    discount: Annotated[float, Ge(0), Le(1)] = 1.0
    trace: Annotated[float, Ge(0), Le(1)] = 0.95
    critic_trace: Annotated[float, Ge(0), Le(1)] | None = None
    bootstrap: Literal["final_value", "last_value"] = "final_value"
    step: Literal["token", "turn", "decomposed"] = "token"

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self._of_tokens(x, self._estimate(x, self.trace)[0])

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"]:
        estimate, value = self._estimate(x, self.trace if self.critic_trace is None else self.critic_trace)
        return self._of_tokens(x, estimate + value)

    def critic_tokens(self, x: Experience) -> Bool[Tensor, " tokens"] | None:
        if self.step != "turn":
            return None
        read = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        read[x.turn_of_token.first()] = True
        return read

    def _estimate(self, x: Experience, trace: float) -> tuple[Tensor, Tensor]:
        """Advantage and value of every step."""
        value = critic_value(x, "GAE")
        rate: float | Tensor
        if self.step == "turn":
            value, by, rewards = value[first_tokens(x, "GAE")], x.trajectory_of_turn, rewards_of_turns(x)
            rate = x.turn_discounts(self.discount)
        else:
            by, rewards, rate = x.trajectory_of_token, x.token_rewards(), x.token_discounts(self.discount)
        if self.step == "decomposed":
            ends = first_tokens(x, "GAE") + x.turn_of_token.size() - 1
            rate = torch.ones_like(value, requires_grad=False)
            rate[ends] = x.turn_discounts(self.discount)
        return by.gae(rewards, value, rate, trace, self._left(x, value, by)), value

    def _of_tokens(self, x: Experience, steps: Tensor) -> Float[Tensor, " tokens"]:
        return x.turn_of_token.spread(steps) if self.step == "turn" else steps

    def _left(self, x: Experience, value: Tensor, by: Partition) -> Float[Tensor, " trajectories"] | None:
        """The value of the state in which each trajectory was left; None: 0 for all."""
        if x.running is None or (x.final_value is None and not bool(x.running.any())):
            return x.final_value
        if self.bootstrap == "final_value":
            if x.final_value is None:
                raise ValueError("GAE needs x.final_value of trajectories that are running, or bootstrap='last_value'")
            return x.final_value
        last = value.new_zeros(x.trajectories)
        last[by.size() > 0] = value[by.last()]
        return torch.where(x.running, last, 0.0 if x.final_value is None else x.final_value)


def critic_value(x: Experience, reader: str) -> Float[Tensor, " tokens"]:
    """``x.value``. Raises ``ValueError`` when the batch has none."""
    if x.value is None:
        raise ValueError(f"{reader} needs x.value")
    return x.value


def first_tokens(x: Experience, reader: str) -> Tensor:
    """The first token of every turn [turns]. Raises ``ValueError`` for a turn without tokens, which decides nothing."""
    empty = x.turn_of_token.size() == 0
    if bool(empty.any()):
        raise ValueError(f"{reader}: turn {int(torch.nonzero(empty)[0])} has no tokens; an action has at least one")
    return x.turn_of_token.first()


def rewards_of_turns(x: Experience) -> Float[Tensor, " turns"]:
    """All that a turn earned: its own reward and those of its tokens."""
    rewards = x.turn_rewards()
    return rewards if x.token_reward is None else rewards + x.turn_of_token.sum(x.token_reward)
