"""The table of recorded chaos."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("mkdocs")

from chaos_table import chaos_table

from stratagem.errors import InputError


def recorded(tmp_path, **changes):
    run = {"scenario": "one", "description": "it breaks", "seed": 0, "outcome": "same numbers", "restarts": 1}
    run |= {"failed_episodes": 0, "violations": 0, "seconds": 40.4}
    runs = [run, {**run, "seed": 1, **changes}]
    path = tmp_path / "chaos.json"
    path.write_text(json.dumps({"cores": 2, "runs": runs}))
    return path


def test_equal_figures_of_a_scenario_are_one(tmp_path):
    assert "| it breaks | 2 | same numbers | 1 | 0 | 0 | 40 |" in chaos_table(recorded(tmp_path))


def test_a_run_that_failed_is_not_hidden_by_the_others(tmp_path):
    table = chaos_table(recorded(tmp_path, outcome="failed", restarts=3, violations=1))
    assert "| it breaks | 2 | same numbers (1), failed (1) | 1 to 3 | 0 | 0 to 1 | 40 |" in table


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "chaos.json"
    with pytest.raises(InputError, match=r"chaos\.json"):
        chaos_table(path)
    path.write_text('{"runs": [{}]}')
    with pytest.raises(InputError, match=r"chaos\.json"):
        chaos_table(path)
