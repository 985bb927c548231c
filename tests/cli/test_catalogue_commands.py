"""``methods``, ``show`` and ``tasks``: the catalogue as text and as data."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stratagem as package
from stratagem import catalogue
from stratagem.study import claims
from stratagem.study.claims import Claim, Expect, Record, run_claim, write_record

KEYS = {"name", "title", "family", "roles", "arxiv", "year", "base", "tags", "claim"}


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


def test_a_filter_that_is_given_twice_takes_both(stratagem):
    both = json.loads(stratagem("methods", "--family", "games", "--family", "bandits", "--json").out)
    alone = [json.loads(stratagem("methods", "--family", name, "--json").out) for name in ("games", "bandits")]
    assert both == alone[0] + alone[1] and all(alone)


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
    assert set(shown) == KEYS | {"summary", "record", "parts", "diff"}
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


# ---- claims ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(stratagem, monkeypatch, tmp_path):
    """``record(*values)``: dapo's claim, that its noise is below 1, on record here with a measurement of each."""
    monkeypatch.setattr(claims, "shipped", lambda folder: tmp_path / "nothing")

    def write(*values: float) -> Record:
        about = ("dapo", "Less noise than [GRPO].", "figure 3", "grpo", (Expect("noise", below=1),), "Small games.")
        written = Record.of(Claim(*about, experiment=lambda seed: {}))
        for place, value in enumerate(values):
            measured = {"noise": value, "steps": 7}
            claim = Claim(*about, experiment=lambda seed, measured=measured: measured)
            written = written.adding(run_claim(claim, range(5 * place, 5 * place + 5)))
        write_record(written)
        return written

    return write


def test_methods_shows_the_verdict_and_what_was_measured(stratagem, record):
    written = record(0.5)
    cards = {card["name"]: card for card in json.loads(stratagem("methods", "--json").out)}
    assert cards["grpo"]["claim"] is None
    assert cards["dapo"]["claim"] == {
        "verdict": "holds",
        "statement": "Less noise than [GRPO].",
        "measured": {
            "noise": {"value": 0.5, "low": 0.5, "high": 0.5, "expected": "below 1", "verdict": "holds"},
            "steps": {"value": 7, "low": 7, "high": 7, "expected": None, "verdict": None},
        },
        "seeds": 5,
        "seconds": written.seconds,
    }
    lines = stratagem("methods").out.splitlines()
    assert "holds" in next(line for line in lines if line.startswith("dapo"))
    assert "holds" not in next(line for line in lines if line.startswith("grpo"))


def test_showing_a_technique_shows_its_claim(stratagem, record):
    record(0.5, 1.5)
    shown = stratagem("show", "dapo").out
    assert "Claim: inconclusive (10 seeds, " in shown
    assert "Less noise than [GRPO]. (figure 3)" in shown and "Compared with grpo. Small games." in shown
    # Five times 0.5 and five times 1.5: standard error 1/6, and the 97.5 % point of t with 9 degrees is 2.2622.
    assert "1 [0.623, 1.38]" in shown and "below 1: inconclusive" in shown
    assert "seeds 0, 1, 2, 3, 4: holds" in shown and "seeds 5, 6, 7, 8, 9: fails" in shown
    assert "Claim: not measured" in stratagem("show", "rloo").out


def test_showing_a_technique_as_data_holds_the_whole_record(stratagem, record):
    written = record(0.5)
    shown = json.loads(stratagem("show", "dapo", "--json").out)["record"]
    assert shown["rule"] == [{"quantity": "noise", "above": None, "below": 1}]
    assert shown["measurements"][0]["values"]["noise"] == [0.5] * 5
    assert shown["measurements"][0]["date"] == written.measurements[0].date


@pytest.mark.parametrize("command", [("methods",), ("methods", "--json"), ("show", "dapo")])
def test_a_record_of_another_version_is_one_line(stratagem, record, command):
    record(0.5)
    Path("results/claims/dapo.json").write_text('{"version": 0}')
    said = stratagem(*command)
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "error: results/claims/dapo.json: is of version 0; this is Stratagem's version 1 of the format\n"
    )


# ---- tasks ----------------------------------------------------------------------------------------------------------


def test_tasks_are_listed_with_what_they_need(stratagem):
    said = stratagem("tasks", "--json")
    cards = {card["name"]: card for card in json.loads(said.out)}
    assert set(cards["textworld"]) == {"name", "pattern", "description", "extra"}
    assert cards["textworld"]["extra"] == "text" and cards["key_door"]["extra"] is None
    assert "key_door" in stratagem("tasks").out


def test_methods_is_there_at_once_and_without_what_is_slow_to_import():
    code = (
        "import sys, time\n"
        "import torch\n"
        "torch_alone = time.process_time()\n"
        "from stratagem.cli.app import run\n"
        "assert run(['methods', '--json']) == 0\n"
        "for slow in ('transformers', 'scipy.stats', 'networkx', 'ray', 'numba'):\n"
        "    assert slow not in sys.modules, slow\n"
        "print(time.process_time() / torch_alone, file=sys.stderr)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(package.__file__).parents[1])}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr
    assert float(child.stderr) < 4.0, "times what a process takes that imports torch and does nothing"


def test_show_has_what_the_lab_found(stratagem):
    assert stratagem("lab", "rloo", "--game", "rare", "--groups", 512, "--out", "results/lab/rloo.json").code == 0
    said = stratagem("show", "rloo")
    assert "Lab (stratagem lab explains the columns)" in said.out
    assert any(line.startswith("rare ") for line in said.out.splitlines())


# ---- slots ----------------------------------------------------------------------------------------------------------


def test_methods_are_filtered_by_slot_for_people_and_machines(stratagem):
    cards = json.loads(stratagem("methods", "--slot", "search.structure.tree", "--json").out)
    assert {"thor", "himac"} <= {card["name"] for card in cards} and "grpo" not in {card["name"] for card in cards}
    assert all("search.structure.tree" in card["tags"] for card in cards)
    lines = stratagem("methods", "--slot", "learning.family.cloning").out.splitlines()
    assert "learning.family.cloning" in next(line for line in lines if line.startswith("sft"))
    wrong = stratagem("methods", "--slot", "serch")
    assert (wrong.code, wrong.err) == (2, "error: unknown slot 'serch'; did you mean 'search'?\n")


def test_show_prints_the_slots_of_a_technique(stratagem):
    said = stratagem("show", "dapo").out
    assert "Slots" in said and "structure.best_of_n" in said and "overthinking" in said


def test_show_prints_the_slots_and_behaviours_of_a_run(stratagem, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "recipe.yaml").write_text(catalogue.card("rejection_sft").recipe().to_yaml())
    (run / "metrics.jsonl").write_text('{"step": 1, "tokens/sampled": 40}\n{"step": 2, "tokens/sampled": 2}\n')
    (run / "samples.jsonl").write_text(
        '{"step": 1, "messages": [{"role": "assistant", "content": "Wait. Alternatively, 5."}]}\n'
    )
    ledger = '{"step": 1, "begun": [[0, 3]], "learned": [[0, 2]], "left_out": {"failed": [[3, 3]]}}\n'
    (run / "episodes.jsonl").write_text(ledger)
    people = stratagem("show", run)
    assert people.code == 0 and "42 tokens" in people.out and "family.cloning" in people.out
    assert "4 begun, 3 learned from once, 1 failed; all are accounted for" in people.out
    assert "alternative_proposal" in people.out
    plain = json.loads(stratagem("show", run, "--json").out)
    assert plain["tokens"] == 42 and plain["behaviours"]["self_correction"]["count"] == 1
    assert plain["empty"] == ["initialisation"] and plain["episodes"]["proved"]
    (run / "episodes.jsonl").write_text(
        ledger + '{"step": 2, "begun": [[2, 2]], "learned": [[2, 2]], "left_out": {}}\n'
    )
    assert "NOT accounted for: episode 2: learned in step 1 and learned in step 2" in stratagem("show", run).out


def test_show_prints_how_the_entropy_of_a_run_fell(stratagem, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    lines = (json.dumps({"step": n, "entropy": 1 / n, "reward": 0.9 - 0.1 * math.exp(1 / n)}) for n in range(1, 41))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    people = stratagem("show", run, "--entropy")
    assert people.code == 0 and "37 to 40" in people.out
    assert (
        "reward = -0.1 exp(entropy) + 0.9, explains 100 %" in people.out and "the first quarter foretells" in people.out
    )
    assert json.loads(stratagem("show", run, "--entropy", "--json").out)["law"]["ceiling"] == pytest.approx(0.8)
    refused = stratagem("show", "grpo", "--entropy")
    assert refused.code == 2 and "holds no run" in refused.err and refused.err.count("\n") == 1
