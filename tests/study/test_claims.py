"""Claims: regions, verdicts over seeds, records that keep what was measured, and files that are whole."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import BrokenRunError, InputError
from stratagem.estimate import Estimate
from stratagem.study import claims
from stratagem.study.claims import Claim, Expect, Record, claim, read_record, recorded, run_claim, write_record

BELOW_ONE = Expect("noise", below=1)


def a_claim(experiment=lambda seed: {"noise": 0.5}, rule=(BELOW_ONE,), **changes) -> Claim:
    fields = {"technique": "rloo", "statement": "Less noise.", "source": "figure 3", "baseline": "reinforce"}
    return Claim(**{**fields, "scale": "Small.", **changes}, rule=tuple(rule), experiment=experiment)


def measured(values: dict[int, float], **changes) -> claims.Measurement:
    """The claim measured with these values by seed."""
    return run_claim(a_claim(lambda seed: {"noise": values[seed]}, **changes), list(values))


# ---- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expect", "low", "high", "verdict"),
    [
        (Expect("q", below=1), 0.2, 0.9, "holds"),
        (Expect("q", below=1), 0.2, 1.0, "inconclusive"),
        (Expect("q", below=1), 0.9, 1.1, "inconclusive"),
        (Expect("q", below=1), 1.0, 1.1, "fails"),
        (Expect("q", above=1), 1.1, 1.2, "holds"),
        (Expect("q", above=1), 0.8, 1.0, "fails"),
        (Expect("q", above=0, below=1), 0.1, 0.9, "holds"),
        (Expect("q", above=0, below=1), -0.1, 1.1, "inconclusive"),
        (Expect("q", above=0, below=1), -0.1, 0.5, "inconclusive"),
        (Expect("q", above=0, below=1), 1.5, 2.0, "fails"),
        (Expect("q", above=0, below=1), -2.0, -1.0, "fails"),
        (Expect("q", above=0, below=1), 0.5, 0.5, "holds"),
        (Expect("q", below=1), 1.0, 1.0, "fails"),
    ],
)
def test_an_expectation_holds_inside_its_region_fails_outside_and_leaves_open_what_straddles(
    expect, low, high, verdict
):
    assert expect.verdict(Estimate((low + high) / 2, low, high)) == verdict


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 5))
def test_what_holds_on_one_side_of_a_bound_fails_on_the_other(bound, low, width):
    estimate = Estimate(low, low, low + width)
    above, below = Expect("q", above=bound).verdict(estimate), Expect("q", below=bound).verdict(estimate)
    assert (above == "holds") <= (below == "fails") and (below == "holds") <= (above == "fails")
    assert (above == "inconclusive") <= (below != "holds")


@pytest.mark.parametrize("bounds", [{}, {"above": 1, "below": 1}, {"above": 2, "below": 1}, {"below": float("inf")}])
def test_a_region_without_room_is_refused(bounds):
    with pytest.raises(InputError, match=r"^expectation 'q': needs above, below, or above < below, all finite$"):
        Expect("q", **bounds)


def test_a_region_says_itself():
    regions = [Expect("q", above=0), Expect("q", below=1.5), Expect("q", -0.01, 0.01)]
    assert [expect.region for expect in regions] == ["above 0", "below 1.5", "between -0.01 and 0.01"]


@pytest.mark.parametrize("rule", [(), (BELOW_ONE, Expect("noise", above=0))])
def test_a_rule_needs_expectations_of_different_quantities(rule):
    with pytest.raises(InputError, match=r"^claim rloo: its rule needs expectations"):
        a_claim(rule=rule)


# ---- measuring ------------------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    # 1, 2, 3: mean 2, standard error 1/sqrt(3), and 4.302653 is the 97.5 % point of t with 2 degrees of freedom.
    estimate = measured({0: 1.0, 1: 2.0, 2: 3.0}).estimates["noise"]
    assert estimate.value == 2
    assert (estimate.low, estimate.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)


def test_what_is_the_same_for_every_seed_is_exact():
    assert measured(dict.fromkeys(range(7), 0.1)).estimates["noise"] == Estimate(0.1, 0.1, 0.1)


@pytest.mark.parametrize(
    ("noise", "bias", "verdict"),
    [
        (0.5, 0.0, "holds"),
        (0.5, 1.0, "fails"),
        (1.5, 0.0, "fails"),
        ("wide", 0.0, "inconclusive"),
        ("wide", 1.0, "fails"),
    ],
)
def test_a_claim_holds_when_every_expectation_does_and_fails_when_any_does(noise, bias, verdict):
    def experiment(seed: int) -> dict[str, float]:
        return {"noise": seed if noise == "wide" else noise, "bias": bias}

    rule = (BELOW_ONE, Expect("bias", -0.01, 0.01))
    assert run_claim(a_claim(experiment, rule), (0, 1, 2)).verdict == verdict


def test_a_measurement_keeps_every_value_and_where_it_comes_from():
    seen = []
    measurement = run_claim(
        a_claim(lambda seed: {"noise": seed / 10, "steps": 7}), (4, 2), command="stratagem claim rloo",
        progress=lambda: seen.append(len(seen)),
    )  # fmt: skip
    assert measurement.seeds == (4, 2)
    assert measurement.values == {"noise": (0.4, 0.2), "steps": (7.0, 7.0)}
    assert measurement.estimates["steps"] == Estimate(7, 7, 7)
    assert measurement.command == "stratagem claim rloo" and measurement.seconds >= 0
    assert "torch" in measurement.environment["packages"] and "seed" not in measurement.environment
    assert measurement.date.endswith("+00:00")
    assert seen == [0, 1]


@pytest.mark.parametrize("seeds", [(), (3,), (1, 2, 1)])
def test_one_seed_or_the_same_twice_decides_nothing(seeds):
    with pytest.raises(InputError, match=r"^claim rloo: needs two or more different seeds, not \["):
        run_claim(a_claim(), seeds)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: {"noise": float("nan")}, "'noise' is nan"),
        (lambda: {"noise": float("inf")}, "'noise' is inf"),
        (lambda: {"nose": 0.5}, "'noise' was not measured"),
        (lambda: {"noise": "much"}, "ValueError: could not convert string to float: 'much'"),
        (lambda: {"noise": 0.5, "more": 1}, "did not measure what seed 0 did"),
    ],
)
def test_what_breaks_names_claim_and_seed_and_is_no_verdict(second, problem):
    with pytest.raises(BrokenRunError) as caught:
        run_claim(a_claim(lambda seed: second() if seed == 1 else {"noise": 0.5}), (0, 1, 2))
    assert str(caught.value) == f"claim rloo, seed 1: {problem}"


# ---- the record -----------------------------------------------------------------------------------------------------

HOLDING = measured({0: 0.40, 1: 0.41})
FAILING = measured({2: 2.00, 3: 2.01})


def test_the_same_seeds_replace_and_fresh_seeds_add():
    record = Record.of(a_claim()).adding(HOLDING).adding(measured({0: 0.6, 1: 0.7}))
    assert [known.values["noise"] for known in record.measurements] == [(0.6, 0.7)]
    assert record.adding(FAILING).seeds == (0, 1, 2, 3)
    assert len(record.adding(FAILING).measurements) == 2


def test_more_seeds_replace_what_they_contain_and_fewer_keep_it():
    record = Record.of(a_claim()).adding(HOLDING).adding(FAILING)
    assert len(record.adding(measured(dict.fromkeys(range(4), 0.5))).measurements) == 1
    overlapping = record.adding(measured({1: 0.1, 2: 0.2}))
    assert [known.seeds for known in overlapping.measurements] == [(0, 1), (2, 3), (1, 2)]


def test_a_verdict_that_flips_with_fresh_seeds_is_inconclusive():
    record = Record.of(a_claim()).adding(HOLDING)
    assert record.verdict == "holds"
    assert record.adding(FAILING).verdict == "inconclusive"
    assert Record.of(a_claim()).adding(FAILING).verdict == "fails"


def test_estimates_are_over_every_seed_once():
    record = Record.of(a_claim()).adding(measured({0: 1.0, 1: 9.0})).adding(measured({1: 2.0, 2: 3.0}))
    assert record.estimates["noise"] == measured({0: 1.0, 1: 2.0, 2: 3.0}).estimates["noise"]
    assert record.seconds == sum(known.seconds for known in record.measurements)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"source": "figure 4", "scale": "Smaller."}, True),
        ({"statement": "More noise."}, False),
        ({"baseline": "grpo"}, False),
        ({"rule": (Expect("noise", below=2),)}, False),
    ],
)
def test_what_was_measured_stays_while_the_claim_says_the_same(changes, kept):
    earlier = Record.of(a_claim()).adding(HOLDING)
    now = Record.of(a_claim(**changes), earlier)
    assert now.measurements == ((HOLDING,) if kept else ())
    assert now.source == changes.get("source", "figure 3")


# ---- the file -------------------------------------------------------------------------------------------------------

RECORD = Record.of(a_claim(rule=(BELOW_ONE, Expect("steps", 1, 9)))).adding(
    run_claim(a_claim(lambda seed: {"noise": 0.1 * seed, "steps": 7}), range(5))
)


def test_a_record_reads_as_it_was_written(tmp_path):
    path = write_record(RECORD, tmp_path / "new" / "claims")
    assert path == tmp_path / "new" / "claims" / "rloo.json"
    assert read_record("rloo", path.parent) == RECORD
    assert json.loads(path.read_text())["verdict"] == RECORD.verdict


def test_a_kill_before_the_last_moment_leaves_the_record_as_it_was(tmp_path, monkeypatch):
    write_record(RECORD, tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_record(replace(RECORD, statement="Another."), tmp_path)
    assert read_record("rloo", tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["rloo.json"]


def test_no_record_is_none(tmp_path):
    assert read_record("rloo", tmp_path) is None
    assert read_record("rloo", tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"version": 2}', "is of version 2; this is Stratagem's version 1 of the format"),
        ('{"technique": "rloo"}', "is of version None; this is Stratagem's version 1 of the format"),
        ("[]", "is of version None; this is Stratagem's version 1 of the format"),
        ('{"version": 1, "tech', "is not the record of a claim (not valid JSON)"),
        ('{"version": 1, "statement": "s"}', "technique: Field required"),
    ],
)
def test_a_broken_record_or_one_of_another_version_is_refused_in_one_line(tmp_path, text, problem):
    path = tmp_path / "rloo.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_record("rloo", tmp_path)
    assert str(caught.value) == f"{path}: {problem}"


def test_a_record_without_measurements_is_refused(tmp_path):
    write_record(Record.of(a_claim()), tmp_path)
    with pytest.raises(InputError, match=r"measurements: .*at least 1 item"):
        read_record("rloo", tmp_path)


def test_a_record_here_comes_before_the_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "shipped", lambda folder: tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert recorded("rloo") is None
    write_record(RECORD, tmp_path / "shipped")
    assert recorded("rloo") == RECORD
    mine = replace(RECORD, scale="Mine.")
    write_record(mine)
    assert recorded("rloo") == mine


# ---- by name --------------------------------------------------------------------------------------------------------

ABOUT = {"statement": "Less noise.", "source": "figure 3", "baseline": "reinforce", "scale": "Small."}


@pytest.fixture
def _no_claims(monkeypatch):
    monkeypatch.setattr(claims, "_CLAIMS", {})
    monkeypatch.setattr(claims, "_load", lambda: None)


@pytest.mark.usefixtures("_no_claims")
def test_claims_are_found_by_technique_in_the_order_of_the_catalogue():
    def experiment(seed: int) -> dict[str, float]:
        return {"noise": 0.5}

    assert claim("rloo", rule=[BELOW_ONE], **ABOUT)(experiment) is experiment
    claim("dapo", rule=[BELOW_ONE], **ABOUT)(experiment)
    assert [found.technique for found in claims.claims()] == ["dapo", "rloo"]
    assert claims.claims("games") == []
    assert claims.find_claim("rloo") == a_claim(experiment)


@pytest.mark.usefixtures("_no_claims")
@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: claims.find_claim("rlo"), "unknown recipe 'rlo'; did you mean 'rloo'?"),
        (lambda: claims.find_claim("rloo"), "technique 'rloo' has no claim"),
        (lambda: claims.claims("game"), "unknown family 'game'; did you mean 'games'?"),
    ],
)
def test_what_is_not_there_is_one_line(ask, problem):
    with pytest.raises(InputError) as caught:
        ask()
    assert str(caught.value) == problem


@pytest.mark.usefixtures("_no_claims")
def test_a_technique_has_one_claim(monkeypatch):
    claim("rloo", rule=[BELOW_ONE], **ABOUT)(lambda seed: {"noise": 0.5})

    def elsewhere(seed: int) -> dict[str, float]:
        return {"noise": 0.5}

    elsewhere.__module__ = "elsewhere"
    with pytest.raises(InputError, match=r"^technique 'rloo' already has a claim, from "):
        claim("rloo", rule=[BELOW_ONE], **ABOUT)(elsewhere)
