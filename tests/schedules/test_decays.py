"""Knobs that decay."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.schedules import PhasedDecay


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
