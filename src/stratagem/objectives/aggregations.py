"""Aggregations: the weight every token of a batch has in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
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
    """

    of: Aggregation = TokenMean()

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.advantage is None:
            raise ValueError("tokens with an advantage can only be counted once x.advantage is set")
        return self.of.weights(x.replace(mask=x.learnable() & (x.advantage != 0)))


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
