"""Factorial experiments: effects worked by hand, fractions and what they cannot tell apart, runs in the lab."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.recipes import baselines
from stratagem.study.experiments import expected_return, learn_all
from stratagem.study.factorial import Design, factorial, in_the_lab


def test_effects_of_two_switches_worked_by_hand():
    # Off and off 1, b alone 2, a alone 4, both 9: a adds 3 without b and 7 with it, so 5 on the mean; b adds 1 and 5.
    effects = Design(("a", "b")).effects(np.array([1.0, 2, 4, 9]))
    assert effects == {("a",): pytest.approx(5), ("b",): pytest.approx(3), ("a", "b"): pytest.approx(2)}


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=7, max_size=7), st.floats(-100, 100))
def test_a_full_design_gives_back_the_effects_that_made_its_outcomes(sizes, mean):
    design = Design(("a", "b", "c"))
    a, b, c = design.signs.T / 2
    made = zip(sizes, (a, b, c, 2 * a * b, 2 * a * c, 2 * b * c), strict=False)
    outcomes = mean + sum(size * column for size, column in made)
    # What all three do together is no effect that is asked for, and spoils none that is.
    found = design.effects(outcomes + sizes[6] * 4 * a * b * c)
    assert [*found.values()] == pytest.approx(sizes[:6], abs=1e-9)


def test_a_fraction_runs_an_eighth_of_the_arms_and_still_tells_main_effects():
    generators = {"d": ("a", "b"), "e": ("a", "c"), "f": ("b", "c")}
    design = Design(tuple("abcdef"), generators, interactions=False)
    assert design.signs.shape == (8, 6)
    assert (design.signs[:, 3] == design.signs[:, 0] * design.signs[:, 1]).all()
    assert (design.signs.sum(0) == 0).all()
    true = np.array([1.0, -2, 3, 0, 0.5, -0.25])
    assert [*design.effects(design.signs @ true / 2).values()] == pytest.approx(true.tolist())


def test_effects_that_the_arms_cannot_tell_apart_are_refused_by_name():
    with pytest.raises(InputError, match=r"its 4 arms cannot tell a from b x c"):
        Design(("a", "b", "c"), {"c": ("a", "b")})
    with pytest.raises(InputError, match=r"its 2 arms cannot tell a from b"):
        Design(("a", "b"), {"b": ("a",)}, interactions=False)
    assert len(Design(("a", "b", "c"), {"c": ("a", "b")}, interactions=False).signs) == 4


def test_a_design_needs_factors_and_generators_that_are_made_of_them():
    with pytest.raises(InputError, match="needs one or more factors"):
        Design(())
    with pytest.raises(InputError, match="needs one or more factors with names of their own"):
        Design(("a", "a"))
    with pytest.raises(InputError, match="unknown factor 'x'"):
        Design(("a", "b"), {"x": ("a", "b")})
    with pytest.raises(InputError, match="c must follow from one or more factors"):
        Design(tuple("abc"), {"c": ()})
    with pytest.raises(InputError, match="unknown factor for c to follow from 'd'"):
        Design(tuple("abcd"), {"c": ("a", "d"), "d": ("a", "b")})


def test_every_arm_meets_every_seed_so_that_what_seeds_share_cancels():
    def measure(levels, seed):
        return levels["a"] * levels["b"] + 100 * seed

    found = factorial(measure, {"a": (1, 3), "b": (10, 20)}, seeds=[3, 5, 8])
    # a adds 20 and 40, b 10 and 30; and no seed's own level is left.
    assert {term: e.value for term, e in found.effects.items()} == pytest.approx(
        {("a",): 30, ("b",): 20, ("a", "b"): 10}
    )
    assert all(e.high - e.low < 1e-9 for e in found.effects.values())
    assert found.outcomes.tolist() == [[310, 510, 810], [320, 520, 820], [330, 530, 830], [360, 560, 860]]


def test_the_interval_is_students_over_the_effects_of_single_seeds():
    def measure(levels, seed):
        return levels["a"] * seed

    effect = factorial(measure, {"a": (0, 1)}, seeds=[1, 2, 3]).effects["a",]
    # Effects 1, 2, 3: mean 2, standard error 1 / sqrt(3), and 4.302653 of them to the 97.5 % quantile.
    assert (effect.value, effect.low) == (pytest.approx(2), pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5))


def test_the_table_has_a_row_for_every_effect():
    def measure(levels, seed):
        return levels["a"] + 2 * levels["b"]

    assert factorial(measure, {"a": (0, 1), "b": (0, 1)}, seeds=[0, 1]).table().splitlines()[2:] == [
        "| a | +1.0000 | +1.0000 to +1.0000 |",
        "| b | +2.0000 | +2.0000 to +2.0000 |",
        "| a x b | +0.0000 | +0.0000 to +0.0000 |",
    ]


def test_too_few_seeds_and_outcomes_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match=r"two or more different seeds, not \[1, 1\]"):
        factorial(lambda levels, seed: 0.0, {"a": (0, 1)}, seeds=[1, 1])
    with pytest.raises(InputError, match=r"outcome of \{'a': 1\} with seed 4 is nan"):
        factorial(lambda levels, seed: math.nan if levels["a"] else 0.0, {"a": (0, 1)}, seeds=[4, 5])


def test_in_the_lab_an_arm_is_the_recipe_with_its_levels_set():
    recipe = baselines.grpo().with_values({"sampler.prompts_per_step": 2, "optimization.minibatches": 2})
    measure = in_the_lab(recipe, ["prompts"], batches=2)
    levels = {"gate": {"objective.gate.high": 0.0}, "advantage": {"advantage": "group_centered"}}
    changed = recipe.with_values({"objective.gate.high": 0.0, "advantage": "group_centered"})
    assert measure(levels, 1000) == learn_all(changed, ["prompts"], 1000, 2).mean(expected_return)
    assert measure({}, 1000) == learn_all(recipe, ["prompts"], 1000, 2).mean(expected_return)
    assert measure(levels, 1000) != measure({}, 1000)
