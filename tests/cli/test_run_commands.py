"""``train`` and ``eval``: from a line of text to a run, and every wrong input to one line."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stratagem import recipes
from stratagem.cli.run_commands import parse_values, success_cell
from stratagem.errors import InputError
from stratagem.recipe import Recipe
from stratagem.training.run_directory import RunDirectory


@pytest.fixture
def options(model_folder: Path) -> list[str]:
    """Of a run that takes a second."""
    quick = {"sampler.prompts_per_step": 2, "sampler.group_size": 2}
    values = [word for name, value in quick.items() for word in ("--set", f"{name}={value}")]
    return ["--model", str(model_folder), "--precision", "float32", "--steps", "2", "--episodes", "2", *values]


TASK = "key_door:max_turns=8"
PROMISED = [
    "recipe.yaml",
    "run.json",
    "environment.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "samples.jsonl",
    "report.html",
    "model/model.safetensors",
    "model/README.md",
    "checkpoints/step-2/state.json",
]


# ---- train ----------------------------------------------------------------------------------------------------------


def test_training_writes_everything_and_says_where(stratagem, options, tmp_path):
    said = stratagem("train", "reinforce", "--task", TASK + ",step_cost=0.1", "--out", "run", *options)
    assert (said.code, said.err) == (0, "")
    run = tmp_path / "run"
    for name in PROMISED:
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").iterdir())
    assert "run: run   report: run/report.html" in said.out
    assert "sampled" in said.out and "greedy" in said.out
    assert [row["step"] for row in RunDirectory(run).rows("metrics.jsonl")] == [1, 2]
    # Everybody pays the same eight times 0.1: only the first batch differs from the average before it, which is 0.
    assert RunDirectory(run).rows("metrics.jsonl")[-1]["optimizer_steps"] == 1
    assert json.loads((run / "run.json").read_text())["task"] == TASK + ",step_cost=0.1"
    assert json.loads((run / "environment.json").read_text())["seed"] == 0

    judged = stratagem("eval", "run", "--episodes", "3", "--precision", "float32", "--json")
    assert (judged.code, judged.err) == (0, "")
    sampled, greedy = json.loads(judged.out)
    assert (sampled["mode"], greedy["mode"], sampled["episodes"]) == ("sampled", "greedy", 3)
    assert "mean return" in stratagem("eval", "run", "--episodes", "2", "--precision", "float32").out

    resumed = stratagem("train", "--resume", "run", "--steps", "3")
    assert (resumed.code, resumed.err) == (0, "")
    assert [row["step"] for row in RunDirectory(run).rows("metrics.jsonl")] == [1, 2, 3]


def test_a_run_that_knows_no_success_is_judged_by_its_mean_return_once(stratagem):
    assert stratagem("train", "ippo", "--task", "two_step", "--steps", 1, "--out", "run", "--episodes", 4).code == 0
    said = stratagem("eval", "run", "--episodes", 8)
    assert said.code == 0 and said.out.splitlines()[0].split() == [
        "mode",
        "episodes",
        "mean",
        "return",
        "mean",
        "length",
    ]
    assert "[" in said.out.splitlines()[1]


def test_values_and_a_file_reach_the_recipe(stratagem, options, tmp_path):
    mine = recipes.grpo().with_values({"objective.gate.high": 0.3})
    (tmp_path / "mine.yaml").write_text(mine.to_yaml())
    values = [
        "optimization.learning_rate=1e-3",
        "optimization.microbatch_tokens=null",
        "advantage=leave_one_out",
        "rewards=[{part: overlong_penalty, limit: 64, buffer: 8}]",
    ]
    chosen = [word for value in values for word in ("--set", value)]
    said = stratagem("train", "mine.yaml", "--task", TASK, "--out", "run", *options, *chosen)
    assert (said.code, said.err) == (0, "")
    flat = Recipe.load(tmp_path / "run" / "recipe.yaml").flat()
    assert flat["optimization.learning_rate"] == 1e-3 and flat["objective.gate.high"] == 0.3
    assert flat["optimization.microbatch_tokens"] is None and flat["advantage"] == "leave_one_out"
    assert flat["rewards.overlong_penalty.limit"] == 64 and flat["sampler.group_size"] == 2


def test_a_team_is_named_by_role(stratagem, options, model_folder, tmp_path):
    plain = [word for word in options if word not in ("--model", str(model_folder))]
    team = [word for role in ("role0", "role1") for word in ("--model", f"{role}={model_folder}")]
    said = stratagem("train", "grpo", "--task", TASK, "--out", "run", *plain, *team)
    assert (said.code, said.err) == (0, "")
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert asked["model"] == {"role0": str(model_folder), "role1": str(model_folder)}
    assert (tmp_path / "run" / "model" / "role1" / "model.safetensors").is_file()
    judged = stratagem("eval", "run", "--episodes", "2", "--precision", "float32")
    assert (judged.code, judged.err) == (0, "")


def test_a_control_task_needs_no_model(stratagem, tmp_path):
    said = stratagem("train", "ppo", "--task", "gym:CartPole-v1", "--steps", "1", "--episodes", "2", "--out", "run",
                     "--set", "sampler.turns=16")  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert (tmp_path / "run" / "report.html").is_file()


# ---- wrong input ----------------------------------------------------------------------------------------------------


WRONG = {
    "grop": "unknown recipe 'grop'; did you mean 'grpo'?",
    "nothing.yaml": "recipe file nothing.yaml: cannot be read (FileNotFoundError)",
    "--task key_dor": "unknown task 'key_dor'; did you mean 'key_door'?",
    "--task key_door:sise=6": "unknown option of task 'key_door' 'sise'; did you mean 'size'?",
    "--task key_door:size=3": "task 'key_door': size='3' is not allowed; it should be greater than or equal to 4",
    "--task rg:chain_sums": "chain_sum",
    "--set advantage=leave_on_out": "unknown advantage 'leave_on_out'; did you mean 'leave_one_out'?",
    "--set sampler.groupsize=4": "in 'sampler.groupsize': 'groupsize'; did you mean 'group_size'?",
    "--set objective.gate.low=-1": "clip.low = -1: input should be greater than",
    "--set sampler.temperature=hot": "rollouts.temperature = 'hot': input should be a valid number",
    "--set sampler.group_size=1": "group_size = 1: advantage group_standardized compares within a group and needs",
    "--set sampler.group_size": "--set sampler.group_size: write FIELD=VALUE",
    "--set sampler.group_size=[1": "--set sampler.group_size=[1: the value is not valid YAML",
    "--precision float16": "--precision float16: must be auto, float32 or bfloat16",
    "--engine vllm2": "unknown engine 'vllm2'",
    "--model ./nowhere": "model ./nowhere: no such folder",
    "--model ./empty": "model ./empty: cannot be loaded",
    "--model role0=./nowhere": "model ./nowhere: no such folder",
    "--model role0=": "--model role0=: give each role one model",
    "--wandb project": "Weights & Biases is not installed",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_line_that_says_what_is_allowed(stratagem, options, tmp_path, monkeypatch, wrong):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "empty").mkdir()
    recipe = ["grpo"] if wrong.startswith("--") else []
    task = [] if "--task" in wrong else ["--task", TASK]
    said = stratagem("train", *recipe, *task, "--out", "run", *options, *wrong.split())
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert WRONG[wrong] in said.err
    assert (said.code, said.out) == (2, "")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_recipe_and_a_task_are_needed(stratagem):
    for arguments in ((), ("grpo",), ("--task", "key_door")):
        said = stratagem("train", *arguments)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "needs a recipe and --task, or --resume" in said.err


def test_a_broken_recipe_file_is_named_with_its_line(stratagem, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nsampler: rollouts\nadvantage: [\n")
    said = stratagem("train", "mine.yaml", "--task", TASK)
    assert said.code == 2 and "mine.yaml, line 4: not valid YAML" in said.err


def test_a_broken_prompt_is_named_with_its_line(stratagem, options, tmp_path):
    lines = [json.dumps({"prompt": f"{number}?", "answer": "1"}) for number in range(9)]
    lines[4] = '{"prompt": "4?"'
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    said = stratagem("train", "grpo", "--task", "jsonl:prompts.jsonl", *options)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "prompts.jsonl, line 5: not JSON" in said.err


def test_a_model_without_a_tokenizer_is_named(stratagem, options, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "mute", ignore=shutil.ignore_patterns("*token*", "chat_template*"))
    said = stratagem("train", "grpo", "--task", TASK, *options, "--model", "./mute")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "model ./mute: no readable tokenizer" in said.err


def test_resuming_takes_no_other_option_than_steps(stratagem):
    for extra, shown in ((["grpo"], "the recipe"), (["--task", "key_door"], "--task"), (["--set", "a=1"], "--set"),
                         (["--seed", "0"], "--seed"), (["--evaluate-every", "3"], "--evaluate-every")):  # fmt: skip
        said = stratagem("train", *extra, "--resume", "run", "--steps", "3")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert said.err.rstrip().endswith(f"leave out {shown}")


@pytest.fixture
def finished(stratagem, options, tmp_path) -> Path:
    assert stratagem("train", "grpo", "--task", TASK, "--out", "run", *options).code == 0
    return tmp_path / "run"


@pytest.mark.parametrize(
    "damage", ["no run", "no checkpoint", "corrupt tensors", "corrupt state", "corrupt metrics", "other recipe"]
)
def test_what_cannot_be_resumed_is_one_line(stratagem, finished, damage):
    checkpoint = finished / "checkpoints" / "step-2"
    expected = {
        "no run": (finished / "run.json", None, "holds no run"),
        "no checkpoint": (checkpoint / "policy.safetensors", None, "policy.safetensors: missing"),
        "corrupt tensors": (checkpoint / "policy.safetensors", "garbage", "policy.safetensors: corrupt"),
        "corrupt state": (checkpoint / "state.json", "{", "state.json: missing or corrupt"),
        "corrupt metrics": (finished / "metrics.jsonl", "{\n{}\n", "metrics.jsonl, line 1: not a JSON object"),
        "other recipe": (finished / "recipe.yaml", "name: mine\n", "recipe.yaml: recipe: sampler is missing"),
    }
    file, content, error = expected[damage]
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    said = stratagem("train", "--resume", "run", "--steps", "3")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1 and error in said.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nowhere", "--task", "key_door"], "nowhere"),
        (["./nowhere", "--task", "key_door"], "model ./nowhere: no such folder"),
        (["empty"], "name a task with --task"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(stratagem, tmp_path, monkeypatch, arguments, error):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    said = stratagem("eval", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1 and error in said.err


# ---- small things ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4), ("0.5", 0.5), ("1e-3", 1e-3), ("5E-4", 5e-4), ("null", None), ("", None), ("true", True),
        ("leave_one_out", "leave_one_out"), ("[1, 2]", [1, 2]), ("[1e-3, x]", [1e-3, "x"]), (".inf", math.inf),
        ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_values_are_read_as_people_write_them(text: str, value: Any):
    assert parse_values([f"field.of.part={text}"]) == {"field.of.part": value}


@pytest.mark.parametrize("pair", ["field", "=3", ""])
def test_a_value_needs_a_field(pair):
    with pytest.raises(InputError, match="write FIELD=VALUE"):
        parse_values([pair])


def test_success_is_shown_with_its_interval_and_without_it_the_return():
    assert success_cell({"interval": [0.4, 0.54], "success": 0.47, "mean_return": 1.0}) == "0.47 \\[0.40, 0.54]"
    assert success_cell({"interval": [90.0, 110.0], "success": None, "mean_return": 100.0}) == "100.0 \\[90.0, 110.0]"
    assert success_cell({"interval": [math.nan, math.nan], "success": None, "mean_return": 2.5}) == "2.5"
    compared = {"interval": [0.6, 0.6], "success": None, "win_rate": 0.6, "mean_return": 0.5}
    assert success_cell(compared) == "0.60 \\[0.60, 0.60]"


def test_recipes_written_by_hand_are_plain_yaml(tmp_path):
    assert yaml.safe_load(recipes.grpo().to_yaml())["objective"]["gate"] == {
        "part": "clip",
        "low": 0.2,
        "high": 0.2,
        "dual": None,
    }


def test_an_episode_of_several_agents_is_drawn_when_it_is_asked_for(stratagem, tmp_path):
    task = ("--task", "pathfinding:size=5,agents=2,max_turns=4")
    values = ("--set", "sampler.prompts_per_step=2", "--set", "architecture.width=2")
    assert stratagem("train", "follower", *task, *values, "--steps", "1", "--episodes", "0", "--out", "run").code == 0
    said = stratagem("eval", "run", "--episodes", "2", "--animate", "moves.html")
    assert (said.code, said.err) == (0, "")
    assert "animation: moves.html" in said.out and "<svg" in Path("moves.html").read_text()
    refused = stratagem("eval", "run", "--task", "two_step", "--animate", "other.html")
    assert refused.code == 2 and refused.err.count("\n") == 1 and not Path("other.html").exists()
