"""``claim``: which claims run, what is printed and recorded, and the exit code that says what came out."""

from __future__ import annotations

import json

import pytest

from stratagem.study import claims
from stratagem.study.claims import Expect, claim, read_record

ABOUT = {"statement": "Less noise.", "source": "figure 3", "baseline": "reinforce", "scale": "Small."}
RULE = (Expect("noise", below=1),)


@pytest.fixture(autouse=True)
def _no_claims(monkeypatch):
    monkeypatch.setattr(claims, "_CLAIMS", {})
    monkeypatch.setattr(claims, "_load", lambda: None)


@pytest.fixture
def enter():
    """``enter("rloo", lambda seed: noise)``: the claim that its noise is below 1. Returns the seeds it was run with."""

    def enter(technique: str, noise, rule=RULE, **changes: str) -> list[int]:
        seen: list[int] = []

        def experiment(seed: int) -> dict[str, float]:
            seen.append(seed)
            return {"noise": noise(seed)}

        claim(technique, rule=rule, **{**ABOUT, **changes})(experiment)
        return seen

    return enter


def broken(seed: int) -> float:
    raise ZeroDivisionError("no luck")


# ---- what came out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "verdict", "code"),
    [(lambda seed: 0.5, "holds", 0), (lambda seed: 1.5, "fails", 1), (lambda seed: seed, "inconclusive", 0)],
)
def test_the_exit_code_is_1_when_a_claim_fails(stratagem, enter, noise, verdict, code):
    enter("rloo", noise)
    said = stratagem("claim", "rloo")
    assert (said.code, said.err) == (code, "")
    assert said.out.splitlines()[1].split()[:3] == ["rloo", verdict, "noise"]
    assert read_record("rloo").verdict == verdict


def test_the_table_shows_what_was_measured_beside_the_rule(stratagem, enter):
    enter("rloo", lambda seed: (0.4, 0.5, 0.6)[seed])
    lines = stratagem("claim", "rloo", "--seeds", 3).out.splitlines()
    assert lines[0].split() == ["technique", "verdict", "measured", "mean", "expected", "seeds", "seconds"]
    # Standard error 0.1/sqrt(3), times 4.3027, the 97.5 % point of t with 2 degrees of freedom: 0.248.
    assert "noise     0.5 [0.252, 0.748]  below 1: holds  3" in lines[1]


def test_the_data_are_a_list_with_a_verdict_for_each(stratagem, enter):
    enter("rloo", lambda seed: 0.5)
    enter("dapo", lambda seed: 1.5)
    said = stratagem("claim", "rloo", "dapo", "rloo", "--json")
    entries = json.loads(said.out)
    assert said.code == 1
    assert [(entry["name"], entry["verdict"], entry["recorded"], entry["remarks"]) for entry in entries] == [
        ("rloo", "holds", "holds", []),
        ("dapo", "fails", "fails", []),
    ]
    for entry in entries:
        assert set(entry) == {
            "name", "verdict", "statement", "measured", "seeds", "seconds", "recorded", "remarks",
        }  # fmt: skip
        assert entry["seeds"] == 5 and entry["statement"] == "Less noise."
    assert entries[0]["measured"]["noise"] == {
        "value": 0.5, "low": 0.5, "high": 0.5, "expected": "below 1", "verdict": "holds",
    }  # fmt: skip


# ---- seeds and records ----------------------------------------------------------------------------------------------


def test_the_record_says_how_to_repeat_it(stratagem, enter, tmp_path):
    seen = enter("rloo", lambda seed: 0.5)
    stratagem("claim", "rloo", "--seeds", 2, "--first-seed", 7, "--out", "mine")
    assert seen == [7, 8]
    record = read_record("rloo", tmp_path / "mine")
    assert [known.command for known in record.measurements] == ["stratagem claim rloo --seeds 2 --first-seed 7"]
    assert not (tmp_path / "results").exists()


def test_a_verdict_that_flips_with_fresh_seeds_is_recorded_as_inconclusive(stratagem, enter):
    enter("rloo", lambda seed: 0.5 if seed < 5 else 1.5)
    assert stratagem("claim", "rloo").code == 0
    said = stratagem("claim", "rloo", "--first-seed", 5)
    assert said.code == 1
    assert "rloo: recorded as inconclusive: with other seeds the verdict was holds" in said.out
    assert read_record("rloo").verdict == "inconclusive"
    stratagem("claim", "rloo")
    assert len(read_record("rloo").measurements) == 2


def test_what_was_measured_of_a_claim_that_has_changed_is_dropped_and_said_so(stratagem, enter):
    enter("rloo", lambda seed: 0.5)
    stratagem("claim", "rloo", "--first-seed", 5)
    enter("rloo", lambda seed: 0.5, rule=(Expect("noise", below=2),))
    said = stratagem("claim", "rloo")
    assert "rloo: the claim has changed, and what was measured of it before is dropped" in said.out
    assert [known.seeds for known in read_record("rloo").measurements] == [(0, 1, 2, 3, 4)]


def test_a_claim_over_its_budget_says_so(stratagem, enter, monkeypatch):
    monkeypatch.setattr(claims, "BUDGET", -1.0)
    enter("rloo", lambda seed: 0.5)
    assert "rloo: took 0 s; a claim may take -1 s" in stratagem("claim", "rloo").out


# ---- many claims ----------------------------------------------------------------------------------------------------


def test_all_are_the_claims_of_the_catalogue_or_of_a_family(stratagem, enter):
    for technique in ("rloo", "dapo"):
        enter(technique, lambda seed: 0.5)
    assert [entry["name"] for entry in json.loads(stratagem("claim", "--all", "--json").out)] == ["dapo", "rloo"]
    said = stratagem("claim", "--all", "--family", "games")
    assert (said.code, said.out) == (0, "nothing to measure\n")


def test_what_breaks_does_not_stop_the_others_and_is_no_verdict(stratagem, enter):
    enter("dapo", broken)
    enter("rloo", lambda seed: 1.5)
    said = stratagem("claim", "--all")
    assert said.code == 3
    assert said.err == (
        "error: claim dapo, seed 0: ZeroDivisionError: no luck; the others are recorded in results/claims\n"
    )
    assert "rloo" in said.out and read_record("rloo").verdict == "fails"
    assert read_record("dapo") is None


def test_a_single_claim_that_breaks_prints_its_error_alone(stratagem, enter):
    enter("dapo", broken)
    said = stratagem("claim", "dapo", "--json")
    assert (said.code, said.out) == (3, "")
    assert said.err == "error: claim dapo, seed 0: ZeroDivisionError: no luck\n"


def test_a_kill_loses_nothing_finished_and_missing_goes_on_from_there(stratagem, enter):
    def killed(seed: int) -> float:
        raise KeyboardInterrupt

    first = enter("dapo", lambda seed: 0.5)
    enter("rloo", killed)
    assert stratagem("claim", "--all").code == 130
    assert read_record("dapo").verdict == "holds"

    second = enter("rloo", lambda seed: 0.5)
    stratagem("claim", "--all", "--missing")
    assert (len(first), len(second)) == (5, 5)
    enter("dapo", lambda seed: 0.5, statement="Another.")
    assert [entry["name"] for entry in json.loads(stratagem("claim", "--all", "--missing", "--json").out)] == ["dapo"]
    assert stratagem("claim", "rloo", "--missing").out == "nothing to measure\n"


# ---- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "claim needs the names of techniques or --all, and not both"),
        (("rloo", "--all"), "claim needs the names of techniques or --all, and not both"),
        (("rloo", "--family", "baselines"), "--family baselines: goes with --all"),
        (("--all", "--family", "baseline"), "unknown family 'baseline'; did you mean 'baselines'?"),
        (("rloo", "rlo"), "unknown recipe 'rlo'; did you mean 'rloo'?"),
        (("rloo", "dapo"), "technique 'dapo' has no claim"),
        (("rloo", "--seeds", 1), "Invalid value for '--seeds': "),
        (("rloo", "--first-seed", -1), "Invalid value for '--first-seed': "),
        (("rloo", "--out", "file"), "--out file: must be a folder"),
        (("rloo", "--out", "old"), "old/rloo.json: is of version 0; this is Stratagem's version 1 of the format"),
    ],
)
def test_wrong_input_is_one_line_before_anything_runs(stratagem, enter, tmp_path, arguments, problem):
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "rloo.json").write_text('{"version": 0}')
    seen = enter("rloo", lambda seed: 0.5)
    said = stratagem("claim", *arguments)
    assert (said.code, said.out, seen) == (2, "", [])
    assert said.err.startswith(f"error: {problem}") and said.err.count("\n") == 1
