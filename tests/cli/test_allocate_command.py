"""``allocate`` on the command line."""

from __future__ import annotations

import json

from stratagem.cli.app import run

TASK = "allocation:static,entities=6,slots=2"


def test_it_learns_compares_and_says_where_the_results_are(tmp_path, capsys):
    arguments = ["allocate", "two_stage_allocation", "greedy", "--task", TASK, "--decisions", "64", "--episodes", "5"]
    assert run([*arguments, "--set", "learning_rate=1e-3", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "two_stage_allocation" in said and "mean of 5 episodes" in said and str(tmp_path / "run") in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"] == {"learning_rate": 1e-3}


def test_json_holds_what_was_measured(tmp_path, capsys):
    assert run(["allocate", "random", "--task", TASK, "--episodes", "4", "--json", "--out", str(tmp_path / "r")]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["allocator"] == "random" and row["episodes"] == 4


def test_a_wrong_task_is_one_line(capsys):
    assert run(["allocate", "random", "--task", "allocation:nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
