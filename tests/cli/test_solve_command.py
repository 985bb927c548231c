"""``solve``: a table of exploitability, data for machines, a run directory, and one line for wrong input."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pyspiel", reason="OpenSpiel is not installed (stratagem[games])")
pytest.importorskip("numba", reason="numba is not installed (stratagem[games])")


def test_solving_prints_a_table_and_writes_a_run(stratagem, tmp_path):
    said = stratagem("solve", "cfr_plus", "--task", "spiel:kuhn_poker", "--iterations", 100)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "cfr_plus on kuhn_poker: 58 histories, 12 information states"
    assert lines[2].split() == ["iterations", "seconds", "exploitability", "current", "strategy", "value"]
    last = lines[-3].split()
    assert last[0] == "100" and 0 < float(last[2]) < 0.01 and float(last[4]) == pytest.approx(-1 / 18, abs=2e-3)
    assert lines[-1] == "strategies, metrics and report: runs/cfr_plus-spiel-kuhn_poker"
    assert (tmp_path / "runs" / "cfr_plus-spiel-kuhn_poker" / "report.html").is_file()


def test_json_is_what_was_measured(stratagem):
    said = stratagem("solve", "dcfr", "--task", "spiel:kuhn_poker", "--iterations", 30, "--out", "mine", "--json")
    found = json.loads(said.out)
    assert said.code == 0 and found["directory"] == "mine" and found["averaged"] is True
    assert found["rows"][-1]["step"] == 30 and found["rows"][-1]["exploitability"] == found["exploitability"]
    with open("mine/metrics.jsonl", encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == found["rows"]


def test_a_run_without_an_average_says_so_and_an_argument_changes_that(stratagem):
    short = ("solve", "vad_cfr", "--task", "spiel:kuhn_poker", "--iterations", 20)
    assert "There is no average yet: its first 500 iterations do not count (--set warm_up=N)." in stratagem(*short).out
    warm = json.loads(stratagem(*short, "--set", "warm_up=5", "--out", "warm", "--json").out)
    assert [row["averaged"] for row in warm["rows"]] == [row["step"] > 5 for row in warm["rows"]]


def test_a_population_shows_how_many_strategies_it_has_and_when_it_is_complete(stratagem, tmp_path):
    said = stratagem("solve", "psro", "--task", "spiel:kuhn_poker", "--iterations", 40, "--set", "meta=nash")
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "") and lines[2].split()[-1] == "strategies"
    assert lines[-1] == "strategies, metrics and report: runs/psro-spiel-kuhn_poker"
    assert "It was complete after" in said.out
    assert (tmp_path / "runs" / "psro-spiel-kuhn_poker" / "report.html").is_file()


LEARNED = ("--set", "oracle=learned", "--set", "steps=1", "--set", "episodes=8", "--set", "trials=20")


def test_responses_are_learned_and_exploitability_stays_exact(stratagem):
    settings = ("--set", "settings={optimization.learning_rate: 1e-3, optimization.epochs: 1}")
    said = stratagem("solve", "psro", "--task", "spiel:kuhn_poker", "--iterations", 2, *LEARNED, *settings, "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert [row["step"] for row in found["rows"]] == [1, 2]
    assert found["exploitability"] == found["rows"][-1]["exploitability"] > 0
    first, second = found["rows"]
    assert second["exploitability/at_least"] <= first["exploitability/current"] + 1e-9


def test_a_game_that_is_too_large_is_played_and_the_run_goes_on(stratagem):
    task = ("--task", "spiel:kuhn_poker", "--histories", 10)
    said = stratagem("solve", "psro", *task, "--iterations", 1, *LEARNED, "--set", "meta=uniform", "--out", "mine")
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert lines[0] == "psro on kuhn_poker: played, at most 3 moves of 2 actions"
    assert lines[2].split("  ")[2].strip() == "exploitability at least" and "±" in lines[3]
    assert "how much more, playing cannot tell" in " ".join(lines) and lines[-1].endswith("report: mine")
    more = stratagem("solve", "--resume", "mine", "--iterations", 2, "--json")
    found = json.loads(more.out)
    assert (found["variant"], found["iterations"], found["exploitability"]) == ("psro", 2, None)
    assert [row["step"] for row in found["rows"]] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("cfr", "--task", "spiel:leduc"), "error: unknown game of OpenSpiel 'leduc'; did you mean 'leduc_poker'?"),
        (("dcf", "--task", "spiel:kuhn_poker"), "error: unknown solver 'dcf'; did you mean 'dcfr'?"),
        (
            ("cfr", "--task", "spiel:go"),
            "error: game go is too large to enumerate: it has more than 1,000,000 histories",
        ),
        (("psro", "--task", "spiel:coordinated_mp", "--histories", "1", *LEARNED), "error: game coordinated_mp: OpenS"),
        (("psro", "--task", "spiel:kuhn_poker", *LEARNED, "--set", "recipe=ipp"), "error: unknown recipe 'ipp'; did"),
        (("cfr", "--task", "spiel:matrix_pd"), "error: CFR: game matrix_pd is not zero-sum"),
        (("cfr", "--task", "spiel:kuhn_poker(players=3)"), "error: CFR: game kuhn_poker(players=3) has 3 players"),
        (("cfr", "--task", "spiel:kuhn_poker", "--set", "alpha"), "error: --set alpha: write FIELD=VALUE"),
        (
            ("psro", "--task", "spiel:kuhn_poker", "--set", "meta=nsh"),
            "error: unknown meta-solver 'nsh'; did you mean 'nash'?",
        ),
        (
            ("psro", "--task", "spiel:matrix_pd", "--set", "meta=nash"),
            "error: meta-solver nash: the game is not zero-sum",
        ),
        (("cfr",), "error: solve: --task is needed, or --resume with a run"),
        (("--task", "spiel:kuhn_poker"), "error: solve: a variant is needed, or --resume with a run"),
        (("cfr", "--resume", "runs/none"), "error: --resume runs/none: goes on with the run as it was begun"),
        (("--resume", "runs/none"), "error: run directory runs/none: holds no run"),
    ],
)
def test_wrong_input_is_one_line(stratagem, tmp_path, arguments, error):
    said = stratagem("solve", *arguments)
    assert said.code == 2 and said.err.startswith(error) and said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
