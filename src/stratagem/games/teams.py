"""Games between two teams: what joint actions earn, what members see of it, and how exploitable a team policy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from stratagem.errors import InputError


@dataclass(frozen=True, eq=False)
class TeamGame:
    """A symmetric zero-sum game of one move between two teams of equal members, who choose at the same time.

    A joint action is a number in base ``actions``, the first member's digit first. Members of a team cannot
    correlate: a team policy is ``[members, actions]``, a probability for each action of each member.

    payoffs: ``[joint action, joint action of the other team]``; antisymmetric.

    Raises :class:`InputError` for payoffs of another shape, not finite, or not antisymmetric.
    """

    name: str
    members: int
    actions: int
    payoffs: Float64[ndarray, "joint joint"]

    def __post_init__(self) -> None:
        count = self.actions**self.members
        if self.members < 1 or self.actions < 1 or self.payoffs.shape != (count, count):
            raise InputError(f"team game {self.name}: payoffs must be {(count, count)}, not {self.payoffs.shape}")
        if not np.isfinite(self.payoffs).all():
            raise InputError(f"team game {self.name}: payoffs must be finite")
        if np.abs(self.payoffs + self.payoffs.T).max() > 1e-9 * max(1.0, float(np.abs(self.payoffs).max())):
            raise InputError(
                f"team game {self.name}: payoffs must be antisymmetric: what one team wins the other loses"
            )

    @classmethod
    def of(
        cls, name: str, members: int, actions: int, gain: Callable[[tuple[int, ...], tuple[int, ...]], float]
    ) -> TeamGame:
        """The game in which a team earns ``gain(mine, theirs) - gain(theirs, mine)``."""
        joint = list(product(range(actions), repeat=members))
        gains = np.array([[gain(mine, theirs) for theirs in joint] for mine in joint], np.float64)
        return cls(name, members, actions, gains - gains.T)

    def joint(self, policy: Float64[ndarray, "members actions"]) -> Float64[ndarray, " joint"]:
        """Probability of each joint action."""
        weights = np.ones(1)
        for member in policy:
            weights = np.outer(weights, member).reshape(-1)
        return weights

    def value(self, mine: Float64[ndarray, "members actions"], theirs: Float64[ndarray, "members actions"]) -> float:
        """What a team policy earns against another."""
        return float(self.joint(mine) @ self.payoffs @ self.joint(theirs))

    def member_values(
        self, policy: Float64[ndarray, "members actions"], theirs: Float64[ndarray, " joint"]
    ) -> Float64[ndarray, "members actions"]:
        """What each action of each member earns when the rest of the team keeps its policy, against joint actions."""
        earned = (self.payoffs @ theirs).reshape((self.actions,) * self.members)
        found = np.empty_like(policy)
        for member in range(self.members):
            left = np.moveaxis(earned, member, 0).reshape(self.actions, -1)
            found[member] = left @ self.joint(np.delete(policy, member, axis=0))
        return found

    def exploitability(self, theirs: Float64[ndarray, " joint"]) -> float:
        """The most a team earns against joint actions of this distribution when it deviates as one; 0 at a global Nash
        equilibrium."""
        return float((self.payoffs @ theirs).max())

    def uniform(self) -> Float64[ndarray, "members actions"]:
        """The team policy of chance."""
        return np.full((self.members, self.actions), 1.0 / self.actions)


def unanimity(members: int = 3, prize: float = 1.5, epsilon: float = 0.1) -> TeamGame:
    """Action 1 is worth 1 to each member who takes it; all of a team on 0 spoil it for the other.

    All on 0 against ``k`` on 1 earns ``epsilon k`` for ``k < members`` and ``prize`` for all of them; so all on 0 is a
    global equilibrium, and all on 1 one that no single member wants to leave. The example of arXiv 2310.03354.
    """

    def gain(mine: tuple[int, ...], theirs: tuple[int, ...]) -> float:
        spoiled = (1.0 + epsilon) * sum(theirs) if not any(mine) else 0.0
        won = prize - members * epsilon if not any(mine) and all(theirs) else 0.0
        return sum(mine) + spoiled + won

    return TeamGame.of("unanimity", members, 2, gain)


def team_rps() -> TeamGame:
    """Rock, paper, scissors by two members: both 0 is rock, both 1 scissors, one of each paper. A win earns 1.

    No team policy without correlation is an equilibrium; a mixture of several is.
    """

    def gain(mine: tuple[int, ...], theirs: tuple[int, ...]) -> float:
        # Rock 0, paper 1, scissors 2: each beats the one before it.
        return float((sum(mine) - sum(theirs)) % 3 == 1)

    return TeamGame.of("team_rps", 2, 2, gain)


def seek_attack_defend(members: int = 3, levels: int = 3, force: int = 2, cost: float = 0.0) -> TeamGame:
    """Members seek a level, attack (action ``levels``) or defend (action ``levels + 1``).

    A seeker at level ``i = 1, 2, ...`` earns ``1 + i^2 / levels^2`` if the levels its team seeks differ by at most 1;
    otherwise only seekers of level 1 do. With at least ``force`` attackers against it and no defender, a team loses
    what it earned. Attackers pay ``cost``. After arXiv 2310.03354; details are our reading.
    """

    def gain(mine: tuple[int, ...], theirs: tuple[int, ...]) -> float:
        sought = [action + 1 for action in mine if action < levels]
        together = not sought or max(sought) - min(sought) <= 1
        earned = sum(1.0 + (level / levels) ** 2 for level in sought if together or level == 1)
        lost = theirs.count(levels) >= force and levels + 1 not in mine
        return (0.0 if lost else earned) - cost * mine.count(levels)

    return TeamGame.of("seek_attack_defend", members, levels + 2, gain)
