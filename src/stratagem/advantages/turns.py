"""Advantages from what a turn earns until the end, compared with other turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.masking import only
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class StandardizedTurnReturn(Advantage):
    """``A_u = (G_u - mean_U G) / (std_U G + eps)`` for every turn, with ``G_u = sum_{v >= u} discount^(v - u) r_v``.

    ``U`` are the turns that turn ``u`` is compared with. By turn index they are the turns of its group that have as
    many turns before them in their trajectory, so that the longer future of an early turn is no merit; a late turn,
    which few trajectories reach, has few to compare with. Over the group or the batch there are always many, and turns
    stand out by their place alone. The credit of a turn goes to all its tokens. Exactly 0 where all of ``U`` are equal.

    One of the two terms of the credit in arXiv 2601.10712 (by turn index, ``discount = 0.9``, ``alone = "return"``);
    the mixture of arXiv 2603.06194 adds one of either kind. Over the group, with a reward ``R`` in the last of ``T``
    turns alone, ``G_u = discount^(T - u) R`` is the round reward of arXiv 2511.07327: of trajectories that succeed, the
    turns of a shorter one earn more. Every turn is compared, whether its tokens may train or not. Rewards are those of
    ``x.turn_rewards()``: what ``turn_reward`` lacks of the return is earned in the last turn.

    among: turns compared with: those of one ``turn_index`` within the group, all of the ``group``, or of the ``batch``.
    discount: per turn, in [0, 1].
    alone: what a turn gets that is the only one of its index in its group: ``zero``; its ``return`` ``G_u`` as it is;
    or what it is worth over the ``batch``.
    each: what counts the same in mean and deviation over group or batch: a ``turn``, so that long trajectories weigh
    more, or a ``trajectory`` of ``T`` turns, each of weight ``1 / T``.
    malformed: what ``G_u`` is of a turn that broke the format (``turn_well_formed``): the ``return`` as of any other,
    or ``zero``.
    correction: 1 for the sample standard deviation, 0 for the population's. With weights ``w`` the former divides by
    ``sum w - sum w^2 / sum w``, which is ``n - 1`` where they are equal.  eps: added to the standard deviation.

    Raises :class:`InputError` for trajectories that count the same among turns of one index, of which they have one
    each, and ``ValueError`` naming a turn whose reward is not finite.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process"})

    among: Literal["turn_index", "group", "batch"] = "turn_index"
    discount: Annotated[float, Ge(0), Le(1)] = 1.0
    alone: Literal["zero", "return", "batch"] = "zero"
    each: Literal["turn", "trajectory"] = "turn"
    malformed: Literal["return", "zero"] = "return"
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.among, self.each) == ("turn_index", "trajectory"):
            raise InputError(
                f"{self.part_name()}.each = trajectory: must be turn where among = turn_index, since a trajectory has "
                "one turn of an index"
            )

    def least_group(self) -> int:
        return 2 if (self.among, self.alone) == ("turn_index", "zero") else 1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        returns = _finite_returns(x, self.discount)
        if self.malformed == "zero" and x.turn_well_formed is not None:
            returns = only(x.turn_well_formed, returns)
        if self.among == "batch":
            return x.to_tokens(turn=self._over_batch(returns, x))
        if self.among == "group":
            return x.to_tokens(turn=self._within(x.group_of_turn, returns, x))
        index = x.trajectory_of_turn.position()
        same = Partition.by(index, within=x.group_of_turn)
        credit = same.standardize(returns, self.correction, self.eps)
        if self.alone != "zero":
            lone = same.spread(same.size() == 1)
            credit = torch.where(lone, returns if self.alone == "return" else self._over_batch(returns, x), credit)
        return x.to_tokens(turn=credit)

    def _over_batch(self, returns: Tensor, x: Experience) -> Float[Tensor, " turns"]:
        return self._within(Partition.whole(len(returns), returns.device), returns, x)

    def _within(self, turns: Partition, returns: Tensor, x: Experience) -> Float[Tensor, " turns"]:
        """Returns standardised in each segment of ``turns``."""
        if self.each == "turn":
            return turns.standardize(returns, self.correction, self.eps)
        weight = x.trajectory_of_turn.spread(1.0 / x.trajectory_of_turn.size().double())
        total = turns.sum(weight)
        # From the first turn, so that equal returns have a deviation of exactly 0.
        anchor = torch.zeros(turns.count, dtype=torch.float64, device=returns.device)
        anchor[turns.labels[turns.first()]] = returns[turns.first()].double()
        shifted = returns.double() - turns.spread(anchor)
        centered = shifted - turns.spread(turns.sum(weight * shifted) / total)
        divisor = total - self.correction * turns.sum(weight.square()) / total
        # A lone turn has no deviation.
        spread = (turns.sum(weight * centered.square()) / divisor.where(divisor > 1e-9, 1.0)).sqrt() + self.eps
        return (centered / turns.spread(spread.where(spread > 0, 1.0))).to(returns.dtype)


@dataclass(frozen=True)
class StandardizedContext(Advantage):
    """``A_c = (r_c - mean_U r) / (std_U r + eps)`` for the turns of one conversation, with ``r_c`` what they earned.

    ``U`` are the conversations of the same number (``turn_context``) in the group's trajectories, as many as came to
    it. Where each sub-goal is carried out in a conversation of its own, that is a comparison within a sub-goal among
    those who reached it. Exactly 0 where all of ``U`` are equal or there is one alone; without ``turn_context`` a
    trajectory is one conversation. Rewards are those of ``x.turn_rewards()``.

    role: conversations of this role (of their first turn) alone have a credit; None: all.
    correction: 1 for the sample standard deviation, 0 for the population's.  eps: added to the standard deviation.

    Raises ``ValueError`` naming a turn whose reward is not finite, and for a role where ``turn_role`` is not known.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process"})

    role: int | None = None
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def needs(self) -> frozenset[str]:
        return super().needs() | (frozenset() if self.role is None else {"turn_role"})

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        earned = _finite_returns(x, 0.0)
        number = x.context_of_turn
        context = Partition.by(x.trajectory_of_turn.labels, number)
        first = context.first()
        among = Partition.by(x.group_of_turn.labels[first], number[first])
        credit = among.standardize(context.sum(earned), self.correction, self.eps)
        if self.role is not None:
            if x.turn_role is None:
                raise ValueError("credit of a role's conversations needs x.turn_role")
            credit = credit.where(x.turn_role[first] == self.role, 0.0)
        return x.to_tokens(turn=context.spread(credit))


def _finite_returns(x: Experience, discount: float) -> Float[Tensor, " turns"]:
    """Discounted reward from each turn on. Raises ``ValueError`` for a reward that is no number."""
    finite = x.turn_rewards().isfinite()
    if not bool(finite.all()):
        bad = int(torch.nonzero(~finite)[0])
        trajectory = int(x.trajectory_of_turn.labels[bad])
        turn = int(x.trajectory_of_turn.position()[bad])
        raise ValueError(
            f"turn {turn} of trajectory {trajectory} has reward {float(x.turn_rewards()[bad])}: must be finite"
        )
    return x.discounted_returns(discount)
