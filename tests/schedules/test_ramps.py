"""Knobs that move with the step."""

from __future__ import annotations

import math

import pytest

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.schedules import Cycle, LinearRamp, Switch


def test_a_linear_ramp_starts_late_and_stops_at_its_end():
    ramp = LinearRamp("sampler.temperature", start=1.0, end=0.5, steps=10, begin=5)
    values = {step: ramp(step, {})["sampler.temperature"] for step in (0, 5, 10, 15, 99)}
    assert values == pytest.approx({0: 1.0, 5: 1.0, 10: 0.75, 15: 0.5, 99: 0.5})


def test_a_ramp_in_stairs_keeps_its_knob_for_a_while():
    ramp = LinearRamp("share", 1.0, 0.5, steps=50, begin=50, every=10)
    expected = {0: 1, 50: 1, 51: 0.9, 55: 0.9, 60: 0.9, 61: 0.8, 100: 0.5, 101: 0.5, 200: 0.5}
    assert {step: ramp(step, {})["share"] for step in expected} == pytest.approx(expected)
    for step in range(300):
        published = max(1 - 0.1 * math.ceil(max(step - 50, 0) / 10), 0.5)
        assert ramp(step, {})["share"] == pytest.approx(published), step
    line = LinearRamp("share", 1.0, 0.5, steps=50, begin=50)
    assert line(51, {})["share"] == pytest.approx(0.99)


def test_a_ramp_of_no_steps_is_refused():
    with pytest.raises(InputError, match=r"linear_ramp\.steps = 0"):
        LinearRamp("a", 0.0, 1.0, 0)


def test_a_switch_leaves_the_knob_alone_before_its_step_and_turns_it_from_then_on():
    switch = Switch("objective.aggregation", "token_mean", at=20)
    assert [switch(step, {}) for step in (0, 19)] == [{}, {}]
    for step in (20, 21, 500):
        changed = recipes.grpo().with_values(switch(step, {}))
        assert changed.flat()["objective.aggregation"] == "token_mean"
    assert recipes.reinforce_pp_baseline().with_values(Switch("objective.regularizer", None, 0)(0, {})) == (
        recipes.reinforce_pp_baseline(kl_coefficient=0)
    )


def test_a_cycle_gives_each_value_its_batches_over_and_over():
    cycle = Cycle("sampler.group_size", (4, 8, 2), (2, 1, 3))
    assert [cycle(step, {})["sampler.group_size"] for step in range(14)] == [4, 4, 8, 2, 2, 2] * 2 + [4, 4]
    assert recipes.grpo().with_values(cycle(2, {})).sampler.group_size == 8
    recipe = recipes.grpo().replace(schedules=(cycle, Cycle("view", (None, 1.5, "x"), (1, 1, 1))))
    assert type(recipe).from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(("values", "batches"), [((1, 2), (1,)), ((), ()), ((1,), (0,))])
def test_a_cycle_without_batches_for_each_value_is_refused(values, batches):
    with pytest.raises(InputError, match=r"cycle\.batches"):
        Cycle("a", values, batches)
