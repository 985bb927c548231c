"""``methods``, ``show`` and ``tasks``: the catalogue as text and as data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stratagem as package
from stratagem import catalogue

KEYS = {"name", "title", "family", "roles", "arxiv", "year", "base", "claim"}


def test_methods_is_a_list_of_cards(stratagem):
    said = stratagem("methods", "--json")
    cards = json.loads(said.out)
    assert said.code == 0 and said.err == ""
    assert len(cards) >= 13
    for card in cards:
        assert set(card) == KEYS
        assert isinstance(card["name"], str) and isinstance(card["title"], str) and isinstance(card["year"], int)
        assert isinstance(card["roles"], list) and (card["arxiv"] is None or card["arxiv"][4] == ".")
        if card["claim"] is not None:
            assert set(card["claim"]) == {"verdict", "statement", "measured", "seeds", "seconds"}
    grpo = next(card for card in cards if card["name"] == "grpo")
    assert grpo["arxiv"] == "2402.03300" and grpo["base"] == "ppo" and grpo["family"] == "baselines"
    assert {card["base"] for card in cards} - {None} <= {card["name"] for card in cards}


def test_methods_are_filtered_by_family_and_role(stratagem):
    cards = json.loads(stratagem("methods", "--family", "baselines", "--role", "gate", "--json").out)
    assert {"dapo", "cispo"} <= {card["name"] for card in cards}
    assert all(card["family"] == "baselines" and "gate" in card["roles"] for card in cards)


def test_methods_for_people_is_one_line_each(stratagem):
    said = stratagem("methods", "--family", "baselines")
    assert said.code == 0
    assert any(line.startswith("grpo") and "2402.03300" in line for line in said.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("methods", "--family", "baseline"), "error: unknown family 'baseline'; did you mean 'baselines'?"),
        (("methods", "--role", "gates"), "error: unknown role 'gates'; did you mean 'gate'?"),
        (("show", "grop"), "error: unknown recipe 'grop'; did you mean 'grpo'?"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(stratagem, arguments, error):
    said = stratagem(*arguments)
    assert (said.code, said.out, said.err) == (2, "", error + "\n")


def test_showing_a_technique_shows_its_difference_from_its_base(stratagem):
    shown = json.loads(stratagem("show", "dapo", "--json").out)
    assert set(shown) == KEYS | {"summary", "parts", "diff"}
    assert {"path": "objective.gate.high", "before": 0.2, "after": 0.28} in shown["diff"]
    assert shown["parts"]["objective.gate"] == "clip" and shown["parts"]["sampler.group_size"] == 8
    people = stratagem("show", "dapo")
    assert people.code == 0
    assert "Against grpo" in people.out and "objective.gate.high" in people.out and "2503.14476" in people.out


@pytest.mark.parametrize("name", ["sft", "ppo", "reinforce_pp", "gspo"])
def test_every_field_shown_can_be_set(stratagem, name):
    parts = json.loads(stratagem("show", name, "--json").out)["parts"]
    recipe = catalogue.card(name).recipe()
    leaves = {path: value for path, value in parts.items() if not any(other.startswith(f"{path}.") for other in parts)}
    assert len(leaves) > 5
    for path, value in leaves.items():
        assert recipe.with_values({path: value}) == recipe, path


def test_tasks_are_listed_with_what_they_need(stratagem):
    said = stratagem("tasks", "--json")
    cards = {card["name"]: card for card in json.loads(said.out)}
    assert set(cards["textworld"]) == {"name", "pattern", "description", "extra"}
    assert cards["textworld"]["extra"] == "text" and cards["key_door"]["extra"] is None
    assert "key_door" in stratagem("tasks").out


def test_methods_is_there_at_once_and_without_transformers():
    code = (
        "import sys, time\n"
        "from stratagem.cli.app import run\n"
        "assert run(['methods', '--json']) == 0\n"
        "assert 'transformers' not in sys.modules, 'transformers'\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(package.__file__).parents[1])}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr
    assert float(child.stderr) < 3.0
