"""Knobs that decay."""

from __future__ import annotations

from math import cos, pi

import pytest

from stratagem.errors import InputError
from stratagem.schedules import CosineRestarts, PhasedDecay


def test_the_published_weights_of_both_phases():
    decay = PhasedDecay("a", 150)
    expected = {0: 1.0, 75: 0.827067, 76: 0.768632, 150: 0.039830, 999: 0.039830, -3: 1.0}
    assert {step: decay(step, {})["a"] for step in expected} == pytest.approx(expected, abs=1e-6)
    # A quarter of the run, and three: a run twice as long has them at whole batches.
    assert PhasedDecay("a", 300)(75, {})["a"] == pytest.approx(0.873576, abs=1e-6)
    assert PhasedDecay("a", 300)(225, {})["a"] == pytest.approx(0.178504, abs=1e-6)


def test_a_run_that_cannot_be_halved_has_the_shorter_phase_first():
    decay = PhasedDecay("a", 3)
    assert [decay(step, {})["a"] for step in (0, 1, 2, 3)] == pytest.approx([1, 0.827067, 0.178504, 0.039830], abs=1e-6)
    assert PhasedDecay("a", 1)(0, {})["a"] == 1


def test_its_scale_multiplies_all_of_it():
    assert PhasedDecay("a", 150, 2.0)(75, {})["a"] == pytest.approx(2 * PhasedDecay("a", 150)(75, {})["a"])
    with pytest.raises(InputError, match=r"phased_decay\.batches = 0"):
        PhasedDecay("a", 0)


def test_every_cycle_of_a_cosine_begins_high_and_ends_next_to_low():
    schedule = CosineRestarts("a", 0.6)
    found = {step: schedule(step, {})["a"] for step in (0, 15, 30, 50, 69, 70, 110, 149, 150, 999)}
    last = 0.3 * (1 + cos(pi * 39 / 40))
    assert found == pytest.approx(
        {0: 0, 15: 0.3, 30: 0.6, 50: 0.3, 69: last, 70: 0.6, 110: 0.6, 149: last, 150: last, 999: last}
    )


def test_a_cosine_may_rise_and_need_no_warm_up():
    schedule = CosineRestarts("a", 0.4, 1.0, batches=4, warmup=0, cycles=2)
    assert [schedule(step, {})["a"] for step in range(4)] == pytest.approx([0.4, 0.7, 0.4, 0.7])


def test_a_cycle_needs_a_batch():
    with pytest.raises(InputError, match=r"cosine_restarts\.batches = 32: must be at least warmup \+ cycles = 33"):
        CosineRestarts("a", 1.0, batches=32)
