"""What memory depends on, read from a config: against the real model, and against what autograd keeps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from stratagem import run
from stratagem.errors import InputError
from stratagem.language import attention, footprint
from stratagem.language.attention import PackedSequences, run_trunk
from stratagem.language.policy import LanguagePolicy, LoRA
from stratagem.tasks import registry
from stratagem.training.memory_plan import Workload, layer_bytes

LENGTH, ROWS = 24, 4
Attention = Callable[[], AbstractContextManager[None]]


def shape_of(model: Any, folder: Path) -> Any:
    model.config.save_pretrained(folder)
    return footprint.model_shape(folder)


class Flash(torch.autograd.Function):
    """Keeps what a flash kernel keeps: queries, keys, values, output, and a scale of each row."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.zeros_like(query)
        ctx.save_for_backward(query, key, value, output, torch.zeros(query.shape[:2]))
        return output


def kept_per_layer(
    make_model: Any, tokenizer: PreTrainedTokenizerFast, kind: str, within: Attention, **options: Any
) -> float:
    """Bytes that one more layer makes autograd keep for a token, weights in another type left out."""
    totals = []
    for layers in (1, 2):
        model = make_model(kind, num_hidden_layers=layers)
        policy = LanguagePolicy(model, tokenizer, **options)
        own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        shapes = {tuple(p.shape) for p in policy.parameters()} | {tuple(p.shape[::-1]) for p in policy.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, own: Any = own, shapes: Any = shapes, kept: Any = kept) -> torch.Tensor:
            storage = tensor.untyped_storage().data_ptr()
            if storage not in own and not (tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes):
                kept[storage] = tensor
            return tensor

        layout = PackedSequences([LENGTH] * ROWS, "cpu")
        ids = torch.arange(LENGTH * ROWS) % 300
        with within(), policy._precision(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run_trunk(policy.model, ids, layout.positions, layout)
        totals.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
    return (totals[1] - totals[0]) / (LENGTH * ROWS)


@contextlib.contextmanager
def flash() -> Iterator[None]:
    """Attention as CUDA computes it in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "compute_type", lambda query: torch.bfloat16)
        patch.setattr(attention, "unpadded_kernel", lambda *case: lambda q, k, v, *_, **options: Flash.apply(q, k, v))
        yield


@pytest.mark.parametrize("cuda", [False, True], ids=["processor", "CUDA"])
@pytest.mark.parametrize("lora", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_layer_keeps_what_is_planned(
    make_model: Any, tokenizer: Any, tmp_path: Path, kind: str, dtype: str, lora: int | None, cuda: bool
) -> None:
    shape = shape_of(make_model(kind), tmp_path)
    work = Workload(LENGTH, 1, ROWS, bfloat16=dtype == "bfloat16", lora=lora, cuda=cuda)
    planned, within = layer_bytes(shape, work), cast(Attention, nullcontext)
    if cuda and dtype == "bfloat16":
        within = flash
    elif cuda:
        planned -= 4 * shape.heads  # only a fused kernel keeps a scale of each row
        within = partial(sdpa_kernel, SDPBackend.MATH)
    found = kept_per_layer(
        make_model, tokenizer, kind, within, dtype=dtype, lora=None if lora is None else LoRA(rank=lora)
    )
    assert planned == pytest.approx(found, rel=0.01)


def test_checkpointing_keeps_the_input_of_a_layer(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    shape = shape_of(make_model(), tmp_path)
    found = kept_per_layer(make_model, tokenizer, "qwen3", nullcontext, dtype="float32", gradient_checkpointing=True)
    assert found == 4 * shape.width


def test_a_network_without_a_gate_is_bounded_from_above(tokenizer: Any, tmp_path: Path) -> None:
    def gpt2(kind: str, num_hidden_layers: int) -> GPT2LMHeadModel:
        return GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=num_hidden_layers, n_head=4))

    shape = shape_of(gpt2("", 2), tmp_path)
    assert not shape.gated and shape.intermediate == 128 and shape.kv_heads == 4
    found = kept_per_layer(gpt2, tokenizer, "gpt2", nullcontext, dtype="float32")
    assert found <= layer_bytes(shape, Workload(LENGTH, 1, ROWS)) <= 1.3 * found


@pytest.mark.parametrize("kind", ["qwen3", "llama", "tied"])
def test_the_shape_is_that_of_the_model_with_its_adapters(
    make_model: Any, tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    shape = shape_of(make_model(kind), tmp_path)
    assert shape.parameters == sum(p.numel() for p in make_model(kind).parameters())
    policy = LanguagePolicy(make_model(kind), tokenizer)
    assert shape.hidden == sum(matrix.numel() for matrix in policy.hidden_matrices())
    policy = LanguagePolicy(make_model(kind), tokenizer, lora=LoRA(rank=3))
    assert 3 * shape.ends == sum(p.numel() for p in policy.policy_parameters())
    assert shape.adapted == 7 and shape.head_norms == (kind != "llama")


def test_a_config_alone_is_enough_and_anything_else_is_refused(tmp_path: Path) -> None:
    large = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "vocab_size": 152064}
    large |= {"intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(large))
    assert footprint.model_shape(tmp_path).parameters == 7_615_616_512
    with pytest.raises(InputError, match="no such folder"):
        footprint.model_shape(tmp_path / "none")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="no readable config"):
        footprint.model_shape(tmp_path)
    experts = {"model_type": "qwen3_moe", "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 8, "num_experts": 4}
    (tmp_path / "config.json").write_text(json.dumps(experts))
    with pytest.raises(InputError, match="mixture of experts"):
        footprint.model_shape(tmp_path)


def test_an_episode_uses_all_its_turns_but_no_more_than_the_context(tokenizer: Any) -> None:
    task = registry.make("key_door:max_turns=8")
    length = footprint.episode_length(task, 10_000, tokenizer)
    assert length.counted and length.turns == 8 and length.answer == 8
    assert length.tokens == length.prompt + 8 * 8 + 7 * length.observation
    assert footprint.episode_length(task, 100, tokenizer).tokens == 100
    guessed = footprint.episode_length(task, 10_000, None)
    assert not guessed.counted and guessed.prompt > 0


@pytest.mark.parametrize(
    ("recipe", "values", "expected"),
    [
        ("grpo", {}, {"references": 0, "copies": 0, "snapshots": 0, "states": (2, 2)}),
        ("grpo", {"optimization": "muon"}, {"states": (1, 2)}),
        ("grpo", {"objective.regularizer": "kl"}, {"references": 1}),
        ("grpo", {"objective.regularizer": "kl", "reference_from": 5}, {"references": 1, "copies": 1}),
        ("grpo", {"proximal": "moving_average"}, {"copies": 1}),
        ("grpo", {"proximal": "sampling_version", "proximal.keep": 3}, {"copies": 1, "snapshots": 3}),
        ("grpo", {"sampler.group_size": 4, "sampler.prompts_per_step": 3}, {"episodes": 12}),
        ("grpo", {"optimization.minibatches": 4, "sampler.top_p": 0.9}, {"minibatches": 4, "filtered": True}),
    ],
)
def test_a_recipe_says_which_copies_it_needs(
    make_model: Any, tmp_path: Path, recipe: str, values: dict[str, Any], expected: dict[str, Any]
) -> None:
    length = footprint.EpisodeLength(prompt=5, observation=0, turns=1, answer=7, context=50, counted=True)
    shape = shape_of(make_model(), tmp_path)
    work = footprint.workload(run.find_recipe(recipe).with_values(values), shape, length)
    assert {name: getattr(work, name) for name in expected} == expected
    assert work.sequence == 12 and work.prompt == 5
