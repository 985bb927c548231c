"""Aggregations: the weight every token of a batch has in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Aggregation


@dataclass(frozen=True)
class TokenMean(Aggregation):
    """``sum_t l_t / N``: every token counts the same (DAPO, arXiv 2503.14476, eq. 12)."""

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        weight = 1.0 / x.learnable_tokens.clamp(min=1)
        return x.of_learnable(weight.expand(x.tokens))


@dataclass(frozen=True)
class SequenceMean(Aggregation):
    """``mean_i (sum_t l_it / |y_i|)``: every trajectory counts the same (GRPO, arXiv 2402.03300, eq. 3).

    Trajectories without a token that may train are not counted.
    """

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        length = _learnable_length(x)
        return _to_learnable(1.0 / (length.clamp(min=1) * _counted(length)), x)


@dataclass(frozen=True)
class TurnMean(Aggregation):
    """``mean_u (sum_t l_ut / |u|)``: every turn counts the same, as where each is a training sample of its own.

    Turns without a token that may train are not counted.
    """

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        length = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        return x.of_learnable(x.turn_of_token.spread(1.0 / (length.clamp(min=1) * _counted(length))))


@dataclass(frozen=True)
class SequenceSum(Aggregation):
    """``mean_i sum_t l_it``: the policy-gradient theorem's own weight, the return of whole trajectories."""

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        return _to_learnable((1.0 / _counted(_learnable_length(x))).expand(x.trajectories), x)


@dataclass(frozen=True)
class TurnSum(Aggregation):
    """``mean_u sum_t l_ut`` over the turns of a batch: every turn counts as one action, however many tokens say it.

    Turns without a token that may train are not counted.
    """

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        length = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        return x.of_learnable((1.0 / _counted(length)).expand(x.tokens))


@dataclass(frozen=True)
class LengthPower(Aggregation):
    """``mean_i (sum_t l_it / |y_i|^power)``: 0 is :class:`SequenceSum`, 1 is :class:`SequenceMean`.

    Where all tokens of a trajectory carry the same surrogate ``l_i``, as with a ratio of whole trajectories, 2 gives
    ``mean_i l_i / |y_i|``: the trajectory counts once, divided by its length (GDPO, arXiv 2510.08554).

    power: at least 0.
    """

    power: Annotated[float, Ge(0)] = 2.0

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        length = _learnable_length(x)
        return _to_learnable(1.0 / (length.clamp(min=1) ** self.power * _counted(length)), x)


@dataclass(frozen=True)
class FixedLength(Aggregation):
    """``sum_t l_it / (B L)`` with a constant ``L``: Dr. GRPO's removal of the length bias (arXiv 2503.20783).

    length: the constant, usually the limit on tokens of a trajectory.
    """

    length: Annotated[int, Ge(1)] = 1024

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        return _to_learnable((1.0 / (_counted(_learnable_length(x)) * self.length)).expand(x.trajectories), x)


@dataclass(frozen=True)
class Credited(Aggregation):
    """``of``, with only those tokens counted whose advantage is not 0: a mean over what there is to learn from.

    So that a loss on samples of one sign is a mean over these, however many others were drawn with them.

    above: count those alone whose advantage is above this, at least 0; None: all that are not 0.
    """

    of: Aggregation = TokenMean()
    above: Annotated[float, Ge(0)] | None = None

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.advantage is None:
            raise ValueError("tokens with an advantage can only be counted once x.advantage is set")
        counted = x.advantage != 0 if self.above is None else x.advantage > self.above
        return self.of.weights(x.replace(mask=x.learnable() & counted))


@dataclass(frozen=True)
class CallShare(Aggregation):
    """``of``, with the tokens of a sub-agent's call divided by the number of calls in their trajectory.

    However many calls a trajectory has, they weigh together what one of their mean length would. A call is a
    conversation (``turn_context``) of turns with a ``turn_role`` other than 0 in which a token may train. Tokens of
    role 0 keep their weight, and nothing is scaled up for what the others lose. Without either field it is ``of``.
    """

    of: Aggregation = TokenMean()

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        weights = self.of.weights(x)
        if x.turn_role is None or x.turn_context is None:
            return weights
        learnable = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        turn = torch.nonzero((learnable > 0) & (x.turn_role != 0)).squeeze(1)
        trajectory = x.trajectory_of_turn.labels[turn]
        call = Partition.by(trajectory, x.turn_context[turn]).first()
        calls = torch.bincount(trajectory[call], minlength=x.trajectories)
        share = torch.ones(x.turns, dtype=weights.dtype, device=x.device)
        share[turn] = 1.0 / calls[trajectory].to(weights.dtype)
        return weights * x.to_tokens(turn=share)


@dataclass(frozen=True)
class ByRole(Aggregation):
    """``sum_r mean_{u of role r} (sum_{t in u} l_t / |u|)``: the loss of every role, as if it had a batch of its own.

    ``u`` are the parts of trajectories in which one role acts: all its turns, or each of its conversations
    (``turn_context``) by itself. Parts without a token that may train are not counted. With one role, in one
    conversation, this is :class:`SequenceMean`. Without ``turn_role`` every turn is of one role.

    unit: all turns of a role in a ``trajectory``, or in one ``conversation``.
    """

    unit: Literal["trajectory", "conversation"] = "trajectory"

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        role = x.role_of_turn
        contexts = [x.context_of_turn] if self.unit == "conversation" else []
        part = Partition.by(role, *contexts, within=x.trajectory_of_turn)
        learnable = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        length = part.sum(learnable)
        same = Partition.by(role[part.first()])
        counted = same.spread(same.sum((length > 0).long()).clamp(min=1))
        weight = x.turn_of_token.spread(part.spread(1.0 / (length.clamp(min=1) * counted)))
        return x.of_learnable(weight)


def _learnable_length(x: Experience) -> Tensor:
    """Tokens that may train, by trajectory."""
    return x.trajectory_of_token.size() if x.mask is None else x.trajectory_of_token.sum(x.mask)


def _counted(length: Tensor) -> Tensor:
    """How many trajectories (or turns) have a token that may train (at least 1, so that an empty batch has loss 0)."""
    return (length > 0).sum().clamp(min=1)


def _to_learnable(weight: Tensor, x: Experience) -> Float[Tensor, " tokens"]:
    """The weight of its trajectory for every token that may train, 0 for the others."""
    weights = x.trajectory_of_token.spread(weight)
    return x.of_learnable(weights)
