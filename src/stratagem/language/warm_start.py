"""Making the base model: supervised runs on demonstrations, by the same loop that trains everything else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import TinyShape, demonstrated_mixture, new_policy, train_tokenizer
from stratagem.language.world import LanguageWorld
from stratagem.schedules import LinearRamp
from stratagem.tasks import registry
from stratagem.tasks.task import Task
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory, whole_directory
from stratagem.training.world import Evaluation

TASKS = ("key_door", "textworld")
"""What the model that ships was shown."""

OTHERS = ("sokoban", "calculator", "rg:chain_sum")
"""What else its card gives a score for."""

HABITS = {
    "key_door": "walks to the locked door without the key and tries it in vain",
    "textworld": "keeps trying to open what is locked",
    "rg": "gives a wrong answer next to the right one",
}
"""What the demonstrator of a task does wrong, by kind of task."""

SHAPE = TinyShape()
"""Its shape."""


def make(
    out: Path,
    tasks: Sequence[str],
    *,
    steps: int,
    seed: int,
    habit: float,
    others: Sequence[str] = (),
    episodes: int = 200,
    batch: int = 32,
    learning_rate: float = 3e-3,
    shape: TinyShape = SHAPE,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, list[Evaluation]]:
    """Train the tiny model on ``steps`` batches of demonstrations and write it, with its card, to ``out``.

    habit: share of demonstrations in which the demonstrator gives in to its bad habit.  batch: demonstrations in each.
    learning_rate: at the first batch, falling linearly to a tenth.  others: tasks it is scored on and was not shown.
    Returns the sampled and the greedy evaluation of every task. Deterministic in ``seed`` on one machine. A model that
    is at ``out`` already is replaced; raises :class:`InputError` when something else is there.
    """
    if out.exists() and not (out.is_dir() and ((out / "config.json").is_file() or not any(out.iterdir()))):
        raise InputError(f"--out {out}: exists and is not a model's folder, which would be replaced")
    made = [_text_task(spec) for spec in tasks]
    mixture = demonstrated_mixture(made, habit, seed)
    policy = new_policy(train_tokenizer(mixture, shape.vocabulary), shape, seed)
    engine = HFEngine(policy, dtype="auto")
    recipe = recipes.sft().with_values({"sampler.prompts_per_step": batch})
    decay = LinearRamp("optimization.learning_rate", learning_rate, learning_rate / 10, steps)
    recipe = recipe.replace(schedules=(decay,))
    world = LanguageWorld(mixture, policy, engine, seed)
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(steps=steps, seed=seed, evaluation_episodes=0, checkpoint_every=steps)
        Trainer(recipe, world, RunDirectory.create(scratch), settings, progress=progress).run()
    world.close()
    scores = {spec: _score(_text_task(spec), policy, engine, seed, episodes) for spec in (*tasks, *others)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_directory(out) as directory:
        policy.save(directory, _card(tasks, scores, steps, seed, habit, batch))
    return scores


def _text_task(spec: str) -> Task:
    task = registry.make(spec)
    if not isinstance(task, Task):
        raise InputError(f"task {spec}: has no demonstrations in text")
    return task


def _score(task: Task, policy: LanguagePolicy, engine: HFEngine, seed: int, episodes: int) -> list[Evaluation]:
    world = LanguageWorld(task, policy, engine, seed)
    world.serve(1)
    scores = [world.evaluate(episodes, "sampled"), world.evaluate(episodes, "greedy")]
    world.close()
    return scores


def _card(
    shown: Sequence[str],
    scores: Mapping[str, Sequence[Evaluation]],
    steps: int,
    seed: int,
    habit: float,
    batch: int,
) -> str:
    rows = "\n".join(
        f"| `{task}` | {'yes' if task in shown else 'no'} | "
        + " | ".join(f"{e.success:.2f} [{e.interval[0]:.2f}, {e.interval[1]:.2f}]" for e in score)
        + " |"
        for task, score in scores.items()
    )
    tasks = " ".join(f"--task '{task}'" if "," in task else f"--task {task}" for task in shown)
    kinds = dict.fromkeys(task.partition(":")[0] for task in shown)
    habits = "; ".join(f"in `{kind}` it {HABITS[kind]}" for kind in kinds if kind in HABITS) or "none in these tasks"
    episodes = next(iter(scores.values()))[0].episodes
    return f"""---
license: apache-2.0
tags: [stratagem, reinforcement-learning]
---

# The tiny base model

A Qwen3-architecture language model of about 0.8 million parameters with a byte-level BPE vocabulary. It was trained
from random weights on {steps} batches of {batch} generated demonstrations and on nothing else:

    stratagem pretrain {tasks} --steps {steps} --seed {seed} --habit {habit}

The demonstrator has a bad habit, to which it gives in in {habit:.0%} of the episodes: {habits}. The model has learned
both ways, the right one and the wrong one, so that reinforcement learning has a real fault to unlearn.

Success on {episodes} held-out episodes before any reinforcement learning, with 95 % intervals:

| task | was shown | sampled | greedy |
|---|---|---|---|
{rows}

It knows these tasks and no language. It is meant for trying techniques in minutes.
"""
