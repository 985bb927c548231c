"""What the memory of a training run depends on: the shape of its model, from the config alone, and its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.policy import EXPERT_COUNTS
from stratagem.language.rollout import first_observation, reading
from stratagem.objectives.proximal import IterationStart, MovingAverage, SamplingVersion
from stratagem.optimizers import Muon
from stratagem.parts import Sampler, past_policies
from stratagem.recipe import Recipe
from stratagem.sampling import Branching, Resampled, Rollouts
from stratagem.tasks.task import Task
from stratagem.training.companions import REFERENCE
from stratagem.training.memory_plan import ModelShape, Workload

_SEEN = 4
"""Start states whose first observations are read to guess how long observations are."""

_LETTERS_PER_TOKEN = 2
"""Where there is no tokenizer: fewer letters than a token of English has, so that lengths come out too long."""

_OF_DISTRIBUTION = frozenset({"entropy", "mean_logp", "log_probs"})
_OF_HIDDEN = ("hidden", "before", "after")


def model_shape(path: str | Path) -> ModelShape:
    """The shape of a causal language model in a folder or of a hub name; no weights are read.

    Raises :class:`InputError` for one without readable config, and for mixtures of experts, whose activations depend on
    their routing.
    """
    where = str(Path(path).expanduser()) if str(path).startswith("~") else str(path)
    if where.startswith((".", "/")) and not Path(where).is_dir():
        raise InputError(f"model {where}: no such folder")
    try:
        config: Any = AutoConfig.from_pretrained(where)
    except Exception as error:
        raise _unreadable(where, error) from error
    found = [name for name in EXPERT_COUNTS if getattr(config, name, None)]
    if found:
        raise InputError(
            f"model {where}: is a mixture of experts ({found[0]} = {getattr(config, found[0])}), whose activations "
            "depend on its routing; they cannot be planned"
        )
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise _unreadable(where, error) from error
    return _shape_of(model)


def _unreadable(where: str, error: Exception) -> InputError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"model {where}: no readable config of a causal language model ({reason})")


def _shape_of(model: Any) -> ModelShape:
    config, head = model.config, model.get_output_embeddings()
    modules = dict(model.named_modules())
    inner = [m for m in modules.values() if _is_linear(m) and m is not head]
    heads, width, layers = config.num_attention_heads, config.hidden_size, config.num_hidden_layers
    names = {name.rsplit(".", 1)[-1] for name in modules}
    weights = sum(m.weight.numel() for m in inner)
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=weights + head.weight.numel(),
        hidden=weights,
        largest=max(parameter.numel() for parameter in model.parameters()),
        ends=sum(sum(m.weight.shape) for m in inner),
        adapted=math.ceil(len(inner) / layers),
        layers=layers,
        width=width,
        intermediate=getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or width // heads,
        vocabulary=head.weight.shape[0],
        gated=not names.isdisjoint({"gate_proj", "gate_up_proj"}),
        head_norms="q_norm" in names,
        context=int(config.max_position_embeddings),
    )


def _is_linear(module: nn.Module) -> bool:
    """GPT-2 has linear layers of another class, of the same name for every model that has them."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


@dataclass(frozen=True)
class EpisodeLength:
    """Tokens of an episode that uses all its turns and all tokens of each, at most the model's context.

    prompt: read before the first turn.  observation: read before each further one.  turns, answer: the task's limits.
    counted: by the model's tokenizer; otherwise estimated from letters.
    """

    prompt: int
    observation: int
    turns: int
    answer: int
    context: int
    counted: bool

    @property
    def tokens(self) -> int:
        """In all."""
        said = self.turns * self.answer + (self.turns - 1) * self.observation
        return min(self.context, self.prompt + said)


def episode_length(task: Task, context: int, tokenizer: PreTrainedTokenizerBase | None) -> EpisodeLength:
    """How long an episode may get. Later observations are taken to be as long as the longest of some first ones."""
    states = task.start_states("train")
    seen = [first_observation(task, "train", index) for index in range(min(_SEEN, states or _SEEN))]
    if tokenizer is None:
        system = task.system or ""
        texts = ["".join(message["content"] for message in one.opening) or system + one.text for one in seen]
        prompt = max(math.ceil(len(text) / _LETTERS_PER_TOKEN) for text in texts)
        later = max(math.ceil(len(one.text) / _LETTERS_PER_TOKEN) for one in seen)
    else:
        chat = ChatFormat(tokenizer)
        prompt = max(len(reading(task, one, [], chat)) for one in seen)
        later = max(len(chat.followup(one.text, ended=True)) for one in seen)
    return EpisodeLength(prompt, later, task.max_turns, task.max_new_tokens, context, tokenizer is not None)


def tokenizer_of(path: str | Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model; None where its folder has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(Path(path).expanduser()))
        has_words = bool(tokenizer("a b", add_special_tokens=False)["input_ids"])
    except Exception:
        return None
    return cast(PreTrainedTokenizerBase, tokenizer) if has_words else None


def workload(recipe: Recipe, shape: ModelShape, length: EpisodeLength, **settings: Any) -> Workload:
    """What a run of this recipe asks of memory. settings: fields of :class:`Workload` that are no recipe's."""
    optimization, sampler, needs = recipe.optimization, recipe.sampler, recipe.needs()
    moved = recipe.reference_from > 0 or any(getattr(s, "knob", None) == "reference_from" for s in recipe.schedules)
    reference = bool(REFERENCE.keys() & needs)
    proximal = recipe.proximal
    kept = isinstance(proximal, SamplingVersion) and proximal.route == "snapshots"
    output = recipe.output_needs()
    episodes, together = _episodes(sampler)
    return Workload(
        sequence=length.tokens,
        prompt=min(length.prompt, length.tokens),
        episodes=episodes,
        minibatches=optimization.minibatches,
        together=together if optimization.shuffle == "groups" else 1,
        microbatch_tokens=optimization.microbatch_tokens,
        states=(1, 2) if isinstance(optimization, Muon) else (2, 2),
        references=int(reference),
        copies=int(reference and moved)
        + int(kept or isinstance(proximal, MovingAverage | IterationStart))
        + int("previous_logp" in needs)
        + past_policies(recipe),
        snapshots=proximal.keep if isinstance(proximal, SamplingVersion) and kept else 0,
        read_figures=not output.isdisjoint(_OF_DISTRIBUTION),
        wide=shape.width * sum(name in output for name in _OF_HIDDEN) + 2 * shape.vocabulary * ("log_probs" in output),
        wide_batch=2 * shape.vocabulary * ("ref_log_probs" in needs),
        filtered=isinstance(sampler, Rollouts) and (sampler.top_k > 0 or sampler.top_p < 1),
        kept_sessions=isinstance(sampler, Branching),
        **settings,
    )


def _episodes(sampler: Sampler) -> tuple[int, int]:
    """Episodes of a batch, and of a group, at most. For trees, as if every start forked ``branches`` in every round."""
    groups = int(getattr(sampler, "prompts_per_step", 1))
    if not isinstance(sampler, Rollouts):
        size = int(getattr(sampler, "group_size", 1))
        return groups * size, size
    size = sampler.largest_group + sampler.demonstrations
    if isinstance(sampler, Resampled):
        size += sampler.resamples
    if isinstance(sampler, Branching):
        size += sampler.branches * sampler.depth
    return groups * size, size
