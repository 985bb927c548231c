"""Variants of counterfactual regret minimization as papers have them: short compositions of the same parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.games.cfr import CFR
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
    """Solvers found by a language model that rewrote programs: VAD-CFR adapts CFR's discounts to volatile regrets.

    cfr: the equilibrium solver, :func:`vad_cfr`. The search over programs is no part of it; what the search changed
    are the parts of :class:`~stratagem.games.cfr.CFR`, and these can be exchanged.
    """

    cfr: CFR = field(default_factory=vad_cfr)


def find_variant(name: str, **arguments: Any) -> CFR:
    """The solver of this name. Raises :class:`InputError` for an unknown name or argument, and for a wrong value."""
    if name not in VARIANTS:
        raise unknown("variant of CFR", name, VARIANTS)
    known = inspect.signature(VARIANTS[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    return VARIANTS[name](**arguments)
