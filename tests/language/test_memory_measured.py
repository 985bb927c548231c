"""The memory plan against the memory that a few steps of training took, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TRAINING = '''
"""Plan a run, do it, and print what it was said to need and what it took beyond the imports."""

import json
import sys
from zlib import crc32

import torch
from transformers import AutoTokenizer

from stratagem import run
from stratagem.language import footprint
from stratagem.language.pretrain import tiny_model_path
from stratagem.tasks.task import Environment, Observation, Step, Task
from stratagem.training.memory import peak_memory
from stratagem.training.memory_plan import memory_plan


class Words(Environment):
    def reset(self):
        return Observation("Say something.", 0)

    def step(self, action):
        return Step(Observation("", 1), reward=crc32(action.encode()) % 97 / 97, done=True)


class Babble(Task):
    """Pays at random for what is said, so that every batch has a gradient."""

    name, description = "babble", "anything"

    def environment(self, split, index):
        return Words()

    def solution(self, split, index):
        yield "a"

    def corrupted(self, split, index):
        yield "b"


asked = json.loads(sys.argv[1])
folder = asked["folder"]
tokenizer = AutoTokenizer.from_pretrained(tiny_model_path())
path = str(tiny_model_path())
if asked["model"]:
    path = folder + "/model"
    tokenizer.save_pretrained(path)
task = Babble()
task.max_new_tokens = asked["answer"]
shape = footprint.model_shape(path)
recipe = run.find_recipe("grpo").with_values(asked["values"])
options = asked["options"]
fixed = dict(steps=2, evaluation_episodes=4, concurrency=16, device="cpu")
work = footprint.workload(
    recipe,
    shape,
    footprint.episode_length(task, shape.context, tokenizer),
    evaluation=4,
    concurrency=16,
    bfloat16=options["precision"] == "bfloat16",
    lora=options.get("lora"),
    checkpointing=options.get("gradient_checkpointing", False),
)
cpu = torch.device("cpu")
before = peak_memory(cpu)
plan = memory_plan(shape, work)
result = run.train(recipe, task, model=path, out=folder + "/run", **fixed, **options)
print(json.dumps({
    "parameters": shape.parameters,
    "updates": result.metrics["optimizer_steps"],
    "sampled": result.metrics["completions/mean_length"],
    "planned": plan.total / 2**20,
    "parts": {part.name: round(part.size / 2**20) for part in plan.parts},
    "phase": plan.peak_phase,
    "taken": result.metrics["memory/peak"] - before,
}))
'''

MODEL = """
import json, sys, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(0)
Qwen3ForCausalLM(Qwen3Config(**json.loads(sys.argv[1]))).save_pretrained(sys.argv[2])
"""

SMALL = dict(
    vocab_size=4096,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)
"""27 million weights."""


def measured(folder: Path, model: dict[str, Any] | None, answer: int, values: dict[str, Any], **options: Any) -> Any:
    if model is not None:
        subprocess.run([sys.executable, "-c", MODEL, json.dumps(model), str(folder / "model")], check=True)
    asked = {"folder": str(folder), "model": model, "answer": answer, "values": values, "options": options}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, json.dumps(asked)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("model", "answer", "values", "options"),
    [
        (None, 256, {"sampler.prompts_per_step": 4}, {"precision": "float32"}),
        (SMALL, 48, {"sampler.prompts_per_step": 2, "sampler.group_size": 4}, {"precision": "float32"}),
        (SMALL, 48, {"sampler.prompts_per_step": 2, "sampler.group_size": 4}, {"precision": "float32", "lora": 8}),
    ],
    ids=["tiny", "27M", "27M with adapters"],
)
def test_training_takes_what_was_planned(
    tmp_path: Path, model: dict[str, Any] | None, answer: int, values: dict[str, Any], options: dict[str, Any]
) -> None:
    found = measured(tmp_path, model, answer, values, **options)
    assert found["updates"] == 2
    assert 0.7 * found["planned"] <= found["taken"] <= 1.25 * found["planned"], found
