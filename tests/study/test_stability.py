"""How a run began, in numbers worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.study import Dip, Stability, length_collapse, reward_dip, stability
from stratagem.training.run_directory import RunDirectory

LENGTHS = [100, 60, 40, 70, 110]
REWARDS = [1, 0.6, 0.4, 0.8, 1.05]


def test_a_length_that_falls_to_two_fifths_has_collapsed():
    assert length_collapse(LENGTHS, share=1) == 0.4


def test_only_the_first_steps_count():
    # A quarter of four steps is one, a fifth is rounded up to it.
    assert length_collapse(LENGTHS, share=0.25) == length_collapse(LENGTHS) == 0.6
    assert length_collapse([100, 200, 300, 400, 10]) == 1.0
    assert length_collapse([7]) == 1.0


def test_a_dip_and_its_recovery():
    dip = reward_dip(REWARDS)
    assert (dip.depth, dip.lowest, dip.recovery) == (pytest.approx(0.6), 2, 4)


def test_a_reward_that_is_never_back():
    assert reward_dip([1, 0.5, 0.9]) == Dip(0.5, 1, math.inf)


def test_a_reward_that_only_rises_has_no_dip():
    assert reward_dip([0.5, 0.6, 0.9]) == Dip(0.0, 0, 0.0)


def test_a_negative_reward_is_measured_by_its_size():
    assert reward_dip([-2, -3, -1]) == Dip(0.5, 1, 2.0)


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20))
def test_nothing_before_the_recovery_and_after_the_minimum_is_back(rewards):
    dip = reward_dip(rewards)
    assert dip.depth >= 0 and rewards[dip.lowest] == min(rewards)
    end = len(rewards) if math.isinf(dip.recovery) else int(dip.recovery)
    assert all(reward < rewards[0] for reward in rewards[dip.lowest : end])


def test_a_run_is_judged_by_its_metrics(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    run.write_json("run.json", {})
    with pytest.raises(InputError, match="has no step with a reward and a length"):
        stability(run.path)
    run.append("metrics.jsonl", {"step": 1, "episodes/failed": 8})  # A batch that was lost.
    for step, (length, reward) in enumerate(zip(LENGTHS, REWARDS, strict=True), 2):
        run.append("metrics.jsonl", {"step": step, "completions/mean_length": length, "reward": reward})
    found = stability(run.path, share=0.5)
    assert found == Stability(0.4, reward_dip(REWARDS)) and found.collapsed
    assert not stability(run.path).collapsed


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: length_collapse([]), "lengths of 0 steps"),
        (lambda: length_collapse([0, 1]), "the first must be there and positive"),
        (lambda: length_collapse([1], share=0), "share = 0: must lie above 0"),
        (lambda: reward_dip([]), "rewards of 0 steps"),
        (lambda: stability("nowhere"), "holds no run"),
    ],
)
def test_nothing_to_measure_is_an_input_error(measure, message):
    with pytest.raises(InputError, match=message):
        measure()
