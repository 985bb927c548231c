"""Tabular solvers of preference games, exact and vectorised: what each technique does with a table for a policy.

They are made of the same three pieces as the losses of language models: a geometric mixture of policies, whose anchor
or opponent it is; win rates against an opponent; and a step of mirror descent from the anchor along the win rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.games import check_policy
from stratagem.preferences.measures import win_rates
from stratagem.preferences.oracles import check_wins
from stratagem.validation import validate_fields

LogPolicies = Float64[Tensor, "*games responses"]


# ---- shared pieces --------------------------------------------------------------------------------------------------


def mixture(weighted: Sequence[tuple[float, LogPolicies]]) -> LogPolicies:
    """``pi prop prod_k pi_k^w_k``, the geometric mixture. A weight of 0 leaves a policy out, also where it is 0."""
    logs = [weight * logp for weight, logp in weighted if weight]
    return torch.log_softmax(torch.stack(torch.broadcast_tensors(*logs)).sum(0), -1)


def mirror_step(anchor: LogPolicies, gain: Float64[Tensor, "*games responses"]) -> LogPolicies:
    """``argmax_pi <pi, gain> - KL(pi || anchor)``, so ``pi prop anchor exp(gain)``."""
    return torch.log_softmax(anchor + gain, -1)


class Asked(Protocol):
    """Who says how likely each response is to be preferred to an opponent's."""

    def __call__(self, opponent: LogPolicies) -> Float64[Tensor, "*games responses"]:
        """``P(y > pi')`` of every response, or an estimate of it."""
        ...


@dataclass
class Exact:
    """``P(y > pi')`` as it is. calls: how many opponents it was asked about.

    Raises :class:`InputError` for ``wins`` that contradict themselves.
    """

    wins: Float64[Tensor, "*games responses responses"]
    calls: int = 0

    def __post_init__(self) -> None:
        check_wins(self.wins)

    def __call__(self, opponent: LogPolicies) -> Float64[Tensor, "*games responses"]:
        self.calls += 1
        return win_rates(self.wins, opponent.exp())


@dataclass
class Voted:
    """``P(y > pi')`` estimated by votes: each response against ``comparisons`` draws of the opponent, one vote each."""

    wins: Float64[Tensor, "games responses responses"]
    comparisons: int
    source: torch.Generator
    calls: int = 0

    def __post_init__(self) -> None:
        check_wins(self.wins)

    def __call__(self, opponent: LogPolicies) -> Float64[Tensor, "games responses"]:
        self.calls += 1
        chances = win_rates(self.wins, opponent.exp()).clamp(0, 1)
        # A vote against a random opponent is a draw with the mean probability.
        drawn = torch.rand(self.comparisons, *chances.shape, generator=self.source, dtype=torch.float64)
        return (drawn < chances).double().mean(0)


# ---- solvers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Solver:
    """One iteration after another on a table, from the reference ``mu``, towards the Nash policy of preferences."""

    calls: ClassVar[int] = 1
    """Opponents it asks about in an iteration."""

    def __post_init__(self) -> None:
        validate_fields(self, type(self).__name__)

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        """The next policy. opponent: what :meth:`follow` has made of the policies so far."""
        raise NotImplementedError

    def begin(self, policy: LogPolicies) -> Tensor:
        """What is remembered before the first step."""
        return policy

    def follow(self, opponent: Tensor, before: LogPolicies, policy: LogPolicies) -> Tensor:
        """What is remembered of past policies once ``policy`` has come after ``before``; most remember nothing else."""
        return policy


@dataclass(frozen=True)
class NashMD(Solver):
    """``pi prop m exp(eta P(y > m))`` with ``m prop pi^(1 - eta tau) mu^(eta tau)`` (arXiv 2312.00886, section 6).

    The last iterate converges: ``KL(pi* || pi_T) <= (1 - eta tau)^T KL(pi* || mu) + 2 eta / tau``. With a strength of
    0 there is no reference to hold it, and the last iterate may cycle for ever (self-play).

    strength: ``tau``.  step_size: ``eta``; raises :class:`InputError` when ``eta tau`` is above 1.
    """

    strength: Annotated[float, Ge(0)]
    step_size: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        share = self.strength * self.step_size
        if share > 1:
            raise InputError(
                f"{type(self).__name__}: step_size = {self.step_size}: step_size * strength is {share:g}, "
                "and must be at most 1, where the opponent is the reference itself"
            )

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        share = self.strength * self.step_size
        mixed = mixture([(1 - share, policy), (share, reference)])
        return mirror_step(mixed, self.step_size * asked(mixed))


@dataclass(frozen=True)
class NashEMA(NashMD):
    """As :class:`NashMD`, but the opponent is an average of past policies: of their logits, ``(1 - a) o + a log pi``.

    ``pi prop m exp(eta P(y > o))`` (arXiv 2312.00886, section 7, where parameters are averaged).

    follow_rate: ``a``; 1 is self-play.
    """

    follow_rate: Annotated[float, Ge(0), Le(1)] = 0.1

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        share = self.strength * self.step_size
        return mirror_step(mixture([(1 - share, policy), (share, reference)]), self.step_size * asked(opponent))

    def follow(self, opponent: Tensor, before: LogPolicies, policy: LogPolicies) -> Tensor:
        return mixture([(1 - self.follow_rate, opponent), (self.follow_rate, policy)])


@dataclass(frozen=True)
class INPO(Solver):
    """``pi prop mu^(tau / eta) pi^(1 - tau / eta) exp(P(y > pi) / eta)`` (arXiv 2407.00617).

    ``eta`` is the inverse of a step size here. With ``tau = eta`` it answers its own last policy as well as it can
    (online IPO); with ``tau`` of 0 it is multiplicative weights.

    strength: ``tau``.  inverse_step: ``eta``, at least ``tau``.
    """

    strength: Annotated[float, Ge(0)]
    inverse_step: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength > self.inverse_step:
            raise InputError(
                f"{type(self).__name__}: strength = {self.strength}: must be at most inverse_step = {self.inverse_step}"
            )

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        share = self.strength / self.inverse_step
        return mirror_step(mixture([(share, reference), (1 - share, policy)]), asked(policy) / self.inverse_step)


@dataclass(frozen=True)
class OnlineIPO(Solver):
    """``pi prop mu exp(P(y > pi) / tau)``: the best response to the last policy, which is what IPO's loss is least at.

    strength: ``tau``.
    """

    strength: Annotated[float, Gt(0)]

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        return mirror_step(reference, asked(policy) / self.strength)


@dataclass(frozen=True)
class SPPO(Solver):
    """``pi prop pi exp(eta P(y > pi))``: multiplicative weights against itself (arXiv 2405.00675).

    The average policy comes near the minimax winner; the last one need not.

    step_size: ``eta``.
    """

    step_size: Annotated[float, Gt(0)]

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        return mirror_step(policy, self.step_size * asked(policy))


@dataclass(frozen=True)
class NashMP(Solver):
    """Mirror prox: ``h prop m exp(g P(y > pi))`` and then ``pi prop m exp(g P(y > h))`` (arXiv 2505.19731).

    ``m prop mu^(eta / (1 + eta)) pi^(1 / (1 + eta))`` of the policy before, in both steps, and
    ``g = eta / (beta (1 + eta))``. With ``eta = 2 beta``, ``KL(pi* || pi)`` shrinks by ``1 / (1 + 2 beta)`` or more in
    every iteration, which asks about two opponents. The updates are a reconstruction: the abstract's rate is that of
    these, and the paper's own formulas were not available.

    strength: ``beta``.  step_size: ``eta``; None: ``2 beta``, beyond which nothing is proved.
    """

    calls: ClassVar[int] = 2

    strength: Annotated[float, Gt(0)]
    step_size: Annotated[float, Gt(0)] | None = None

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        eta = 2 * self.strength if self.step_size is None else self.step_size
        gain = eta / (self.strength * (1 + eta))
        anchor = mixture([(eta / (1 + eta), reference), (1 / (1 + eta), policy)])
        half = mirror_step(anchor, gain * asked(policy))
        return mirror_step(anchor, gain * asked(half))


@dataclass(frozen=True)
class OnlineDPO(Solver):
    """``pi prop mu exp(s)``, where ``sigmoid(s_i - s_j)`` fits ``P(i > j)`` best over pairs drawn from the last policy.

    What online DPO's loss is least at; with ``s`` fitted once, over pairs of the reference, it is DPO and learning from
    a Bradley-Terry reward. It is told of all pairs, not of opponents: ``asked`` must be :class:`Exact`.

    strength: ``beta``; ``pi prop mu exp(s / beta)``.  every_time: False samples pairs from the reference for good.
    """

    strength: Annotated[float, Gt(0)]
    every_time: bool = True

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        if not isinstance(asked, Exact):
            raise InputError(f"{type(self).__name__} fits scores to all pairs and needs the exact preferences")
        weights = (policy if self.every_time else reference.expand_as(policy)).exp()
        return mirror_step(reference, fitted_scores(asked.wins, weights) / self.strength)


CERTAIN = 20.0
"""Difference of scores at which one of two answers wins for sure: in all but two of a billion comparisons."""


def fitted_scores(
    wins: Float64[Tensor, "*games responses responses"], weights: Float64[Tensor, "*games responses"], most: int = 200
) -> Float64[Tensor, "*games responses"]:
    """Scores ``s`` of the likeliest Bradley-Terry model, with pairs ``(i, j)`` as frequent as ``weights_i weights_j``.

    Up to a constant, of weighted mean 0. Newton steps of at most 2, until no response wins 1e-10 more than its score
    says. Raises :class:`InputError` when scores run away, since a set of responses wins for sure.
    """
    share = weights.unsqueeze(-2)
    scores = torch.zeros_like(weights)
    for _ in range(most):
        chance = torch.sigmoid(scores.unsqueeze(-1) - scores.unsqueeze(-2))
        lacking = (share * (wins - chance)).sum(-1)
        if float((scores.amax(-1) - scores.amin(-1)).max()) > CERTAIN:
            break
        if float(lacking.abs().max()) <= 1e-10:
            return scores
        # Rows are not weighed, so that rare responses are fitted as well as common ones; ``share`` fixes the constant.
        bend = share * chance * (1 - chance)
        step, info = torch.linalg.solve_ex(torch.diag_embed(bend.sum(-1)) - bend + share, lacking)
        if bool(info.any()) or not bool(step.isfinite().all()):
            break
        scores = scores + step.clamp(-2, 2)
    raise InputError("Bradley-Terry scores are not finite: a set of responses is preferred to all others for sure")


# ---- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Solved:
    """Policies of a run, ``path[t]`` before iteration ``t``; ``path[0]`` is where it began.

    calls: opponents asked about until then.
    """

    path: Float64[Tensor, "iterations *games responses"]
    calls: list[int] = field(default_factory=list)

    @property
    def last(self) -> Float64[Tensor, "*games responses"]:
        """The last policy."""
        return self.path[-1]

    @property
    def average(self) -> Float64[Tensor, "*games responses"]:
        """Mean of all policies that were played, the last one apart."""
        return self.path[:-1].mean(0) if len(self.path) > 1 else self.path[0]


def solve(
    solver: Solver,
    asked: Exact | Voted,
    reference: Float64[Tensor, "*games responses"],
    iterations: int,
    start: Float64[Tensor, "*games responses"] | None = None,
) -> Solved:
    """So many iterations from ``start``, or the reference. Games are independent of each other.

    A response that the reference never gives stays at 0. Raises :class:`InputError` for what is no distribution, and
    for a start that gives what the reference never does.
    """
    shape = asked.wins.shape[:-1]
    check_policy(reference, "reference")
    first = reference if start is None else start
    check_policy(first, "start")
    if bool(((first > 0) & (reference == 0)).any()):
        raise InputError("start: must be 0 where the reference is")
    anchor = reference.double().expand(shape).log()
    policy = first.double().expand(shape).log()
    opponent = solver.begin(policy)
    path, before = [policy.exp()], asked.calls
    calls = [0]
    for _ in range(iterations):
        following = solver.step(policy, anchor, asked, opponent)
        opponent, policy = solver.follow(opponent, policy, following), following
        path.append(policy.exp())
        calls.append(asked.calls - before)
    return Solved(torch.stack(path), calls)
