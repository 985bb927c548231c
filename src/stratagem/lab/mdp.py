"""Finite decision processes solved exactly, with and without an entropy bonus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.seeding import generator

ROUNDING = 1e-12
"""Relative error that sums of float64 may leave."""

NOTHING = 1e-290
"""Differences of values below this are none: so close to the smallest float64, errors are no longer relative."""


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite Markov decision process. Numbers are taken to float64.

    transition: [states, actions, states], the odds of every next state. They may add up to less than 1: the rest is
    the probability that the episode ends there.
    reward: [states, actions], expected.
    discount: of the next step, in [0, 1]. 1 only where every policy comes to an end, as in :meth:`finite`.

    Raises :class:`InputError` for shapes that do not fit, numbers that are not finite, odds that are none, and a
    discount of 1 with which a policy could go on forever.
    """

    transition: Float[Tensor, "states actions next_states"]
    reward: Float[Tensor, "states actions"]
    discount: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "transition", self.transition.double())
        object.__setattr__(self, "reward", self.reward.double())
        odds, shape = self.transition, tuple(self.transition.shape)
        if len(shape) != 3 or shape[0] != shape[2] or min(shape) < 1:
            raise InputError(f"tabular_mdp.transition has shape {shape}: must be (states, actions, states)")
        if tuple(self.reward.shape) != shape[:2]:
            raise InputError(f"tabular_mdp.reward has shape {tuple(self.reward.shape)}: must be {shape[:2]}")
        if not bool(self.reward.isfinite().all()):
            raise InputError("tabular_mdp.reward: must be finite")
        if not bool((odds >= 0).all() and (odds.sum(-1) <= 1 + 1e-9).all()):
            raise InputError("tabular_mdp.transition: odds must be at least 0 and add up to at most 1")
        if not 0 <= self.discount <= 1:
            raise InputError(f"tabular_mdp.discount = {self.discount}: must be in [0, 1]")
        if self.discount == 1 and bool(self._endless().any()):
            raise InputError("tabular_mdp.discount = 1: a policy could go on forever; use a horizon or discount less")

    @classmethod
    def random(cls, seed: int, states: int = 5, actions: int = 3, discount: float = 0.9) -> Self:
        """Odds uniform over all distributions, rewards standard normal."""
        source = generator(seed, "mdp")
        odds = -torch.rand((states, actions, states), generator=source, dtype=torch.float64).log()
        reward = torch.randn((states, actions), generator=source, dtype=torch.float64)
        return cls(odds / odds.sum(-1, keepdim=True), reward, discount)

    @classmethod
    def bandit(cls, reward: Float[Tensor, " actions"]) -> Self:
        """One state, in which every action ends the episode."""
        return cls(torch.zeros(1, len(reward), 1), reward.unsqueeze(0))

    @classmethod
    def finite(
        cls,
        transition: Float[Tensor, "states actions next_states"],
        reward: Float[Tensor, "states actions"],
        horizon: int,
        discount: float = 1.0,
    ) -> Self:
        """The process of ``horizon`` steps: state ``t * states + s`` is ``s`` at step ``t``, and the last step ends it.

        Raises :class:`InputError` for a horizon below 1.
        """
        if horizon < 1:
            raise InputError(f"tabular_mdp.finite: horizon = {horizon}: must be at least 1")
        states, actions = reward.shape
        later = torch.diag(torch.ones(horizon - 1, dtype=torch.float64), 1)
        odds = torch.einsum("hg,sat->hsagt", later, transition.double())
        return cls(odds.reshape(horizon * states, actions, -1), reward.repeat(horizon, 1), discount)

    @property
    def states(self) -> int:
        """Number of states."""
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.reward.shape[1]

    # ---- solving ---------------------------------------------------------------------------------------------------

    def optimal_values(
        self, reward: Float[Tensor, "*batch states actions"] | None = None, temperature: float = 0.0
    ) -> Float64[Tensor, "*batch states actions"]:
        """``Q*(s, a)`` by policy iteration, to the last digits.

        reward: other rewards, one or a batch of them.
        temperature: ``alpha``. Above 0, of a player who is also paid ``alpha`` per nat of entropy in every state:
        ``V(s) = alpha log sum_a exp(Q(s, a) / alpha)``, with policy ``exp(Q(s, a) / alpha)`` up to a factor. Policy
        iteration is then Newton's method; it is stable for ``alpha`` as small as 1e-6.
        """
        rewards = self._batch(reward)
        values = rewards
        policy = choice(values, temperature)
        least = math.inf
        while True:
            state_value = self._policy_values(policy, rewards, temperature)
            values = self._ahead(rewards, state_value)
            gap = soft_maximum(values, temperature) - state_value
            size = state_value.abs().amax(-1, keepdim=True) + rewards.abs().amax((-2, -1)).unsqueeze(-1)
            rounding = ROUNDING * size + NOTHING
            # Improvements shrink; one that does not, so near the optimum, is rounding, too.
            stuck = float(gap.max()) >= least and bool((gap <= 1e4 * rounding).all())
            if stuck or bool((gap <= rounding).all()):
                return values.view(self.reward.shape if reward is None else reward.shape)
            least = min(least, float(gap.max()))
            policy = self._improved(policy, values, temperature)

    def value_iteration(
        self,
        reward: Float[Tensor, "*batch states actions"] | None = None,
        temperature: float = 0.0,
        tolerance: float = 1e-9,
    ) -> Float64[Tensor, "*batch states actions"]:
        """As :meth:`optimal_values`, by repeating ``Q <- R + discount P V``: no linear system is solved.

        tolerance: largest absolute error of a value, above 0.
        """
        if tolerance <= 0:
            raise InputError(f"tabular_mdp.value_iteration: tolerance = {tolerance}: must be above 0")
        rewards = self._batch(reward)
        # An error of one sweep can come back in every later one, each discounted: at most ``longest`` times in all.
        longest = float(self.reach.max())
        values = rewards
        least = math.inf
        while True:
            swept = self._ahead(rewards, soft_maximum(values, temperature))
            change = float((swept - values).abs().max())
            values = swept
            # Changes shrink; one that does not, among the last digits, is rounding.
            stuck = change >= least and change <= 1e4 * ROUNDING * float(values.abs().max()) + NOTHING
            least = min(least, change)
            if stuck or change * longest <= max(tolerance, ROUNDING * float(values.abs().max())):
                return values.view(self.reward.shape if reward is None else reward.shape)

    def policy_values(
        self,
        policy: Float[Tensor, "*batch states actions"],
        reward: Float[Tensor, "*batch states actions"] | None = None,
    ) -> Float64[Tensor, "*batch states"]:
        """``V(s)`` of policies (probabilities) for the rewards, without any bonus."""
        given = policy.double()
        rewards = self.reward.expand(given.shape) if reward is None else reward.double().expand(given.shape)
        flat = self._policy_values(given.reshape(-1, *self.reward.shape), rewards.reshape(-1, *self.reward.shape), 0.0)
        return flat.view(given.shape[:-1])

    @cached_property
    def reach(self) -> Float64[Tensor, "states actions"]:
        """How far ``Q*`` can move: ``|Q*_R1 - Q*_R2| <= reach * max |R1 - R2|``, with and without entropy bonus.

        It is the most discounted steps there can be from an action on, that one included: ``1 / (1 - discount)`` where
        nothing ends.
        """
        return self.optimal_values(torch.ones_like(self.reward))

    def visited(
        self, policy: Float[Tensor, "states actions"], start: Bool[Tensor, " states"]
    ) -> Bool[Tensor, " states"]:
        """States that the policy may come by from those of ``start``."""
        step = torch.einsum("sa,sat->st", policy.double(), self.transition) > 0
        seen = start.clone()
        while True:
            further = seen | (step & seen.unsqueeze(1)).any(0)
            if torch.equal(further, seen):
                return seen
            seen = further

    # ---- helpers ---------------------------------------------------------------------------------------------------

    def _batch(self, reward: Tensor | None) -> Float64[Tensor, "batch states actions"]:
        given = self.reward if reward is None else reward.double()
        if given.shape[-2:] != self.reward.shape:
            raise InputError(
                f"tabular_mdp: reward has shape {tuple(given.shape)}: must end in {tuple(self.reward.shape)}"
            )
        if not bool(given.isfinite().all()):
            raise InputError("tabular_mdp: reward must be finite")
        return given.reshape(-1, *self.reward.shape)

    def _ahead(self, rewards: Tensor, state_value: Tensor) -> Float64[Tensor, "batch states actions"]:
        return rewards + self.discount * torch.einsum("sat,bt->bsa", self.transition, state_value)

    def _policy_values(self, policy: Tensor, rewards: Tensor, temperature: float) -> Float64[Tensor, "batch states"]:
        step = torch.einsum("bsa,sat->bst", policy, self.transition)
        earned = (policy * rewards).sum(-1) + temperature * torch.special.entr(policy).sum(-1)
        system = torch.eye(self.states, dtype=torch.float64) - self.discount * step
        solved: Tensor = torch.linalg.solve(system, earned.unsqueeze(-1))
        return solved.squeeze(-1)

    def _improved(self, policy: Tensor, values: Tensor, temperature: float) -> Tensor:
        """The policy these values suggest. An action as good as the best is kept, or rounding could lead in circles."""
        if temperature > 0:
            return choice(values, temperature)
        kept = (policy * values).sum(-1) >= values.amax(-1) - ROUNDING * values.abs().amax((-2, -1)).unsqueeze(-1)
        return torch.where(kept.unsqueeze(-1), policy, choice(values, 0.0))

    def _endless(self) -> Bool[Tensor, " states"]:
        """States from which some policy never ends."""
        endless = torch.ones(self.states, dtype=torch.bool)
        while True:
            stays = (self.transition[:, :, endless].sum(-1) >= 1 - 1e-9).any(-1) & endless
            if torch.equal(stays, endless):
                return endless
            endless = stays


def soft_maximum(values: Float64[Tensor, "*rows actions"], temperature: float) -> Float64[Tensor, "*rows"]:
    """``temperature log sum_a exp(values / temperature)`` without overflow; the maximum at temperature 0."""
    if temperature == 0:
        return values.amax(-1)
    return temperature * torch.logsumexp(values / temperature, -1)


def choice(values: Float64[Tensor, "*rows actions"], temperature: float) -> Float64[Tensor, "*rows actions"]:
    """Odds ``exp(values / temperature)``; all on the first best action at temperature 0."""
    if temperature == 0:
        return torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1]).double()
    return torch.softmax(values / temperature, -1)
