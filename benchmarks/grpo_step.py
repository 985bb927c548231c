"""Seconds of one GRPO step, TRL's over Stratagem's, side by side in one process.

    pip install -r benchmarks/requirements-grpo_step.txt
    python benchmarks/grpo_step.py [--rounds 20] [--threads 1]

Both start from the same tiny model (Qwen3, random weights), roll out the same 8 prompts 8 times each, 64 tokens every
time, score them alike and take one AdamW step on all of it, without KL. They take turns, one step each. A ratio above 1
means that Stratagem is faster. Given are the median over rounds and, in brackets, the least and the greatest, of the
whole step and of its two halves: rolling out (generating and scoring) and learning.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Nothing here comes from a hub, and libraries are told so before they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch
import transformers
from scipy.stats import quantile_test
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from stratagem import recipes
from stratagem.language import HFEngine, LanguagePolicy, native_bfloat16
from stratagem.language.pretrain import TinyShape, new_policy, train_tokenizer
from stratagem.language.world import LanguageWorld
from stratagem.recipe import Recipe
from stratagem.tasks import registry
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

PROMPTS, GROUP, TOKENS = 8, 8, 64
WARM_UP, LEAST_ROUNDS = 3, 6
AIM = 1.8


@dataclass(frozen=True)
class Timing:
    """Seconds of one step: generating and scoring, and all the rest."""

    rollout: float
    learn: float

    @property
    def step(self) -> float:
        """Both together."""
        return self.rollout + self.learn


Round = tuple[Timing, Timing]
"""One step of Stratagem's and one of TRL's."""


def main() -> None:
    """Print a table for each type the processor computes in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds is {arguments.rounds}; a 95 % interval of a median needs at least {LEAST_ROUNDS}")
    names = ("float32", "bfloat16") if native_bfloat16("cpu") else ("float32",)
    print(
        f"one GRPO step, {PROMPTS} prompts x {GROUP} rollouts x {TOKENS} tokens, {arguments.rounds} rounds, "
        f"{arguments.threads} thread(s), torch {version('torch')}, transformers {version('transformers')}, "
        f"trl {version('trl')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        _silence()
        save_tiny_model(model)
        for name in names:
            # TRL's precision is a setting of its whole process.
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                rounds = process.submit(compare, model, name, arguments.rounds, arguments.threads).result()
            print("\n".join(_table(name, rounds)))


# ---- what both are given --------------------------------------------------------------------------------------------


def save_tiny_model(path: Path) -> None:
    """Write the tiny model with random weights, and its tokenizer.

    The tokenizer's end token is one that the model has no output for: so every answer has all its tokens, on either
    side, and neither pays for forbidding the end.
    """
    shape = TinyShape()
    tokenizer = train_tokenizer(_sums(), shape.vocabulary)
    policy = new_policy(tokenizer, shape, seed=0)
    tokenizer.chat_template = None
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    for config in (policy.model.config, policy.model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    policy.save(path)


def prompts(count: int) -> list[str]:
    """Sums in words, 15 to 33 tokens long."""
    task = _sums()
    return [task.environment("train", index).reset().text for index in range(count)]


def _sums() -> Task:
    task = registry.make("rg:chain_sum")
    assert isinstance(task, Task)
    return task


def reward(text: str) -> float:
    """Characters for each token spent. They differ within a group, so every step has something to learn from."""
    return len(text) / TOKENS


class Answering(Task):
    """Prompts in the order given, each answered once."""

    name = "answering"
    description = "one answer, rewarded by its length"
    max_new_tokens = TOKENS

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def environment(self, split: Split, index: int) -> Environment:
        return _Answer(self._texts[index])

    def solution(self, split: Split, index: int) -> Iterator[str]:
        raise NotImplementedError

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        raise NotImplementedError


class _Answer(Environment):
    def __init__(self, prompt: str) -> None:
        self._prompt = Observation(prompt, state_key(prompt))

    def reset(self) -> Observation:
        return self._prompt

    def step(self, action: str) -> Step:
        return Step(self._prompt, reward(action), done=True)


# ---- the two sides --------------------------------------------------------------------------------------------------


def compare(model: Path, precision: Any, rounds: int, threads: int) -> list[Round]:
    """Both sides' timings, by round, after a few rounds that do not count."""
    torch.set_num_threads(threads)
    _silence()
    texts = prompts(PROMPTS * (rounds + WARM_UP))
    theirs = trl(model, texts, precision)
    turns = _TakingTurns(stratagem(model, texts, precision), theirs)
    theirs.add_callback(turns)
    theirs.train()
    return turns.rounds[WARM_UP:]


def stratagem(model: Path, texts: list[str], precision: Any) -> Callable[[], Timing]:
    """A function that takes one step with Stratagem's own trainer, which writes metrics and samples as always."""
    policy = LanguagePolicy.from_path(model, dtype=precision)
    world = LanguageWorld(Answering(texts), policy, HFEngine(policy, dtype=precision), seed=0)
    run = RunDirectory.create(model.with_name(f"run-{precision}"))
    trainer = Trainer(_recipe(), world, run, Settings(steps=len(texts), evaluation_episodes=0))

    def step() -> Timing:
        began = time.perf_counter()
        metrics = trainer.step()
        seconds = time.perf_counter() - began
        _check(int(metrics["batch/tokens"]))
        rollout = metrics["timing/rollout"] + metrics["timing/credit"]
        return Timing(rollout, seconds - rollout)

    return step


def trl(model: Path, texts: list[str], precision: Any) -> _ClockedGRPO:
    """TRL's trainer with the same hyper-parameters, at the fastest of its settings that we found.

    Its default of recomputing activations in the backward pass is off; nothing is logged, saved or reported. Of its
    attention implementations each type gets the faster one. Slower were a static cache and continuous batching.
    """
    optimization = _recipe().optimization
    config = GRPOConfig(
        output_dir=str(model.with_name(f"trl-{precision}")),
        use_cpu=True,
        bf16=precision == "bfloat16",
        max_steps=len(texts) // PROMPTS,
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        shuffle_dataset=False,
        beta=0.0,
        loss_type="grpo",
        optim="adamw_torch_fused",
        learning_rate=optimization.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=optimization.max_grad_norm,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )
    trainer = _ClockedGRPO(
        model=AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager" if precision == "bfloat16" else "sdpa"
        ),
        reward_funcs=[lambda completions, **_: [reward(text) for text in completions]],
        args=config,
        # Stratagem puts a line end behind a prompt without a chat template.
        train_dataset=datasets.Dataset.from_dict({"prompt": [f"{text}\n" for text in texts]}),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _ClockedGRPO(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, which notes how long generating and scoring took."""

    rollout = 0.0

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        batch = super()._generate_and_score_completions(inputs)
        self.rollout = time.perf_counter() - began
        _check(int(batch["completion_mask"].sum()))
        return batch


class _TakingTurns(TrainerCallback):
    """After every step of TRL's one of ours; TRL's step is all that passes between two of ours."""

    def __init__(self, ours: Callable[[], Timing], theirs: _ClockedGRPO) -> None:
        self._ours, self._theirs = ours, theirs
        self.rounds: list[Round] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        seconds = time.perf_counter() - self._began
        theirs = Timing(self._theirs.rollout, seconds - self._theirs.rollout)
        self.rounds.append((self._ours(), theirs))
        self._began = time.perf_counter()


def _silence() -> None:
    """Keep transformers' progress bars and its advice on settings out of the table."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)


def _recipe() -> Recipe:
    return recipes.grpo(group_size=GROUP).with_values({"sampler.prompts_per_step": PROMPTS})


def _check(tokens: int) -> None:
    expected = PROMPTS * GROUP * TOKENS
    if tokens != expected:
        raise RuntimeError(f"a side learned from {tokens} tokens instead of {expected}: the comparison is void")


# ---- the result -----------------------------------------------------------------------------------------------------


def _table(name: str, rounds: list[Round]) -> list[str]:
    parts: dict[str, Callable[[Timing], float]] = {
        "step": lambda timing: timing.step,
        "rolling out": lambda timing: timing.rollout,
        "learning": lambda timing: timing.learn,
    }
    lines = ["", f"{name:<24}" + "".join(f"{part:>24}" for part in parts)]
    for side, label in enumerate(("Stratagem, seconds", "TRL, seconds")):
        cells = (_summary([take(pair[side]) for pair in rounds], 3) for take in parts.values())
        lines.append(f"{label:<24}" + "".join(f"{cell:>24}" for cell in cells))
    ratios = [[take(theirs) / take(ours) for ours, theirs in rounds] for take in parts.values()]
    lines.append(f"{'ratio':<24}" + "".join(f"{_summary(column, 2):>24}" for column in ratios))
    return [*lines, _verdict(ratios[0])]


def _summary(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _verdict(ratios: list[float]) -> str:
    """Whether the aim is met, by the 95 % interval of the median over rounds."""
    low, high = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    verdict = "met" if low >= AIM else "missed" if high < AIM else "undecided"
    return f"aim {AIM}: {verdict} (median of the step's ratio between {low:.2f} and {high:.2f}, 95 %)"


if __name__ == "__main__":
    main()
