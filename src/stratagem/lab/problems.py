"""Decision problems whose reward is a weighted sum of components: tabular processes, and the games of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.lab.exact import Exact, optimal_values
from stratagem.lab.game import TokenGame
from stratagem.lab.mdp import TabularMDP
from stratagem.lab.tree import Tree

MOST_NUMBERS = 2**24
"""Of a table that is solved for several rewards at once."""


class Problem(Protocol):
    """What the optimal policy of a composite reward can be asked about.

    names, weights: of the components.  components: float64 [components, *entries], the reward entry by entry.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def weights(self) -> tuple[float, ...]: ...
    @property
    def components(self) -> Float64[Tensor, "components ..."]: ...
    @property
    def precision(self) -> float:
        """Relative precision in which rewards are known; what differs by less is a tie."""

    @property
    def reach(self) -> Float64[Tensor, "states actions"]:
        """How far ``Q*`` moves at most when no entry of the reward moves by more than 1."""

    @property
    def longest(self) -> float:
        """Most decisions of an episode, discounted."""

    def optimal_values(
        self, reward: Float64[Tensor, "batch ..."], temperature: float = 0.0
    ) -> Float64[Tensor, "batch states actions"]:
        """``Q*`` for each reward; with an entropy bonus above temperature 0."""

    def returns(self, policy: Float64[Tensor, "states actions"]) -> Float64[Tensor, " components"]:
        """What a policy earns of each component, from the starts."""

    def visited(self, policy: Float64[Tensor, "states actions"]) -> Bool[Tensor, " states"]:
        """States it may come by."""

    def label(self, state: int) -> str:
        """A state as a person reads it."""


def combined(problem: Problem) -> Float64[Tensor, " ..."]:
    """The reward: components by their weights."""
    return torch.einsum("c,c...->...", torch.tensor(problem.weights, dtype=torch.float64), problem.components)


@dataclass(frozen=True, eq=False)
class MDPProblem:
    """A tabular process; every state is a start, all of equal odds.

    rewards: components [states, actions] by name, in place of the process's own.  weights: by the same names, 1 unless
    given; they need not add up to 1. For a weight that depends on the state, multiply the component by it.

    Raises :class:`InputError` for a component that does not fit or is not finite, and a weight of no component.
    """

    mdp: TabularMDP
    names: tuple[str, ...]
    weights: tuple[float, ...]
    components: Float64[Tensor, "components states actions"]

    precision = 1e-9

    @classmethod
    def of(
        cls,
        mdp: TabularMDP,
        rewards: Mapping[str, Float[Tensor, "states actions"]] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Self:
        """The problem of a process, with its own reward or with these components."""
        parts = {"reward": mdp.reward} if rewards is None else dict(rewards)
        for name, part in parts.items():
            if part.shape != mdp.reward.shape or not bool(part.isfinite().all()):
                raise InputError(f"reward {name!r}: must be finite, of shape {tuple(mdp.reward.shape)}")
        given = weighted(tuple(parts), (1.0,) * len(parts), weights)
        return cls(mdp, tuple(parts), given, torch.stack([part.double() for part in parts.values()]))

    @property
    def reach(self) -> Float64[Tensor, "states actions"]:
        """How far ``Q*`` moves at most when no entry of the reward moves by more than 1."""
        return self.mdp.reach

    @property
    def longest(self) -> float:
        """Most decisions of an episode, discounted."""
        return float(self.mdp.reach.max())

    def optimal_values(
        self, reward: Float64[Tensor, "batch states actions"], temperature: float = 0.0
    ) -> Float64[Tensor, "batch states actions"]:
        """``Q*`` for each reward; with an entropy bonus above temperature 0."""
        return self.mdp.optimal_values(reward, temperature)

    def returns(self, policy: Float64[Tensor, "states actions"]) -> Float64[Tensor, " components"]:
        """What a policy earns of each component, mean over the states it may start in."""
        return self.mdp.policy_values(policy.expand(self.components.shape), self.components).mean(-1)

    def visited(self, policy: Float64[Tensor, "states actions"]) -> Bool[Tensor, " states"]:
        """All of them: every state is a start."""
        return torch.ones(self.mdp.states, dtype=torch.bool)

    def label(self, state: int) -> str:
        """Its number."""
        return str(state)


@dataclass(frozen=True, eq=False)
class GameProblem:
    """A game of the lab. Its states are the decision nodes, its rewards the returns of complete trajectories.

    weights: of the components by name, in place of the game's own.

    Raises :class:`InputError` for a weight of no component, and rewards that are not finite.
    """

    tree: Tree
    weights: tuple[float, ...]

    # What float32 may have taken from sums of a few rewards.
    precision = 4 * torch.finfo(torch.float32).eps

    @classmethod
    def of(cls, game: TokenGame, weights: Mapping[str, float] | None = None) -> Self:
        """The problem of a game, with its own weights or with some of them changed."""
        tree = Tree.enumerate(game)
        assert tree.leaves.reward is not None
        if not bool(tree.leaves.reward.isfinite().all()):
            raise InputError(f"game {game.name}: rewards must be finite")
        return cls(tree, weighted(game.reward_names, tree.leaves.reward_weights, weights))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the components."""
        return self.tree.game.reward_names

    @cached_property
    def components(self) -> Float64[Tensor, "components leaves"]:
        """Totals of every complete trajectory."""
        assert self.tree.leaves.reward is not None
        return self.tree.leaves.reward.double().T.contiguous()

    @property
    def reach(self) -> Float64[Tensor, "nodes vocabulary"]:
        """How far ``Q*`` moves at most when no return moves by more than 1: by 1."""
        return torch.ones(self.tree.nodes, self.tree.game.vocabulary, dtype=torch.float64)

    @property
    def longest(self) -> float:
        """Most tokens of an episode."""
        return float(self.tree.leaves.trajectory_of_token.size().max())

    def optimal_values(
        self, reward: Float64[Tensor, "batch leaves"], temperature: float = 0.0
    ) -> Float64[Tensor, "batch nodes vocabulary"]:
        """``Q*`` of whole episodes for each reward; with an entropy bonus above temperature 0."""
        at_once = max(1, MOST_NUMBERS // self.tree.leaves.tokens)
        solved = [optimal_values(self.tree, some.T, temperature) for some in reward.split(at_once)]
        return torch.cat(solved, -1).permute(2, 0, 1)

    def returns(self, policy: Float64[Tensor, "nodes vocabulary"]) -> Float64[Tensor, " components"]:
        """What a policy earns of each component."""
        return self.components @ Exact(self.tree, policy.log()).leaf_probability

    def visited(self, policy: Float64[Tensor, "nodes vocabulary"]) -> Bool[Tensor, " nodes"]:
        """Nodes it may come by."""
        return Exact(self.tree, policy.log()).node_probability > 0

    def label(self, state: int) -> str:
        """The state in which the turn began, and the tokens said since."""
        x = self.tree.leaves
        row = int(torch.nonzero(self.tree.node == state)[0])
        first = row - int(x.turn_of_token.position()[row])
        said = " ".join(map(str, self.tree.action[first:row].tolist()))
        return f"{self.tree.states[state]}" + (f" after {said}" if said else "")


def weighted(
    names: tuple[str, ...], weights: tuple[float, ...], changed: Mapping[str, float] | None
) -> tuple[float, ...]:
    """The weights with some of them changed. Raises :class:`InputError` for a name or a number that is none."""
    known = dict(zip(names, weights, strict=True))
    for name, weight in (changed or {}).items():
        if name not in known:
            raise unknown("reward", name, names)
        if not -float("inf") < weight < float("inf"):
            raise InputError(f"weight of reward {name!r} = {weight}: must be finite")
        known[name] = weight
    return tuple(known.values())
