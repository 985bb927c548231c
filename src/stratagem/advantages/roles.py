"""Advantages of agents that act in one episode: roles compared with themselves, calls with one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage
from stratagem.seeding import uniform


@dataclass(frozen=True)
class RoleStandardized(Advantage):
    """``A_ir = (R_ir - mean_g R_r) / (std_g R_r + eps)``: every role is compared with itself over its group.

    ``R_ir`` is what the turns of role ``r`` earned in trajectory ``i``; mean and deviation are over the trajectories of
    the group in which the role acted at all. Exactly 0 where all of these earned the same, and for a role that acted in
    one of them only. What ``turn_reward`` lacks of the return is earned in the last turn. With one role it is GRPO's
    advantage. Without ``turn_role`` every turn is of one role.

    correction: 1 for the sample standard deviation, 0 for the population's.  eps: added to the standard deviation.
    """

    minimum_group: ClassVar[int] = 2

    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        part = Partition.by(x.role_of_turn, within=x.trajectory_of_turn)
        first = part.first()
        same = Partition.by(x.group_of_turn.labels[first], x.role_of_turn[first])
        credit = same.standardize(part.sum(_earned(x)), self.correction, self.eps)
        return x.to_tokens(turn=part.spread(credit))


@dataclass(frozen=True)
class RoleCredit(Advantage):
    """The tokens of role ``r`` are credited by ``of[r]``, which sees the turns of this role alone and what they earned.

    So a role is neither paid for what another earned, nor does a trace or a critic lead through another's turns. Roles
    beyond the last have the last one's credit, and so has a batch without ``turn_role``
    (:meth:`~stratagem.experience.Experience.of_role`). A critic learns at the tokens of roles whose credit has one.

    Raises :class:`InputError` for no advantage at all.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process"})

    of: tuple[Advantage, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.of:
            raise InputError(f"{self.part_name()}.of = (): must hold an advantage for every role")

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = torch.zeros(x.tokens, device=x.device)
        for role, advantage in enumerate(self.of):
            own, tokens = x.of_role(role, len(self.of))
            if len(tokens):
                credit[tokens] = advantage(own).to(credit.dtype)
        return credit

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        return self._targets(x)[0]

    def critic_tokens(self, x: Experience) -> Bool[Tensor, " tokens"] | None:
        return self._targets(x)[1]

    def _targets(self, x: Experience) -> tuple[Tensor | None, Tensor | None]:
        """What a critic should have said, 0 where nobody asks one, and where it is asked; None: nowhere."""
        target, read = torch.zeros(x.tokens, device=x.device), torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        asked = False
        for role, advantage in enumerate(self.of):
            own, tokens = x.of_role(role, len(self.of))
            said = advantage.value_target(own)
            if said is not None:
                asked, where = True, advantage.critic_tokens(own)
                target[tokens] = said.to(target.dtype)
                read[tokens] = True if where is None else where
        return (target, read) if asked else (None, None)


class Calls(NamedTuple):
    """Conversations of sub-agents in a batch: every (trajectory, role, conversation) with a role above 0.

    turn: numbers of their turns.  of_turn: these by call.  trajectory, role, number: of every call.
    """

    turn: Int[Tensor, " turns"]
    of_turn: Partition
    trajectory: Int[Tensor, " calls"]
    role: Int[Tensor, " calls"]
    number: Int[Tensor, " calls"]


def calls_of(x: Experience) -> Calls:
    """The calls of a batch; those of one trajectory and role follow one another. Without ``turn_role`` there are none.

    Without ``turn_context`` all turns of a role in a trajectory are one call.
    """
    role = x.role_of_turn
    turn = torch.nonzero(role > 0).squeeze(1)
    trajectory, role = x.trajectory_of_turn.labels[turn], role[turn]
    number = x.context_of_turn[turn]
    call = Partition.by(trajectory, role, number)
    first = call.first()
    return Calls(turn, call, trajectory[first], role[first], number[first])


@dataclass(frozen=True)
class AlignedCalls(Advantage):
    """Roles in two tiers: main turns by the return of their trajectory, calls of sub-agents by their own reward.

    Turns of role 0 have ``A_i = (R_i - mean_g R) / (std_g R + eps)`` over the trajectories of the group, as in GRPO.
    Every conversation of a role above 0 is a call with a reward of its own::

        R_ic = valid + outcome * max(R_i, least) + earned * e_ic        0 if gated and e_ic < 0

    with ``e_ic``, what the turns of the call earned; ``gated`` is for tasks that pay less than 0 for a call that is
    broken. Rollouts have different numbers of calls. They are aligned to ``slots`` each: one with fewer repeats some of
    its own, drawn with replacement; one with more drops some, drawn without; one without calls has none.
    ``A_ic = (R_ic - mean) / (std + eps)`` is over all calls of a role in the group after that, repetitions included.

    A token has one row here, so a repeated call has the weight ``n_ic``, its multiplicity, and a dropped one 0: the
    advantage is ``A_ic n_ic C / N`` with ``N = sum n`` and ``C`` the number of calls of this role in the batch that may
    train. A mean over calls, such as :class:`~stratagem.objectives.ByRole`, is then the mean over the slots that are
    filled. With as many calls everywhere as slots the factor is 1. A term that does not scale with the advantage, such
    as KL, has the weight 1 for every call.

    This is arXiv 2511.13288, of which the formulas were not available: the two tiers of advantages and the alignment
    follow descriptions of it; what a rollout without calls adds (nothing) is a reconstruction. What is drawn follows
    from the ``seed`` of the trajectories and the numbers of conversations. A group of one trajectory has main
    advantages of 0, but its calls are compared. Without calls, and so without roles, this is
    :class:`GroupStandardized`.

    slots: calls of a rollout after alignment; None: as many as the rollout of the group with most has of this role.
    reweight: every call that is kept weighs 1, however often it is repeated; the mean and the deviation do not change.
    outcome: weight of the trajectory's return, or of its ``success`` where ``by`` says so.  least: least return that
    counts.  valid, earned: as above.
    correction: 1 for the sample standard deviation, 0 for the population's.  eps: added to the standard deviation.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process"})

    slots: Annotated[int, Ge(1)] | None = None
    reweight: bool = False
    outcome: FiniteFloat = 1.0
    by: Literal["return", "success"] = "return"
    least: FiniteFloat | None = None
    valid: FiniteFloat = 0.0
    earned: FiniteFloat = 0.0
    gated: bool = False
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"success"} if self.by == "success" else set())

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        main = x.group_of_trajectory.standardize(x.returns, self.correction, self.eps)
        credit = x.trajectory_of_turn.spread(main)
        calls = calls_of(x)
        if len(calls.turn):
            credit = credit.clone()
            credit[calls.turn] = calls.of_turn.spread(self._credit(x, calls)).to(credit.dtype)
        return x.to_tokens(turn=credit)

    def rewards(self, x: Experience, calls: Calls) -> Float[Tensor, " calls"]:
        """``R_ic`` of every call, before alignment."""
        result = x.returns
        if self.by == "success":
            if x.success is None:
                raise ValueError("calls rewarded by success need x.success")
            result = x.success.to(result.dtype)
        if self.least is not None:
            result = result.clamp(min=self.least)
        paid = torch.zeros(len(calls.turn), device=x.device) if x.turn_reward is None else x.turn_reward[calls.turn]
        own = calls.of_turn.sum(paid)
        reward = self.valid + self.outcome * result[calls.trajectory] + self.earned * own
        return torch.where(own < 0, 0.0, reward) if self.gated else reward

    def multiplicity(self, x: Experience, calls: Calls) -> Int[Tensor, " calls"]:
        """How many slots every call fills; 0: it is dropped."""
        if x.seed is None:
            raise ValueError("alignment of calls at random needs x.seed")
        own = Partition.by(calls.trajectory, calls.role)
        count, first = own.size(), own.first()
        trajectory, role = calls.trajectory[first], calls.role[first]
        slots = torch.full_like(count, self.slots or 0)
        if self.slots is None:
            kind = Partition.by(x.group_of_trajectory.labels[trajectory], role)
            slots = kind.spread(kind.max(count))
        chance = uniform(x.seed[calls.trajectory], calls.number * _ROLES + calls.role)
        filled = (own.rank(chance) < own.spread(slots)).long()
        lacking = (slots - count).clamp(min=0)
        row = torch.repeat_interleave(torch.arange(len(count), device=x.device), lacking)
        turn = torch.arange(len(row), device=x.device) - (lacking.cumsum(0) - lacking)[row]
        # Numbers below those of conversations, so that what is repeated is drawn apart from what is dropped.
        drawn = uniform(x.seed[trajectory[row]], -(2**62) + turn * _ROLES + role[row])
        chosen = first[row] + (drawn * count[row]).long()
        return filled.index_add(0, chosen, torch.ones_like(chosen))

    def _credit(self, x: Experience, calls: Calls) -> Float[Tensor, " calls"]:
        """Standardized over the slots, and weighted by how many of them a call fills."""
        multiplicity, reward = self.multiplicity(x, calls), self.rewards(x, calls)
        slot = torch.repeat_interleave(torch.arange(len(reward), device=x.device), multiplicity)
        pool = Partition.by(x.group_of_trajectory.labels[calls.trajectory][slot], calls.role[slot])
        credit = torch.zeros_like(reward)
        credit[slot] = pool.standardize(reward[slot], self.correction, self.eps).to(reward.dtype)
        weight = (multiplicity > 0).long() if self.reweight else multiplicity
        learnable = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask)
        trains = (calls.of_turn.sum(learnable[calls.turn]) > 0).long()
        of_role = Partition.by(calls.role)
        share = of_role.sum(trains).double() / of_role.sum(weight * trains).clamp(min=1)
        return credit * (weight * of_role.spread(share)).to(credit.dtype)


_ROLES = 2**16
"""More roles than there are."""


def _earned(x: Experience) -> Float[Tensor, " turns"]:
    """Rewards of turns, with what they lack of the return in the last one, unless it is lacking by rounding alone."""
    rewards = x.turn_rewards()
    if x.turn_reward is None:
        return rewards
    return torch.where(torch.isclose(rewards, x.turn_reward, rtol=1e-5, atol=1e-6), x.turn_reward, rewards)
