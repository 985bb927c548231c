"""The tiny base model: a byte-pair tokenizer and a small Qwen3 trained on demonstrations with a bad habit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from stratagem.errors import InputError
from stratagem.language.policy import LanguagePolicy
from stratagem.seeding import derive
from stratagem.tasks.mixture import Mixture, owner
from stratagem.tasks.task import Task

ROLES = ("system", "user", "assistant")
END = "<|end|>"

# One token opens each message and one ends the assistant's: three tokens of format in a turn.
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}" + END + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class TinyShape:
    """Size of the tiny model; the defaults give about 0.9 million parameters."""

    vocabulary: int = 512
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 384
    context: int = 1024


def tiny_model_path() -> Path:
    """Folder of the tiny model that ships with the package."""
    path = Path(str(files("stratagem.language") / "tiny"))
    if not (path / "model.safetensors").is_file():
        raise InputError("the tiny base model is not in this installation; make it with: stratagem pretrain")
    return path


def train_tokenizer(task: Task, vocabulary: int, episodes: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding of what is said in ``episodes`` demonstrations of the task."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [*(f"<|{role}|>" for role in ROLES), END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_texts(task, episodes), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=END, additional_special_tokens=special
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def new_policy(tokenizer: PreTrainedTokenizerFast, shape: TinyShape, seed: int, **options: Any) -> LanguagePolicy:
    """An untrained policy of this shape; ``options`` are those of :class:`LanguagePolicy`."""
    torch.manual_seed(derive(seed, "weights"))
    end = tokenizer.eos_token_id
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.hidden // shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        # No padding token: an embedding gives its padding row no gradient, and every turn ends with this one.
        pad_token_id=None,
    )
    return LanguagePolicy(Qwen3ForCausalLM(config), tokenizer, **options)


def demonstrated_mixture(tasks: Sequence[Task], habit: float, seed: int) -> Mixture:
    """The tasks a base model is warm-started on. Raises :class:`InputError` for a habit outside [0, 1]."""
    if not 0 <= habit <= 1:
        raise InputError(f"habit = {habit}: must lie in [0, 1]")
    return Mixture(tasks, habit, derive(seed, "habit"))


def _texts(task: Task, episodes: int) -> list[str]:
    texts: list[str] = []
    for index in range(episodes):
        environment = task.environment("train", index)
        texts += [owner(task, index).system or "", environment.reset().text]
        for action in task.solution("train", index):
            step = environment.step(action)
            texts += [action, step.observation.text]
            if step.done:
                break
        environment.close()
    return texts
