"""Equilibrium solvers as papers have them, by regrets or by populations: short compositions of the same parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from stratagem.catalogue import paper
from stratagem.errors import InputError, unknown
from stratagem.games.cfr import CFR
from stratagem.games.learned import LearnedResponse
from stratagem.games.metasolvers import META_SOLVERS, AlphaRank, HybridRegret, RobustReplicator
from stratagem.games.models import Logged
from stratagem.games.oracles import ConservativeResponse, RiskAverseResponse
from stratagem.games.play import Solver
from stratagem.games.population import PSRO, Never, NoGain, NothingNew
from stratagem.games.risk import RiskAverse
from stratagem.games.rosters import Trials
from stratagem.games.updates import (
    ConstantOptimism,
    FadingOptimism,
    MagnitudeAverage,
    Matching,
    PolynomialAverage,
    PowerDiscount,
    Regrets,
    VolatileDiscount,
    Volatility,
)

Variant = Callable[..., CFR]
_Solver = TypeVar("_Solver", bound=Solver)


@paper(
    None,
    title="Regret Minimization in Games with Incomplete Information",
    family="games",
    roles=("solver",),
    year=2007,
)
def cfr() -> CFR:
    """Counterfactual regret minimization: ``R <- R + r``, strategy in proportion to ``max(0, R)``, uniform average.

    Zinkevich, Johanson, Bowling and Piccione, NeurIPS 2007. Players take turns to learn, as in OpenSpiel's solver.
    """
    return CFR()


@paper(
    "1407.5042",
    title="Solving Large Imperfect Information Games Using CFR+",
    family="games",
    roles=("solver",),
    year=2014,
    base="cfr",
)
def cfr_plus() -> CFR:
    """CFR+: ``R <- max(0, R + r)``, turns, and an average that weighs iteration ``t`` by ``t``."""
    return CFR(Regrets(floor=0.0), Matching(), PolynomialAverage(1.0))


@paper(
    "1809.04040",
    title="Solving Imperfect-Information Games via Discounted Regret Minimization",
    family="games",
    roles=("solver",),
    year=2018,
    base="cfr",
)
def dcfr(alpha: float = 1.5, beta: float = 0.0, gamma: float = 2.0) -> CFR:
    """Discounted CFR: ``R <- d R + r``, ``d`` by ``alpha`` for positive and ``beta`` for negative regrets; ``t^gamma``.

    The defaults are the ones the paper recommends. ``d`` is that of :class:`PowerDiscount`.
    """
    return CFR(Regrets(PowerDiscount(alpha, beta)), Matching(), PolynomialAverage(gamma))


@paper(
    "2007.14358",
    title="Faster Game Solving via Predictive Blackwell Approachability: Connecting Regret Matching and Mirror Descent",
    family="games",
    roles=("solver",),
    year=2020,
    base="cfr_plus",
)
def pcfr_plus(gamma: float = 2.0) -> CFR:
    """Predictive CFR+: the strategy goes by ``max(0, R + r)``, as if ``r`` came again; quadratic average."""
    return CFR(Regrets(floor=0.0), Matching(optimism=ConstantOptimism(1.0)), PolynomialAverage(gamma))


@paper(
    "2404.13891",
    title="Minimizing Weighted Counterfactual Regret with Optimistic Online Mirror Descent",
    family="games",
    roles=("solver",),
    year=2024,
    base="pcfr_plus",
)
def dpcfr_plus(alpha: float = 2.3, gamma: float = 5.0) -> CFR:
    """Discounted predictive CFR+: ``R <- max(0, d(t-1) R + r)``, strategy by ``max(0, d(t) R + r)``; ``t^gamma``.

    ``d(t) = t^alpha / (t^alpha + 1)``. Its authors write PDCFR+.
    """
    return CFR(
        Regrets(PowerDiscount(alpha, 0.0), floor=0.0),
        Matching(PowerDiscount(alpha, 0.0, lag=0), ConstantOptimism(1.0)),
        PolynomialAverage(gamma),
    )


def vad_cfr(warm_up: int = 500, shared: bool = True) -> CFR:
    """Volatility-adaptive discounted CFR, found by a search over programs: discounts and optimism fall with volatility.

    ``R <- max(-20, d(R, v) R + b(r))`` with ``b`` boosting positive ``r`` by 1.1; strategy in proportion to
    ``max(0, d(R, v) R + o(t, v) b(r))^1.5``; average by magnitude, from iteration ``warm_up`` on.

    The listing of the paper's appendix (arXiv 2602.16928); the shortened one in its text differs. There the volatility
    of all information sets runs through one mean, which ``shared`` says; that mean depends on the order in which sets
    are visited, and ours (deepest first) need not be the authors'.
    """
    volatility = Volatility(shared=shared)
    return CFR(
        Regrets(VolatileDiscount(), floor=-20.0, boost=1.1, volatility=volatility),
        Matching(VolatileDiscount(), FadingOptimism(), boost=1.1, exponent=1.5, volatility=volatility),
        MagnitudeAverage(warm_up=warm_up),
    )


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {variant.__name__: variant for variant in (cfr, cfr_plus, dcfr, pcfr_plus, dpcfr_plus, vad_cfr)}
)
"""By the name ``stratagem solve`` knows them by."""


# ---- populations ----------------------------------------------------------------------------------------------------


@paper(
    "1711.00832",
    title="A Unified Game-Theoretic Approach to Multiagent Reinforcement Learning",
    family="games",
    roles=("solver", "meta_solver"),
    year=2017,
)
def psro(
    meta: str = "prd",
    oracle: Literal["exact", "learned"] = "exact",
    recipe: str = "ippo",
    settings: Mapping[str, Any] | None = None,
    steps: int | None = None,
    episodes: int | None = None,
    greedy: bool | None = None,
    trials: int = 1000,
    seed: int = 0,
) -> PSRO:
    """Policy-space response oracles: responses to a mixture ``meta`` of the population, added to it.

    meta: ``prd`` (projected replicator dynamics, the paper's), ``uniform`` (fictitious play), ``newest`` (iterated best
    response), ``nash`` (double oracle; two-player zero-sum games), ``alpha_rank``, or ``fictitious_play``. The
    population begins with the uniform strategy and is judged by the same mixture.

    oracle: ``exact`` best responses, or ``learned``: policies trained at a player's seat by ``recipe`` with
    ``settings``, in ``steps`` batches of ``episodes`` episodes (:class:`LearnedResponse`), as the paper has them. Then
    a game may be too large to enumerate; payoffs are means over ``trials`` episodes (:class:`Trials`), and it stops
    when no response gained anything in three iterations. seed: of all that is drawn.

    Raises :class:`InputError` for another ``meta`` or ``oracle``, for numbers out of range, and for settings of what
    is not learned.
    """
    if meta not in META_SOLVERS:
        raise unknown("meta-solver", meta, META_SOLVERS)
    given: dict[str, Any] = {"settings": settings, "steps": steps, "episodes": episodes, "greedy": greedy}
    given = {name: value for name, value in given.items() if value is not None}
    if oracle == "exact":
        if given:
            raise InputError(f"psro: {', '.join(given)}: say how responses are learned; needs oracle=learned")
        return PSRO(META_SOLVERS[meta]())
    if oracle != "learned":
        raise unknown("oracle", oracle, ["exact", "learned"])
    learned = LearnedResponse(recipe, seed=seed, **given)
    learned.made()
    return PSRO(META_SOLVERS[meta](), oracle=learned, stopping=NoGain(patience=3), trials=Trials(trials, seed))


@paper(
    "1909.12823",
    title="A Generalized Training Approach for Multiagent Learning",
    family="games",
    roles=("solver", "meta_solver"),
    year=2019,
    base="psro",
)
def alpha_psro(intensity: float = 10.0) -> PSRO:
    """Alpha-PSRO: best responses to the marginals of alpha-rank, which exists and is unique in any game.

    intensity: of selection, in 1 / utility. A response that is in the population already is not added again, and the
    population is complete when all are; with best responses that can be before an equilibrium is found. The paper's
    own oracle for games where that matters, the preference-based best response, is not included.
    """
    return PSRO(AlphaRank(intensity), stopping=NothingNew(), repeats=False)


def shor_psro() -> PSRO:
    """PSRO with the smoothed optimistic hybrid meta-solver that a search over programs found: SHOR-PSRO.

    Responses are trained against one setting of :class:`HybridRegret`, which has the formulas, and the population is
    judged by another. The listing of the appendix of arXiv 2602.16928.
    """
    return PSRO(HybridRegret(), HybridRegret.evaluation())


@paper(
    "2205.15434",
    title="A Game-Theoretic Framework for Managing Risk in Multi-Agent Systems",
    family="games",
    roles=("solver", "meta_solver", "oracle"),
    year=2022,
    base="psro",
)
def rae(aversion: float = 1.0, tremble: float = 0.1) -> PSRO:
    """Risk-averse equilibria by PSRO: ``mean - aversion * variance`` of payoff over the others' choices, which tremble.

    Both the metagame's mixtures (:class:`RiskAverse`) and the responses (:class:`RiskAverseResponse`) maximize it. For
    a single metagame, use :class:`RiskAverse` alone. The authors' text was not available in full; what is reconstructed
    is said there. Exploitability still measures distance from a Nash equilibrium, which is not what is looked for.

    aversion: in 1 / utility.  tremble: chance of an even choice.
    """
    return PSRO(RiskAverse(aversion, tremble), oracle=RiskAverseResponse(aversion, tremble), stopping=Never())


@paper(
    "2603.00374",
    title="Conservative Equilibrium Discovery in Offline Game-Theoretic Multiagent Reinforcement Learning",
    family="games",
    roles=("solver", "meta_solver", "oracle"),
    year=2026,
    base="psro",
)
def coffee_psro(kappa: float = 1.0, alpha: float = 0.0, episodes: int = 300, members: int = 4, seed: int = 0) -> PSRO:
    """COffeE-PSRO: PSRO in an ensemble learned from a log; responses pay for disagreement, mixtures heed bounds.

    Responses: ``max E[w u - kappa d]`` (:class:`ConservativeResponse`); mixtures: :class:`RobustReplicator`, stopped
    early at first. Here the log is ``episodes`` of random play; :meth:`Logged.fit` takes any other. What is learned is
    what endings pay; the paper learns the moves of the environment, too. How the parts are put together follows an
    earlier program by the authors, and is a reconstruction of the paper's. Exploitability is measured in the true
    game, ``exploitability/believed`` in the learned one.

    kappa: price of disagreement.  alpha: chance of a random opponent at first.  members: of the ensemble.
    """
    return PSRO(
        RobustReplicator(),
        RobustReplicator(threshold=(0.0, 0.0)),
        ConservativeResponse(kappa, alpha),
        Never(),
        Logged(episodes, members, seed=seed),
    )


SOLVERS: Mapping[str, Callable[..., Solver]] = MappingProxyType(
    {**VARIANTS, **{solver.__name__: solver for solver in (psro, alpha_psro, shor_psro, rae, coffee_psro)}}
)
"""All of them, by the name ``stratagem solve`` knows them by."""


# ---- what a search over programs found -------------------------------------------------------------------------------


@paper(
    "2602.16928",
    name="vad_cfr_shor_psro",
    title="Discovering Multiagent Learning Algorithms with Large Language Models",
    family="games",
    roles=("solver",),
    year=2026,
    base="dpcfr_plus",
)
@dataclass(frozen=True)
class DiscoveredSolvers:
    """Solvers found by a language model that rewrote programs: VAD-CFR, by regrets, and SHOR-PSRO, by a population.

    cfr: :func:`vad_cfr`, which adapts CFR's discounts to volatile regrets.  psro: :func:`shor_psro`, whose mixtures
    blend optimistic regret matching with a softmax. The search over programs is no part of it; what the search changed
    are the parts of :class:`~stratagem.games.cfr.CFR` and the meta-solvers of
    :class:`~stratagem.games.population.PSRO`, and these can be exchanged.
    """

    cfr: CFR = field(default_factory=vad_cfr)
    psro: PSRO = field(default_factory=shor_psro)


def find_variant(name: str, **arguments: Any) -> CFR:
    """The variant of CFR of this name. Raises :class:`InputError` as :func:`find_solver` does."""
    return _find("variant of CFR", VARIANTS, name, arguments)


def find_solver(name: str, **arguments: Any) -> Solver:
    """The solver of this name. Raises :class:`InputError` for an unknown name or argument, and for a wrong value."""
    return _find("solver", SOLVERS, name, arguments)


def _find(kind: str, known: Mapping[str, Callable[..., _Solver]], name: str, arguments: Mapping[str, Any]) -> _Solver:
    if name not in known:
        raise unknown(kind, name, known)
    accepted = inspect.signature(known[name]).parameters
    for argument in arguments:
        if argument not in accepted:
            raise unknown(f"argument of {name}", argument, accepted)
    return known[name](**arguments)
