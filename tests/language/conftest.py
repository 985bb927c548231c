"""A small tokenizer and tiny random models for the language tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "hello world, go north and take the key",
    "open the door with the key",
    "you are in a dark room",
    "assistant user",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(CHATML)


@pytest.fixture(scope="session")
def make_tokenizer_with() -> Callable[[str | None], PreTrainedTokenizerFast]:
    return make_tokenizer


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return tiny_model


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)


def tiny_model(kind: str = "qwen3", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Random weights, spread wide enough that sampled distributions are far from uniform."""
    shape: dict[str, Any] = dict(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    match kind:
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**(shape | dict(head_dim=16) | changes)))
        case "tied":
            return Qwen3ForCausalLM(Qwen3Config(**(shape | dict(head_dim=8, tie_word_embeddings=True) | changes)))
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**(shape | changes)))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**(shape | changes)))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.endswith("bias"):
                        parameter.normal_(std=0.5)
            return model
        case "mistral":
            return MistralForCausalLM(MistralConfig(**(shape | dict(sliding_window=6) | changes)))
    raise ValueError(kind)
