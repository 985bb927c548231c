"""Credit of turns by critics of whole turns."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.critic import critic_value
from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class TurnCriticAdvantage(Advantage):
    """``A_u = min_i Q_i(o, a) - min_i V_i(o)`` for every token of turn ``u`` (ArCHer, arXiv 2402.19446).

    Within a turn nothing is earned before its last token and nothing is discounted, so all its tokens share one credit.

    token_baseline: ``A_u - v_t`` in its place, with the policy's own ``value`` ``v_t`` from before token ``t``, of
    which ``A_u`` is the target: what the tokens before ``t`` have already made of the turn. (A value that had seen
    token ``t`` itself would be no baseline: it would take away what the token earned.)

    Raises ``ValueError`` when the batch lacks what the critics say.
    """

    token_baseline: bool = False

    def needs(self) -> frozenset[str]:
        return frozenset({"turn_value", "turn_action_value"} | ({"value"} if self.token_baseline else set()))

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self._of_turns(x)
        return credit - critic_value(x, self.part_name()) if self.token_baseline else credit

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        return self._of_turns(x) if self.token_baseline else None

    def _of_turns(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.turn_value is None or x.turn_action_value is None:
            raise ValueError(f"{self.part_name()} needs x.turn_value and x.turn_action_value")
        return x.to_tokens(turn=x.turn_action_value.amin(1) - x.turn_value.amin(1))
