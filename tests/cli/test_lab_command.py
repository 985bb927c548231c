"""``lab``: verdicts as a table and as data. ``cliff``: the same of a game's reward."""

from __future__ import annotations

import json

import pytest


def test_lab_as_json_has_a_diagnosis_for_every_technique_and_game(stratagem):
    said = stratagem("lab", "grpo", "rloo", "--game", "graded", "--game", "stopping", "--groups", 4096, "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["version"] == 1 and set(found["games"]) == {"graded", "stopping"}
    verdicts = {(d["game"], d["recipe"]): d["verdict"] for d in found["diagnoses"]}
    assert verdicts == {
        ("graded", "grpo"): "biased",
        ("graded", "rloo"): "not shown biased",
        ("stopping", "grpo"): "biased",
        ("stopping", "rloo"): "not shown biased",
    }
    first = found["diagnoses"][0]
    assert first["groups"] >= 4096 and first["seed"] == 0
    assert first["bias"]["low"] <= first["bias"]["value"] <= first["bias"]["high"]


def test_all_games_are_the_default(stratagem):
    found = json.loads(stratagem("lab", "rloo", "--groups", 128, "--json").out)
    assert len(found["games"]) == len(found["diagnoses"]) == 8


def test_lab_for_people_is_a_table_for_each_game(stratagem):
    said = stratagem("lab", "grpo", "--game", "stopping", "--groups", 4096)
    assert said.code == 0
    row = next(line for line in said.out.splitlines() if line.startswith("grpo"))
    assert "biased" in row and row.count("[") == 4 and "%" in row
    assert said.out.startswith("stopping: Up to four turns") and "95 % intervals" in said.out


def test_options_reach_the_diagnosis_and_a_file_is_written(stratagem, tmp_path):
    out = tmp_path / "new" / "lab.json"
    options = ("--batch-groups", 2, "--drift", 0.3, "--seed", 5, "--out", out, "--json")
    said = stratagem("lab", "rloo", "--game", "graded", "--groups", 256, *options)
    found = json.loads(said.out)
    assert json.loads(out.read_text()) == found
    only = found["diagnoses"][0]
    assert (only["batch_groups"], only["drift"], only["seed"]) == (2, 0.3, 5)


def test_a_recipe_file_is_judged_like_a_technique(stratagem, tmp_path):
    from stratagem.catalogue import card

    path = tmp_path / "mine.yaml"
    path.write_text(card("rloo").recipe().replace(name="mine").to_yaml())
    found = json.loads(stratagem("lab", path, "--game", "graded", "--groups", 128, "--json").out)
    assert found["diagnoses"][0]["recipe"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("grop",), "unknown recipe 'grop'; did you mean 'grpo'?"),
        (("grpo", "--game", "rar"), "unknown game 'rar'; did you mean 'rare'?"),
        (
            ("sft",),
            "recipe sft: the lab cannot judge it: sampler demonstrations: the lab draws rollouts of the policy itself",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_line(stratagem, arguments, error):
    said = stratagem("lab", *arguments)
    assert (said.code, said.out, said.err) == (2, "", f"error: {error}\n")


def test_cliff_as_json_says_where_the_best_policy_changes(stratagem):
    said = stratagem(
        "cliff", "styles", "--weight", "brevity=0.01", "--alpha", 0.05, "--draws", 8, "--seed", 3, "--json"
    )
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert (found["version"], found["game"], found["rewards"]) == (1, "styles", {"accuracy": 1, "brevity": 0.01})
    assert found["closest"][0]["best"] == [0]
    assert found["closest"][0]["radius"] == pytest.approx(0.005)
    [flip] = [flip for flip in found["flips"] if flip["component"] == "brevity"]
    assert flip["weight"] == pytest.approx(0, abs=1e-9) and flip["states"] == ["start"]
    moved = found["perturbation"]
    assert (moved["temperature"], moved["draws"], moved["seed"], moved["epsilon"]) == (0.05, 8, 3, 0.01)


def test_cliff_for_people_shows_the_nearest_states_and_the_weights(stratagem):
    said = stratagem("cliff", "tools")
    assert said.code == 0 and said.out.startswith("tools: 3 prompts")
    assert "reward: 1 accuracy + 1 format + 1 executability" in said.out
    assert "43 of 167 states are on a best policy's way; 24 tie" in said.out and "and 33 more" in said.out
    rows = [line.split()[:2] for line in said.out.splitlines() if line.startswith(("accuracy ", "executability "))]
    assert ["executability", "1.6000"] in rows and ["accuracy", "0.6250"] in rows
    assert "bound 0.0500" in said.out


def test_cliff_of_a_single_reward_is_shown_as_well(stratagem):
    said = stratagem("cliff", "windy", "--epsilon", 0.0)
    assert said.code == 0 and "(2, 2)" in said.out and "change in 0.0 % of states" in said.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("style",), "unknown game 'style'; did you mean 'styles'?"),
        (("styles", "--weight", "brevety=1"), "unknown reward 'brevety'; did you mean 'brevity'?"),
        (("styles", "--weight", "brevity"), "--weight brevity: must be NAME=VALUE with a number"),
        (("styles", "--weight", "brevity=much"), "--weight brevity=much: must be NAME=VALUE with a number"),
        (("styles", "--weight", "brevity=inf"), "weight of reward 'brevity' = inf: must be finite"),
    ],
)
def test_a_cliff_that_cannot_be_shown_is_one_line(stratagem, arguments, error):
    said = stratagem("cliff", *arguments)
    assert (said.code, said.out, said.err) == (2, "", f"error: {error}\n")
