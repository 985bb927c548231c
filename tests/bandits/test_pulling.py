"""Comparisons by name: the same runs for all, the run directory, and what is refused before anything is written."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from stratagem.bandits import UCB1, Delivery, PlainBandit, RestingBandit, play, pull
from stratagem.bandits.pulling import BANDITS, PULLERS, SCHEDULERS, benchmark, make_bandit, make_policy
from stratagem.errors import BrokenRunError, InputError
from stratagem.study import regret_report


def test_importing_it_does_not_bring_in_scipy():
    code = "import sys, stratagem.bandits; print('scipy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize("name", BANDITS)
def test_every_bandit_can_be_played_by_every_policy_that_is_for_it(name):
    bandit = make_bandit(f"bandit:{name}", 2, 0)
    kinds = SCHEDULERS if isinstance(bandit, RestingBandit) else PULLERS
    played = 0
    for policy in kinds:
        try:
            (curve,) = pull([policy], f"bandit:{name}", rounds=30, runs=2).curves
        except InputError as error:
            assert "needs features" in str(error) or "must be in [0, 1]" in str(error) or "is for bandits" in str(error)
            continue
        assert curve.rounds[-1] == 30 and np.isfinite(curve.regret).all()
        played += 1
    assert played >= 3


def test_a_curve_is_the_mean_regret_with_its_interval():
    (curve,) = pull(["ucb1"], "bandit:bernoulli,arms=4", rounds=500, runs=6, seed=3).curves
    regret = play(PlainBandit.drawn(6, 3, 4), UCB1(), 500, 3).regret
    np.testing.assert_allclose(curve.regret, regret.mean(0)[curve.rounds - 1])
    half = 2.570582 * regret[:, -1].std(ddof=1) / np.sqrt(6)
    assert curve.high[-1] - curve.regret[-1] == pytest.approx(half, rel=1e-5)
    assert len(curve.rounds) == 200 and curve.rounds[0] == 1


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ucb1", "bandit:gapped,arms=4"),
        ("squarecb", "bandit:finite"),
        ("recovering_rewards", "bandit:recovering"),
        ("lsd_bandits", "bandit:last_switch"),
    ],
)
def test_regret_stays_below_what_theory_says_of_it(name, task):
    (curve,) = pull([name], task, rounds=400, runs=24, seed=2).curves
    assert np.all(curve.regret <= curve.bound) and curve.rows()[-1]["bound"] == curve.bound[-1]


def test_nothing_is_said_of_rewards_that_come_late():
    (curve,) = pull(["ucb1"], "bandit:gapped", rounds=20, runs=2, delivery=Delivery(5)).curves
    assert curve.bound is None and curve.rows()[-1]["bound"] is None and regret_report.proved(curve) == "-"


def test_a_single_run_has_no_interval():
    rows = pull(["ucb1"], "bandit:gapped", rounds=20, runs=1).curves[0].rows()
    assert rows[-1]["low"] is None and rows[-1]["high"] is None and rows[-1]["step"] == 20


def test_arguments_and_delays_reach_the_policy():
    def regret(**more):
        return pull(["ucb1"], "bandit:gapped,arms=4,gap=0.3", rounds=600, runs=30, **more).curves[0].regret[-1]

    assert regret(arguments={"scale": 0.3}) < regret() < regret(delivery=Delivery(200))


def test_the_oracle_is_over_the_class_where_there_is_one():
    finite, linear = make_bandit("bandit:finite", 1, 0), make_bandit("bandit:linear", 1, 0)
    assert make_policy("squarecb", finite, {}).oracle.loss == "squared"
    assert make_policy("fastcb", finite, {"gamma": 3.0}).oracle.loss == "log"
    assert make_policy("fastcb", linear, {}).oracle.strength == 1


@pytest.mark.parametrize("task", ["bandit:recovering", "bandit:last_switch"])
def test_no_policy_is_ahead_of_the_benchmark_for_long(task):
    bandit = make_bandit(task, 3, 1)
    for name in SCHEDULERS:
        if task == "bandit:recovering" and name in ("lsd_bandits", "learned_cycles"):
            continue
        (curve,) = pull([name], task, rounds=300, runs=3, seed=1).curves
        assert curve.regret[-1] > -bandit.arms
    assert np.all(benchmark(bandit) > 0)


def test_a_run_directory_holds_what_was_asked_and_found(tmp_path):
    pulled = pull(["ucb1", "uniform"], "bandit:bernoulli", rounds=50, runs=3, out=tmp_path / "run")
    asked = json.loads((tmp_path / "run/run.json").read_text())
    assert asked["policies"] == ["ucb1", "uniform"] and asked["rounds"] == 50 and asked["task"] == "bandit:bernoulli"
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows == [row for curve in pulled.curves for row in curve.rows()]
    page = (tmp_path / "run/report.html").read_text()
    assert "Regret in bandit:bernoulli" in page and regret_report.last(pulled.curves[1]) in page
    with pytest.raises(InputError, match="holds a run already"):
        pull(["ucb1"], "bandit:bernoulli", rounds=5, runs=2, out=tmp_path / "run")


def test_an_interrupted_comparison_keeps_the_policies_that_are_done(tmp_path):
    def interrupt(name, number):
        if name == "uniform":
            raise KeyboardInterrupt

    with pytest.raises(BrokenRunError, match=r"stopped after 1 of 2 policies, which are in .*run"):
        pull(["ucb1", "uniform"], "bandit:gapped", rounds=9, runs=2, out=tmp_path / "run", progress=interrupt)
    assert '"policy": "ucb1"' in (tmp_path / "run/metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("names", "task", "more", "expected"),
    [
        (["ucb"], "bandit:bernoulli", {}, "unknown policy 'ucb'; did you mean 'ucb1'?"),
        (["ucb1"], "bandit:bernouli", {}, "unknown bandit 'bernouli'; did you mean 'bernoulli'?"),
        (["ucb1"], "bernoulli", {}, "write bandit:NAME"),
        (["ucb1"], "bandit", {}, "write bandit:NAME"),
        (["ucb1"], "bandit:bernoulli,arm=3", {}, "unknown option of bandit:bernoulli 'arm'; did you mean 'arms'?"),
        (["ucb1"], "bandit:bernoulli,arms=x", {}, "arms=x must be a whole number"),
        (["ucb1"], "bandit:gapped,gap=x", {}, "gap=x must be a number"),
        (["ucb1"], "bandit:gapped,gap=0.9", {}, "must be in [0, 1]"),
        (["ucb1"], "bandit:recovering", {}, "cannot play in this bandit; there are best_now"),
        (["linucb"], "bandit:bernoulli", {}, "needs features"),
        (["ucb1"], "bandit:bernoulli", {"arguments": {"scal": 1}}, "unknown argument of ucb1 'scal'"),
        (["ucb1"], "bandit:bernoulli", {"runs": 0}, "runs = 0"),
        (["ucb1"], "bandit:bernoulli", {"rounds": 0}, "rounds = 0"),
        (["best_now"], "bandit:recovering", {"runs": 0}, "at least one run"),
        (["best_now"], "bandit:recovering", {"delivery": Delivery(3)}, "pays at once"),
        ([], "bandit:bernoulli", {}, "name at least one"),
    ],
)
def test_wrong_input_is_refused_and_nothing_written(names, task, more, expected, tmp_path):
    with pytest.raises(InputError) as raised:
        pull(names, task, **{"rounds": 5, "runs": 2, "out": tmp_path / "run", **more})
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_options_of_every_bandit_have_defaults_of_the_type_they_take():
    for make in BANDITS.values():
        for name, parameter in inspect.signature(make).parameters.items():
            assert name in ("runs", "seed") or isinstance(parameter.default, int | float)
