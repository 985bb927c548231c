"""How near a reward is to a policy cliff: a point at which the best policy jumps however little the reward moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from stratagem.catalogue import paper
from stratagem.experience import Experience
from stratagem.lab.answers import AnswerCliffs, answer_cliffs
from stratagem.lab.game import TokenGame
from stratagem.lab.mdp import TabularMDP, choice
from stratagem.lab.problems import GameProblem, MDPProblem, Problem, combined
from stratagem.part import Part
from stratagem.seeding import generator


@dataclass(frozen=True)
class Flip:
    """A weight of one component at which the best policy changes, the other weights being as they are.

    states: visited states whose best actions change.  before, after: what the best policy earns of each component below
    and above the weight.
    """

    component: str
    weight: float
    states: tuple[int, ...]
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class Perturbation:
    """What random changes of the reward do, over visited states: every entry moves by at most ``epsilon``, uniformly.

    changed: share of states and draws in which the set of best actions is another.
    hard: mean total variation between best policies, which are uniform over tied actions.
    soft, soft_most: mean and largest total variation between policies with an entropy bonus of ``temperature``.
    soft_bound: of these, ``epsilon reach / (2 temperature)``, at most 1.
    """

    epsilon: float
    draws: int
    seed: int
    temperature: float
    changed: float
    hard: float
    soft: float
    soft_most: float
    soft_bound: float


@dataclass(frozen=True, eq=False)
class CliffReport:
    """Where the best policy of a problem stands, and what would make it jump.

    best: actions that are optimal, ties included.  visited: states that a best policy may come by.
    gap: ``Delta(s)``, best value minus second best; 0 at a tie, infinite with a single action.
    margin: best value minus that of the best action that is *not* optimal; the gap where nothing ties.
    radius: no change of the reward by less than this, entry by entry, changes the best action; 0 at a tie.
    settled: no change by less than this makes another action optimal, though it may break a tie.
    flips: by component and weight.  scanned: weights of each component between which they were looked for.
    soft_loss: what the policy with entropy bonus earns less than the best, from the starts.  soft_loss_bound: the most
    it can be.  tie: relative difference below which values tie.
    """

    problem: Problem
    best: Bool[Tensor, "states actions"]
    visited: Bool[Tensor, " states"]
    gap: Float64[Tensor, " states"]
    margin: Float64[Tensor, " states"]
    radius: Float64[Tensor, " states"]
    settled: Float64[Tensor, " states"]
    flips: tuple[Flip, ...]
    scanned: dict[str, tuple[float, float]]
    perturbation: Perturbation
    soft_loss: float
    soft_loss_bound: float
    tie: float

    @property
    def ties(self) -> Bool[Tensor, " states"]:
        """Whether a state has several best actions."""
        return self.best.sum(-1) > 1

    @property
    def closest(self) -> list[int]:
        """Visited states, those nearest to a cliff first."""
        order = torch.argsort(self.radius, stable=True)
        return [int(state) for state in order[self.visited[order]]]

    def plain(self) -> dict[str, Any]:
        """The report as data for JSON: visited states only, nearest first; what is infinite is None."""
        order = self.closest
        return {
            "rewards": dict(zip(self.problem.names, self.problem.weights, strict=True)),
            "states": len(self.best),
            "visited": len(order),
            "tied": int((self.ties & self.visited).sum()),
            "radius": _finite(self.radius[order[0]]),
            "closest": [self._plain_state(state) for state in order],
            "flips": [
                {**asdict(flip), "states": [self.problem.label(state) for state in flip.states]} for flip in self.flips
            ],
            "scanned": {name: list(ends) for name, ends in self.scanned.items()},
            "perturbation": asdict(self.perturbation),
            "soft_loss": self.soft_loss,
            "soft_loss_bound": self.soft_loss_bound,
            "tie": self.tie,
        }

    def _plain_state(self, state: int) -> dict[str, Any]:
        figures = {name: _finite(getattr(self, name)[state]) for name in ("gap", "margin", "radius", "settled")}
        best = torch.nonzero(self.best[state]).squeeze(1).tolist()
        return {"state": self.problem.label(state), "best": best, **figures}


@paper(
    "2507.20150",
    title="The Policy Cliff: A Theoretical Analysis of Reward-Policy Maps in Large Language Models",
    family="objectives",
    roles=("diagnostic",),
    year=2025,
    name="policy_cliff",
    tags=("reward",),
)
@dataclass(frozen=True)
class PolicyCliff(Part):
    """Where the best policy of a reward jumps, ``gap(s) = Q*(s, best) - Q*(s, second) -> 0``, and how near that is.

    The map from a reward to its best policy is constant within ``gap (1 - discount) / 2`` of a reward without ties
    (theorem 2.3) and jumps at one with a tie (propositions 2.4 and 2.5); with an entropy bonus ``alpha`` it is smooth,
    ``TV(pi_R1, pi_R2) <= |R1 - R2| / (2 alpha (1 - discount))`` (proposition 4.5). :meth:`of_mdp` reports on a tabular
    process, :meth:`of_game` on a game of the lab, :meth:`of_answers` on the groups of any batch; ``stratagem cliff`` is
    the command.

    In place of ``1 / (1 - discount)`` stands the most discounted steps there can be from an action on, which is the
    same where nothing ends and less where episodes do.

    tie: relative difference below which values tie; at least the precision in which rewards are stored.
    temperature: ``alpha`` of the policy with entropy bonus.  epsilon: most that an entry of the reward is perturbed by.
    draws: of perturbed rewards.  seed: of the draws.
    span: weights are scanned this far below and above their present value, or twice as far as that is from 0 if that is
    more; so leaving a component out is among what is tried.
    """

    kind: ClassVar[str] = "diagnostic"

    tie: Annotated[float, Ge(0)] = 1e-9
    temperature: Annotated[float, Ge(0)] = 0.1
    epsilon: Annotated[float, Ge(0)] = 0.01
    draws: Annotated[int, Ge(1)] = 64
    span: Annotated[float, Gt(0)] = 1.0
    seed: Annotated[int, Ge(0)] = 0

    def of_mdp(
        self,
        mdp: TabularMDP,
        rewards: Mapping[str, Float[Tensor, "states actions"]] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> CliffReport:
        """The report on a tabular process; with ``rewards``, on their sum by ``weights`` (1 unless given).

        Raises :class:`InputError` for rewards and weights that do not fit or are not finite.
        """
        return self.of(MDPProblem.of(mdp, rewards, weights))

    def of_game(self, game: TokenGame, weights: Mapping[str, float] | None = None) -> CliffReport:
        """The report on a game of the lab; ``weights`` of its reward's components replace the game's own.

        A reward's entries are the returns of complete trajectories here, and values those of whole episodes.
        Raises :class:`InputError` for an unknown component and a weight that is not finite.
        """
        return self.of(GameProblem.of(game, weights))

    def of_answers(self, x: Experience) -> AnswerCliffs:
        """The report on the groups of a batch: which answer is best, and at which weights another one would be."""
        return answer_cliffs(x, self.tie)

    def of(self, problem: Problem) -> CliffReport:
        """The report on any problem."""
        tie = max(self.tie, problem.precision)
        reward = combined(problem).unsqueeze(0)
        values = problem.optimal_values(reward)
        best = optimal_actions(values, tie)[0]
        values = values[0]
        visited = problem.visited(_uniform(best))
        top = values.amax(-1)
        behind = torch.where(best, torch.inf, top.unsqueeze(-1) - values)
        alone = best.sum(-1) == 1
        # Best and other action move towards each other, each as far as the reward's change can move it.
        towards = torch.where(best, problem.reach, -torch.inf).amax(-1, keepdim=True) + problem.reach
        settled = (behind / towards).amin(-1)
        flips, scanned = self._flips(problem, tie)
        soft = choice(problem.optimal_values(reward, self.temperature)[0], self.temperature)
        lost = problem.returns(choice(values, 0.0)) - problem.returns(soft)
        return CliffReport(
            problem=problem,
            best=best,
            visited=visited,
            gap=torch.where(alone, behind.amin(-1), 0.0),
            margin=behind.amin(-1),
            radius=torch.where(alone, settled, 0.0),
            settled=settled,
            flips=flips,
            scanned=scanned,
            perturbation=self._perturbation(problem, reward, best, soft, visited, tie),
            soft_loss=sum(weight * float(less) for weight, less in zip(problem.weights, lost, strict=True)),
            soft_loss_bound=self.temperature * math.log(best.shape[-1]) * problem.longest,
            tie=tie,
        )

    # ---- weights ---------------------------------------------------------------------------------------------------

    def _flips(self, problem: Problem, tie: float) -> tuple[tuple[Flip, ...], dict[str, tuple[float, float]]]:
        flips: list[Flip] = []
        scanned = {}
        for number, (name, weight) in enumerate(zip(problem.names, problem.weights, strict=True)):
            far = max(self.span, 2 * abs(weight))
            scanned[name] = weight - far, weight + far
            line = _WeightLine(problem, number)
            points = line.turns(*scanned[name], tie)
            ends = [scanned[name][0], *points, scanned[name][1]]
            between = [line.between(low, high, tie) for low, high in pairwise(ends)]
            for point, (below, above) in zip(points, pairwise(between), strict=True):
                other = (below.best != above.best).any(-1) & (below.visited | above.visited)
                states = tuple(int(state) for state in torch.nonzero(other).squeeze(1))
                flips.append(Flip(name, point, states, below.returns, above.returns))
        return tuple(flips), scanned

    # ---- perturbations ---------------------------------------------------------------------------------------------

    def _perturbation(
        self, problem: Problem, reward: Tensor, best: Tensor, soft: Tensor, visited: Tensor, tie: float
    ) -> Perturbation:
        source = generator(self.seed, "perturbation")
        noise = 2 * torch.rand((self.draws, *reward.shape[1:]), generator=source, dtype=torch.float64) - 1
        others = reward + self.epsilon * noise
        bests = optimal_actions(problem.optimal_values(others), tie)[:, visited]
        softs = choice(problem.optimal_values(others, self.temperature), self.temperature)[:, visited]
        moved = total_variation(softs, soft[visited])
        reach = float(problem.reach[visited].max())
        bound = self.epsilon * reach / (2 * self.temperature) if self.temperature else math.inf
        return Perturbation(
            self.epsilon,
            self.draws,
            self.seed,
            self.temperature,
            changed=float((bests != best[visited]).any(-1).double().mean()),
            hard=float(total_variation(_uniform(bests), _uniform(best)[visited]).mean()),
            soft=float(moved.mean()),
            soft_most=float(moved.max()),
            soft_bound=min(1.0, bound),
        )


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def optimal_actions(
    values: Float64[Tensor, "*batch states actions"], tie: float
) -> Bool[Tensor, "*batch states actions"]:
    """Actions whose value is the best of their state, up to ``tie`` times the largest value there is."""
    rounding = tie * values.abs().amax((-2, -1), keepdim=True)
    return values >= values.amax(-1, keepdim=True) - rounding


def total_variation(
    first: Float64[Tensor, "*rows actions"], second: Float64[Tensor, "*rows actions"]
) -> Float64[Tensor, "*rows"]:
    """``sum_a |p(a) - q(a)| / 2``."""
    return (first - second).abs().sum(-1) / 2


def _uniform(best: Bool[Tensor, "*rows actions"]) -> Float64[Tensor, "*rows actions"]:
    return best.double() / best.sum(-1, keepdim=True)


# ---- the best return as a function of one weight ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """The return of one policy by the weight of a component: ``base + weight * slope``."""

    base: float
    slope: float

    def at(self, weight: float) -> float:
        return self.base + weight * self.slope


@dataclass(frozen=True, eq=False)
class _Piece:
    """The best policy between two turning points."""

    best: Bool[Tensor, "states actions"]
    visited: Bool[Tensor, " states"]
    returns: dict[str, float]


@dataclass(frozen=True, eq=False)
class _WeightLine:
    """The best return as a function of one component's weight: the maximum of the lines of all policies."""

    problem: Problem
    component: int

    def turns(self, low: float, high: float, tie: float) -> list[float]:
        """Weights from ``low`` to ``high`` at which the maximum passes from one line to another. Exact.

        Two lines that each are the maximum somewhere either meet on the maximum, or below another line.
        """
        # The most a policy can earn of each component, in absolute terms: what rounding is relative to.
        most = self.problem.components.flatten(1).abs().amax(-1) * self.problem.reach.max()
        steep = float(most[self.component])
        rounding = tie * (float(self._others.abs() @ most) + max(abs(low), abs(high)) * steep)
        first, last = self._best([low, high])
        found: list[float] = []
        open_ = [(low, first, high, last)]
        while open_:
            apart = [
                (a, one, b, other, (one.base - other.base) / (other.slope - one.slope))
                for a, one, b, other in open_
                if other.slope - one.slope > tie * steep
            ]
            open_ = []
            for (a, one, b, other, meet), top in zip(apart, self._best([piece[-1] for piece in apart]), strict=True):
                if top.at(meet) - one.at(meet) <= rounding:
                    found.append(meet)
                else:
                    open_ += [(a, one, meet, top), (meet, top, b, other)]
        return sorted(found)

    def between(self, low: float, high: float, tie: float) -> _Piece:
        """The best policy half way."""
        values = self.problem.optimal_values(self._rewards([(low + high) / 2]))
        best = optimal_actions(values, tie)[0]
        policy = _uniform(best)
        earned = self.problem.returns(policy).tolist()
        return _Piece(best, self.problem.visited(policy), dict(zip(self.problem.names, earned, strict=True)))

    def _best(self, weights: Sequence[float]) -> list[_Line]:
        """The line of a best policy for each weight."""
        if not weights:
            return []
        policies = choice(self.problem.optimal_values(self._rewards(weights)), 0.0)
        lines = []
        for policy in policies:
            earned = self.problem.returns(policy)
            lines.append(_Line(float(self._others @ earned), float(earned[self.component])))
        return lines

    def _rewards(self, weights: Sequence[float]) -> Float64[Tensor, "weights ..."]:
        parts = self.problem.components
        base = torch.einsum("c,c...->...", self._others, parts)
        given = torch.tensor(weights, dtype=torch.float64)
        return base + torch.einsum("w,...->w...", given, parts[self.component])

    @property
    def _others(self) -> Float64[Tensor, " components"]:
        """Weights of the other components."""
        weights = torch.tensor(self.problem.weights, dtype=torch.float64)
        weights[self.component] = 0
        return weights
