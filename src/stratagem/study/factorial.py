"""Factorial experiments: what each of several switches does on the mean of all others, and what two do together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stratagem.errors import InputError, unknown
from stratagem.estimate import Estimate
from stratagem.recipe import Recipe
from stratagem.study.experiments import expected_return, learn_all

Term = tuple[str, ...]
"""One factor, for its main effect, or two, for their interaction."""

Measure = Callable[[Mapping[str, Any], int], float]
"""The outcome of an arm, from the level of every factor, and a seed."""


@dataclass(frozen=True)
class Design:
    """Which arms are run: every combination of two levels, or a fraction of them.

    factors: their names.  generators: factors that are no longer free but on where an even number of certain others is
    off, so that ``{"d": ("a", "b", "c")}`` leaves eight arms of four factors. The fewer arms, the more effects cannot
    be told apart; those asked for must be.
    interactions: whether those of two factors are asked for, beside the main effects.

    Raises :class:`InputError` for a generator that is of no factors, or of generated ones, and for effects that the
    arms cannot tell apart.
    """

    factors: tuple[str, ...]
    generators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    interactions: bool = True

    def __post_init__(self) -> None:
        if not self.factors or len(set(self.factors)) < len(self.factors):
            raise InputError(f"design: needs one or more factors with names of their own, not {list(self.factors)}")
        free = [name for name in self.factors if name not in self.generators]
        for name, origins in self.generators.items():
            if name not in self.factors:
                raise unknown("factor", name, self.factors)
            if not origins:
                raise InputError(f"design: {name} must follow from one or more factors")
            for origin in origins:
                if origin not in free:
                    raise unknown(f"factor for {name} to follow from", origin, free)
        columns = dict(zip([(), *self.terms], self._matrix.T, strict=True))
        for (one, mine), (other, theirs) in itertools.combinations(columns.items(), 2):
            if abs(int(mine @ theirs)) == len(mine):
                raise InputError(f"design: its {len(mine)} arms cannot tell {_spelled(one)} from {_spelled(other)}")

    @property
    def signs(self) -> Int[np.ndarray, "arms factors"]:
        """1 where an arm has a factor on, -1 where it has it off; the first arm has all free ones off."""
        free = [name for name in self.factors if name not in self.generators]
        chosen = dict(zip(free, np.array(list(itertools.product((-1, 1), repeat=len(free)))).T, strict=True))
        for name, origins in self.generators.items():
            chosen[name] = np.prod([chosen[origin] for origin in origins], axis=0)
        return np.stack([chosen[name] for name in self.factors], axis=1)

    @property
    def terms(self) -> list[Term]:
        """Effects asked for: main effects, then interactions."""
        pairs = list(itertools.combinations(self.factors, 2)) if self.interactions else []
        return [*((name,) for name in self.factors), *pairs]

    def effects(self, outcomes: Float[np.ndarray, "arms ..."]) -> dict[Term, Float[np.ndarray, "..."]]:
        """Effects by least squares, in the unit of the outcomes.

        That of a factor is the mean outcome with it on less that with it off; the interaction of two is half of what
        the second changes about the effect of the first.
        """
        coefficients = np.linalg.lstsq(self._matrix.astype(float), outcomes, rcond=None)[0]
        return dict(zip(self.terms, 2 * coefficients[1:], strict=True))

    @property
    def _matrix(self) -> Int[np.ndarray, "arms terms"]:
        """A column of ones, and one for every term: the product of its factors' signs."""
        column = dict(zip(self.factors, self.signs.T, strict=True))
        products = [np.prod([column[name] for name in term], axis=0) for term in self.terms]
        return np.stack([np.ones(len(self.signs), dtype=int), *products], axis=1)


@dataclass(frozen=True, eq=False)
class Factorial:
    """What a factorial experiment found.

    design: its arms.  outcomes: of each arm with each seed.  effects: mean over the seeds of each seed's own effect,
    with its 95 % Student interval. Every seed runs all arms, so what seeds have in common cancels.
    """

    design: Design
    outcomes: Float[np.ndarray, "arms seeds"]
    effects: dict[Term, Estimate]

    def table(self) -> str:
        """The effects as a table in Markdown."""
        rows = [
            f"| {_spelled(term)} | {e.value:+z.4f} | {e.low:+z.4f} to {e.high:+z.4f} |"
            for term, e in self.effects.items()
        ]
        return "\n".join(["| effect | estimate | 95 % interval |", "|---|---|---|", *rows])


def factorial(
    measure: Measure,
    factors: Mapping[str, tuple[Any, Any]],
    seeds: Sequence[int],
    generators: Mapping[str, tuple[str, ...]] | None = None,
    interactions: bool = True,
) -> Factorial:
    """Run every arm with every seed and estimate what each factor does.

    factors: by name, the level that counts as off and the one that counts as on. A level is whatever ``measure`` makes
    of it: values for a recipe, a task, a number of tokens. :func:`in_the_lab` measures recipes:

        factorial(
            in_the_lab(recipes.lite_ppo(), ["prompts", "length"], batches=20),
            {
                "batch deviation": ({"advantage.scale": "group"}, {"advantage.scale": "batch"}),
                "clip-higher": ({}, {"objective.gate.high": 0.28}),
            },
            seeds=range(5),
        ).table()

    generators, interactions: of the :class:`Design`. Raises :class:`InputError` for fewer than two different seeds and
    for an outcome that is not finite, naming the arm.
    """
    from stratagem.training.statistics import mean_interval  # brings in scipy, for which no listing should wait

    if len(set(seeds)) < max(2, len(seeds)):
        raise InputError(f"factorial: needs two or more different seeds, not {list(seeds)}")
    design = Design(tuple(factors), generators or {}, interactions)
    arms = [{name: factors[name][int(on > 0)] for name, on in zip(factors, row, strict=True)} for row in design.signs]
    outcomes = np.array([[_outcome(measure, arm, seed) for seed in seeds] for arm in arms])
    effects = {
        term: Estimate(float(by_seed.mean()), *mean_interval(by_seed.tolist()))
        for term, by_seed in design.effects(outcomes).items()
    }
    return Factorial(design, outcomes, effects)


def in_the_lab(recipe: Recipe, games: Sequence[str], batches: int) -> Measure:
    """The exact expected return of a recipe, mean over a run of so many batches and over games of the lab.

    Levels are values by dotted path, for :meth:`Recipe.with_values`; those of all factors are set in their order.
    """

    def measure(levels: Mapping[str, Any], seed: int) -> float:
        changed = recipe
        for values in levels.values():
            changed = changed.with_values(values)
        return learn_all(changed, games, seed, batches).mean(expected_return)

    return measure


def _outcome(measure: Measure, levels: Mapping[str, Any], seed: int) -> float:
    outcome = float(measure(levels, seed))
    if not math.isfinite(outcome):
        raise InputError(f"factorial: the outcome of {dict(levels)} with seed {seed} is {outcome}")
    return outcome


def _spelled(term: Term) -> str:
    return " x ".join(term) or "the mean"
