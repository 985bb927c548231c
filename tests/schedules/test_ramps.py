"""Knobs that move with the step."""

from __future__ import annotations

import math

import pytest

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.schedules import LinearRamp, Switch


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
