"""Several policies that learn in one run: groups of one optimizer for each of them, and a gradient clipped for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.parts import Optimization, View
from stratagem.shards import whole
from stratagem.training.world import Policy


@runtime_checkable
class MadeOfMembers(Protocol):
    """A policy that is made of others, which share no parameter."""

    @property
    def members(self) -> Sequence[Policy]: ...


def members_of(policy: Policy) -> tuple[Policy, ...]:
    """The policies it is made of; itself when it is one."""
    return tuple(policy.members) if isinstance(policy, MadeOfMembers) else (policy,)


@dataclass(frozen=True, eq=False)
class Learners:
    """One optimizer over all members of a policy, and which parameters are whose.

    Optimizers here step every parameter, or every matrix, by itself. One for each member would take the same steps, and
    one over all is one thing to save. What would tie members together is a norm over all gradients, so each member's
    gradient is clipped by its own.

    parameters: of every member.  groups: of the optimizer, for every member.
    """

    optimizer: torch.optim.Optimizer
    parameters: tuple[tuple[Tensor, ...], ...]
    groups: int

    @classmethod
    def of(cls, policy: Policy, optimization: Optimization, view: View | None) -> Self:
        """A fresh optimizer: groups of every member, then one of what is the view's alone, if there is any."""
        members = members_of(policy)
        made = [
            optimization.optimizer(m.policy_parameters(), m.critic_parameters(), m.hidden_matrices()) for m in members
        ]
        optimizer, groups = made[0], len(made[0].param_groups)
        for other in made[1:]:
            for group in other.param_groups:
                optimizer.add_param_group(group)
        own = [tuple(member.view_parameters(view)) for member in members]
        parameters = tuple(
            (*chain.from_iterable(group["params"] for group in other.param_groups[:groups]), *further)
            for other, further in zip(made, own, strict=True)
        )
        if any(own):
            optimizer.add_param_group({"params": list(chain(*own)), "lr": 0.0, "weight_decay": 0.0})
        learners = cls(optimizer, parameters, groups)
        learners._factors(optimization)
        return learners

    @property
    def has_view_group(self) -> bool:
        """Whether the last group is of the view."""
        return len(self.optimizer.param_groups) > self.groups * len(self.parameters)

    def set_learning_rates(self, optimization: Optimization, of_view: float) -> None:
        """The optimization's rates times each member's factor, and the view's own."""
        factors, rates = self._factors(optimization), optimization.learning_rates()
        all_rates = [factor * rate for factor in factors for rate in rates] + [of_view] * self.has_view_group
        for group, rate in zip(self.optimizer.param_groups, all_rates, strict=True):
            group["lr"] = rate

    def clip(self, optimization: Optimization) -> list[Tensor]:
        """Scale every member's gradient down to ``max_grad_norm``; norms as they were, 0 where nothing moves.

        A member whose factor is 0, or that nothing was learned for beside others, loses its gradient: neither its
        weights nor its moments move.
        """
        norms = []
        for mine, factor in zip(self.parameters, self._factors(optimization), strict=True):
            norm = torch.zeros((), device=mine[0].device)
            if factor > 0:
                norm = _clip(mine, optimization.max_grad_norm)
            if factor == 0 or (len(self.parameters) > 1 and norm == 0):
                for parameter in mine:
                    parameter.grad = None
            norms.append(norm)
        return norms

    def _factors(self, optimization: Optimization) -> tuple[float, ...]:
        given, count = optimization.member_rates, len(self.parameters)
        if len(given) > count:
            raise InputError(
                f"optimization.member_rates names {len(given)} members, but the policy has {count}; "
                "roles that share a model share its learning rate"
            )
        return (*given, *(1.0,) * (count - len(given)))


def _clip(parameters: Sequence[Tensor], longest: float) -> Tensor:
    """As ``torch.nn.utils.clip_grad_norm_``, of divided parameters, too."""
    norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return norm


def together(norms: Sequence[Tensor]) -> Tensor:
    """Norm of all gradients, from each member's."""
    if len(norms) == 1:
        return norms[0]
    total: Tensor = torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    return total
