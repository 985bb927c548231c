"""Fictitious cross-play: a main team policy that plays itself, its past, and teams trained to beat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from numpy import ndarray

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.metasolvers import FictitiousPlay, MetaSolver
from stratagem.games.teams import TeamGame
from stratagem.part import Part


@dataclass(frozen=True)
class GreedySteps(Part):
    """Learning by members on their own: each moves a share of the way to its greedy reply, again and again.

    One member after another moves twice as far. Of equal replies one is drawn. Ends once every member has been within
    a squared distance ``close`` of its reply for 5 steps, or a tenth of those taken, and at least ``least`` were taken.

    rate: share of the way.  most: steps.
    """

    kind: ClassVar[str] = "team_learner"
    rate: Annotated[float, Gt(0), Le(0.5)] = 0.1
    close: Annotated[float, Gt(0)] = 1e-4
    least: Annotated[int, Ge(1)] = 50
    most: Annotated[int, Ge(1)] = 1000

    def __call__(
        self,
        game: TeamGame,
        policy: Float64[ndarray, "members actions"],
        opponent: Float64[ndarray, " joint"],
        itself: float,
        draw: np.random.Generator,
    ) -> tuple[Float64[ndarray, "members actions"], int]:
        """The policy learned against ``itself`` parts of itself and ``1 - itself`` of opponents, and steps taken."""
        calm = 0
        for step in range(1, self.most + 1):
            theirs = itself * game.joint(policy) + (1.0 - itself) * opponent if itself else opponent
            reply = _greedy(game.member_values(policy, theirs), draw)
            far = float(((policy - reply) ** 2).sum(1).max())
            rates = np.full((game.members, 1), self.rate)
            rates[(step - 1) % game.members] *= 2.0
            policy = policy + rates * (reply - policy)
            calm = calm + 1 if far < self.close else 0
            if step >= self.least and calm >= max(5, step // 10):
                return policy, step
        return policy, self.most


def _greedy(values: Float64[ndarray, "members actions"], draw: np.random.Generator) -> ndarray:
    """The best action of each member as a policy; of equal ones a random one."""
    best = values >= values.max(1, keepdims=True) - 1e-12
    chosen = np.where(best, draw.random(values.shape), -1.0).argmax(1)
    return np.asarray(np.eye(values.shape[1])[chosen])


@paper(
    "2310.03354",
    name="fxp",
    title="Fictitious Cross-Play: Learning Global Nash Equilibrium in Mixed Cooperative-Competitive Games",
    family="games",
    roles=("solver", "meta_solver"),
    year=2023,
    base="psro",
)
@dataclass(frozen=True)
class CrossPlay(Part):
    """Fictitious cross-play: ``itself V(pi, pi) + (1 - itself) sum_k c_k V(pi, k)`` over all saved policies ``k``.

    Members who learn on their own find equilibria that no single member leaves. So beside each main policy ``pi`` a
    counter team is trained, from a new random start, to beat the main policies saved; its answers drive the main
    policy towards an equilibrium that no team leaves. ``c`` is ``meta`` of the game among all saved policies, and a
    counter team's opponents are drawn by ``meta`` of main against counter policies.

    itself: share of play against itself; 1 without counters is plain self-play.  counters: train them.
    restart: main policies, too, start anew in each round, which with ``itself = 0`` and no counters is PSRO with
    members who learn on their own.  Source: arXiv 2310.03354 and the authors' released program for matrix games.
    """

    kind: ClassVar[str] = "team_solver"
    itself: Annotated[float, Ge(0), Le(1)] = 0.3
    counters: bool = True
    restart: bool = False
    meta: MetaSolver = FictitiousPlay()
    learner: GreedySteps = GreedySteps()

    def start(self, game: TeamGame, seed: int = 0) -> CrossPlayRun:
        """Itself at work on a game, from random policies of this seed."""
        return CrossPlayRun(self, game, np.random.default_rng(seed))


class CrossPlayRun:
    """Both populations on one game. mains, counters: policies saved.  steps: of learning, both teams together."""

    def __init__(self, solver: CrossPlay, game: TeamGame, draw: np.random.Generator) -> None:
        self.solver, self.game, self.steps, self._draw = solver, game, 0, draw
        self.policy = self._anew()
        self.mains: list[ndarray] = []
        self.counters = [game.uniform()]

    def advance(self, rounds: int = 1) -> None:
        """Train and save another main policy and, where there are counters, another counter. Raises
        :class:`InputError` for a negative number."""
        if rounds < 0:
            raise InputError(f"rounds = {rounds}: must be at least 0")
        for _ in range(rounds):
            if self.solver.restart:
                self.policy = self._anew()
            self.policy = self._learned(self.policy, self._opponents(), self.solver.itself)
            self.mains.append(self.policy)
            if self.solver.counters:
                table = self._table(self.mains, self.counters)
                weights = self.solver.meta(Metagame.of_matrices(table))[0]
                self.counters.append(self._learned(self._anew(), self._mixed(self.mains, weights), 0.0))

    @property
    def saved(self) -> list[ndarray]:
        """All policies that may be opponents: main ones, then counters, the first of which is uniform."""
        return [*self.mains, *self.counters]

    def mixture(self) -> Mixture:
        """The meta-solver's mixture of all saved policies."""
        table = self._table(self.saved, self.saved)
        # Each pair counts once, so that rounding does not favour a side.
        return self.solver.meta(Metagame.of_matrices((table - table.T) / 2.0))[0]

    def exploitability(self) -> float:
        """Of the main policy, by teams that deviate as one."""
        return self.game.exploitability(self.game.joint(self.policy))

    def mixture_exploitability(self) -> float:
        """Of the mixture of all saved policies."""
        return self.game.exploitability(self._mixed(self.saved, self.mixture()))

    def _opponents(self) -> ndarray:
        """Joint actions of saved policies; of nobody, for those who play only themselves."""
        return self.game.joint(self.policy) if self.solver.itself == 1.0 else self._mixed(self.saved, self.mixture())

    def _anew(self) -> ndarray:
        drawn: ndarray = self._draw.dirichlet(np.ones(self.game.actions), self.game.members)
        return drawn

    def _learned(self, policy: ndarray, opponent: ndarray, itself: float) -> ndarray:
        learned, steps = self.solver.learner(self.game, policy, opponent, itself, self._draw)
        self.steps += steps
        return learned

    def _mixed(self, policies: list[ndarray], mixture: Mixture) -> ndarray:
        """Distribution of joint actions of a mixture."""
        return np.asarray(mixture @ np.stack([self.game.joint(policy) for policy in policies]))

    def _table(self, rows: list[ndarray], columns: list[ndarray]) -> ndarray:
        """What policies earn against others."""
        left, right = (np.stack([self.game.joint(policy) for policy in side]) for side in (rows, columns))
        return np.asarray(left @ self.game.payoffs @ right.T)
