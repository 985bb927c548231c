"""How often a comparison errs: simulated runs with a known truth, judged as real ones are.

A run climbs a logistic curve to a ceiling of its own at a rate of its own, and every evaluation counts successes among
100 episodes. Two recipes differ, if at all, in the mean ceiling. Rates are those of whole comparisons: one contrast
that shows a difference makes the comparison show one.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from stratagem.study.analysis import analyse
from stratagem.study.comparison import Plan, Point, Trial
from stratagem.study.statistics import interquartile_band

BUDGET, BATCH, EPISODES, EVALUATIONS = 60_000, 1_500, 100, 8


def simulated_plan(arms: int, seeds: int) -> Plan:
    return Plan(
        arms={f"arm {number}": "" for number in range(arms)},
        from_catalogue=(),
        tasks=("climb",),
        seeds=tuple(range(seeds)),
        budget=BUDGET,
        model=None,
        values={},
        evaluations=EVALUATIONS,
        episodes=EPISODES,
        precision="float32",
        device="cpu",
        threads=1,
    )


def simulated_run(arm: str, seed: int, ceiling: float, rng: np.random.Generator) -> Trial:
    """From 0.3 towards ``ceiling`` with deviation 0.04 over runs, rate 10 give or take a quarter, half way at 0.35."""
    top, rate = min(ceiling + 0.04 * rng.normal(), 1.0), 10 * np.exp(0.25 * rng.normal())
    every = BUDGET / EVALUATIONS
    tokens = np.append(0, np.arange(1, EVALUATIONS + 1) * every + rng.integers(0, BATCH, EVALUATIONS))
    chance = 0.3 + (top - 0.3) / (1 + np.exp(-rate * (tokens / BUDGET - 0.35)))
    sampled, greedy = rng.binomial(EPISODES, chance, (2, len(tokens))) / EPISODES
    points = tuple(
        Point(step, int(at), at / 1000, float(one), float(other))
        for step, (at, one, other) in enumerate(zip(tokens, sampled, greedy, strict=True))
    )
    return Trial(arm, "climb", seed, "success", points, int(tokens[-1]), tokens[-1] / 1000, 40, 500.0, 0)


def share_that_differ(comparisons: int, arms: int, seeds: int, effect: float, resamples: int) -> float:
    """Share of comparisons in which some contrast is not ``no difference``; arms but the first are ``effect`` lower."""
    plan, differ = simulated_plan(arms, seeds), 0
    for number in range(comparisons):
        rng = np.random.default_rng(number)
        ceilings = {arm: 0.9 - (effect if arm != plan.reference else 0.0) for arm in plan.arms}
        trials = [simulated_run(arm, seed, top, rng) for arm, top in ceilings.items() for seed in plan.seeds]
        contrasts = analyse(plan, trials, seed=number, resamples=resamples).contrasts
        differ += any(contrast.verdict != "no difference" for contrast in contrasts)
    return differ / comparisons


def is_at_most(share: float, of: int, level: float) -> bool:
    """Whether a share counted among so many is no evidence (p > 0.01) that the true one lies above ``level``."""
    return bool(stats.binomtest(round(share * of), of, level, alternative="greater").pvalue > 0.01)


def test_a_recipe_under_two_names_shows_no_difference_in_at_least_95_of_100_comparisons() -> None:
    assert share_that_differ(300, arms=2, seeds=5, effect=0.0, resamples=100) <= 0.05


def test_a_ceiling_lower_by_fifteen_points_is_found_with_five_seeds() -> None:
    assert share_that_differ(100, arms=2, seeds=5, effect=0.15, resamples=200) > 0.8


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.50), (3, 0.25), (5, 0.10), (10, 0.07)])
def test_a_bootstrap_interval_alone_finds_differences_where_there_are_none(seeds: int, share: float) -> None:
    """Why a test decides too: these should be 0.05."""
    rng, out = np.random.default_rng(seeds), Counter[bool]()
    for _ in range(4):
        _, low, high = interquartile_band(rng.normal(size=(250, seeds)), rng, 1000)
        out.update(((low > 0) | (high < 0)).tolist())
    assert out[True] / out.total() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / out.total()))


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(2, 2), (2, 3), (2, 5), (2, 10), (3, 5)])
def test_whole_comparisons_of_equal_recipes_keep_their_level(arms: int, seeds: int) -> None:
    assert is_at_most(share_that_differ(500, arms, seeds, effect=0.0, resamples=200), of=500, level=0.05)


@pytest.mark.slow
def test_full_resampling_keeps_level_and_power() -> None:
    assert is_at_most(share_that_differ(100, arms=2, seeds=5, effect=0.0, resamples=2000), of=100, level=0.05)
    assert share_that_differ(100, arms=2, seeds=5, effect=0.15, resamples=2000) > 0.8
