"""Runs of two shards: the numbers and files of one process, begun in one way and ended in the other."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem import catalogue
from stratagem.cluster.process_group import Place
from stratagem.cluster.shard import Job, run_shard
from stratagem.errors import InputError
from stratagem.language import HFEngine
from stratagem.language.policy import LanguagePolicy, LoRA
from stratagem.language.world import LanguageWorld
from stratagem.objectives import SamplingVersion
from stratagem.recipe import Recipe
from stratagem.shards import whole
from stratagem.training.loop import Interrupted, Settings, Trainer
from stratagem.training.run_directory import Checkpoint, RunDirectory

MEASURED = ("timing/", "memory/")

Run = Callable[..., Any]


@pytest.fixture
def make_job(make_policy: Any, chatter: Any, tmp_path: Path) -> Callable[..., Job]:
    """``make_job(recipe, name="sharded", world={}, options={}, resume=False, started=..., **settings)``."""

    def make(recipe: Recipe, name: str = "sharded", **changes: Any) -> Job:
        path = tmp_path / name
        given = {key: changes.pop(key) for key in ("resume", "started", "task") if key in changes}
        options = changes.pop("options", {})
        task = given.pop("task", None) or chatter()

        def world(policy: Any) -> Any:
            return LanguageWorld(task, policy, HFEngine(policy), 0)

        if not path.exists():
            RunDirectory.create(path)
        settings = Settings(**{"steps": 3, "evaluation_episodes": 0, **changes})
        return Job(recipe, settings, path, lambda: make_policy(**options), world, **given)

    return make


def alone(job: Job) -> dict[str, float]:
    """The same run in this process."""
    policy = job.policy()
    world = job.world(policy)
    trainer = Trainer(job.recipe, world, RunDirectory(job.path), job.settings)
    try:
        if job.resume:
            trainer.resume(RunDirectory(job.path).load())
        job.started(trainer)
        return trainer.run()
    finally:
        world.close()


def sharded(in_shards: Run, job: Job, **options: Any) -> list[Any]:
    """What each ends with: metrics, whole weights and what parts remember; "interrupted" where it was stopped."""

    def check(place: Place) -> Any:
        ends: list[Any] = []

        def started(trainer: Any) -> None:
            run = trainer.run

            def observed() -> Any:
                metrics = run()
                # Weights are brought together while the group is there.
                ends.append({name: whole(tensor) for name, tensor in trainer.policy.state_dict().items()})
                ends.append(trainer.recipe.state_dict())
                return metrics

            trainer.run = observed
            job.started(trainer)

        try:
            return run_shard(place, dataclasses.replace(job, started=started)), *ends
        except Interrupted:
            return "interrupted"

    return in_shards(check, **options)


def rows(job: Job, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    logged = RunDirectory(job.path).rows(name)
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in logged]


def assert_same_rows(one: Job, other: Job, name: str = "metrics.jsonl", tolerance: float = 1e-5) -> None:
    first, second = rows(one, name), rows(other, name)
    assert len(first) == len(second)
    for mine, theirs in zip(first, second, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            if isinstance(value, float) and not math.isnan(value):
                assert theirs[key] == pytest.approx(value, rel=tolerance, abs=tolerance), (mine["step"], key)
            elif not isinstance(value, float):
                assert theirs[key] == value, (mine["step"], key)


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def assert_same_files(one: Checkpoint, other: Checkpoint, tolerance: float) -> None:
    assert one.state.keys() == other.state.keys()
    assert one.tensors.keys() == other.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[group].keys(), group
        for name, tensor in tensors.items():
            found = other.tensors[group][name]
            assert tensor.shape == found.shape and tensor.dtype == found.dtype, f"{group}: {name}"
            where = f"{group}: {name}"
            torch.testing.assert_close(found, tensor, rtol=tolerance, atol=tolerance, equal_nan=True, msg=where)


def assert_agree(in_shards: Run, one: Job, two: Job, tolerance: float = 1e-5) -> None:
    """The run in this process and the one of two shards have the same rows, and the shards the same state."""
    alone(one)
    (metrics, weights, memory), (others, same_weights, same_memory) = sharded(in_shards, two)
    assert_same_rows(one, two, tolerance=tolerance)
    assert rows(one, "samples.jsonl") == rows(two, "samples.jsonl")
    assert_same_bits(weights, same_weights)
    assert_same_bits(memory, same_memory)
    for name, value in metrics.items():
        if not name.startswith(MEASURED):
            assert others[name] == value or math.isnan(value), name


STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grpo": ("grpo", {}, {}),
    "minibatches, epochs and a critic": ("ppo", {}, {}),
    "a moving average of the weights": ("missing_old_logits", {}, {}),
    "snapshots of the weights": ("missing_old_logits", {"proximal": SamplingVersion("snapshots", 3)}, {}),
    "a replay buffer and the policy before": ("remix", {}, {}),
    "a sampler and parts that remember": ("ares_aepo", {}, {}),
    "adapters and micro-batches": ("grpo", {"optimization__microbatch_tokens": 300}, {"options": {"lora": LoRA(4)}}),
    "whole matrices": ("muonpp", {}, {}),
    "gradients of single rewards": ("gradient_reward_weighting", {}, {}),
}


LONGER = {"whole matrices", "snapshots of the weights", "gradients of single rewards", "adapters and micro-batches"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in LONGER else c for c in STEPS])
def test_three_steps_of_two_shards_are_those_of_one_process(in_shards, make_job, small, case):
    name, values, changes = STEPS[case]
    recipe = small(name, **{key: value for key, value in values.items() if key != "proximal"})
    if "proximal" in values:
        recipe = recipe.replace(proximal=values["proximal"])
    one, two = make_job(recipe, "alone", **changes), make_job(recipe, **changes)
    assert_agree(in_shards, one, two)
    first, second = RunDirectory(one.path).load(), RunDirectory(two.path).load()
    assert_same_files(first, second, 1e-3)


VIEWS = {"alp": "perturbed", "bradley_terry_model": "answer_head", "pairwise_model": "answer_head"}
"""Recipes with views that a divided policy does not have."""


def _token_level() -> list[str]:
    return [card.name for card in catalogue.cards() if _makes_recipe(card)]


def _makes_recipe(card: catalogue.Card) -> bool:
    try:
        return isinstance(card.recipe(), Recipe)
    except InputError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("name", _token_level())
def test_every_recipe_of_the_catalogue_runs_in_shards_as_it_does_alone(in_shards, make_job, chatter, small, name):
    try:
        recipe = small(name)
    except InputError:  # Its groups are of another size.
        recipe = catalogue.card(name).recipe()
    changes = {"task": chatter(reward_names=("reward", "style")), "steps": 2}
    one, two = make_job(recipe, "alone", **changes), make_job(recipe, **changes)
    if name in VIEWS:
        assert_ends_with(in_shards, two, f"InputError: ShardedPolicy has no view {VIEWS[name]}")
        return
    try:
        alone(one)
    except ValueError as error:  # What this task or policy has not; the shards say so as well.
        assert_ends_with(in_shards, two, f"{type(error).__name__}: {error}".replace("LanguageP", "ShardedP"))
        return
    # Two steps of Adam enlarge what rounding leaves of gradients that are 0.
    assert_agree(in_shards, make_job(recipe, "once more", **changes), two, tolerance=1e-4)


def assert_ends_with(in_shards: Run, job: Job, message: str) -> None:
    for said in ended(in_shards, job):
        assert said.startswith(message)


# ---- begun in one way, ended in the other ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ppo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("missing_old_logits", "muonpp"))]
)
@pytest.mark.parametrize("begins", ["in shards", "alone"])
def test_a_run_begun_in_one_way_ends_in_the_other(in_shards, make_job, small, name, begins):
    recipe = small(name)
    whole_run = make_job(recipe, "whole", steps=4)
    alone(whole_run)
    begun = make_job(recipe, "changed", steps=2)
    goes_on = make_job(recipe, "changed", steps=4, resume=True)
    if begins == "in shards":
        sharded(in_shards, begun)
        alone(goes_on)
    else:
        alone(begun)
        sharded(in_shards, goes_on)
    assert_same_rows(whole_run, goes_on)
    assert_same_files(RunDirectory(whole_run.path).load(), RunDirectory(goes_on.path).load(), 1e-3)


@pytest.mark.parametrize("asked", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_all_shards_stop_after_the_step_in_which_one_was_asked_and_go_on_exactly(in_shards, make_job, small, asked):
    def stopping(trainer: Any) -> None:
        step, left = trainer._optimizer.step, [6]

        def counted(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and trainer._group.rank == asked:
                trainer.stop()
            return step(*arguments)

        trainer._optimizer.step = counted

    recipe = small("ppo")
    unbroken = make_job(recipe, "unbroken", steps=2)
    sharded(in_shards, unbroken)
    assert sharded(in_shards, make_job(recipe, steps=2, started=stopping)) == ["interrupted"] * 2
    goes_on = make_job(recipe, steps=2, resume=True)
    # ppo takes four steps a batch.
    assert [path.name for path in RunDirectory(goes_on.path).checkpoints()] == ["step-1-2"]
    sharded(in_shards, goes_on)
    assert rows(unbroken) == rows(goes_on)


def test_a_run_that_is_to_go_on_from_nothing_begins(in_shards, make_job, small):
    job = make_job(small("grpo"), resume=True, steps=1)
    sharded(in_shards, job)
    assert len(rows(job)) == 1


def test_the_best_policy_is_evaluated_and_saved_for_others_to_read(in_shards, make_job, small):
    changes = {"evaluation_episodes": 6, "evaluate_every": 1, "steps": 2}
    one, two = make_job(small("grpo"), "alone", **changes), make_job(small("grpo"), **changes)
    alone(one)
    sharded(in_shards, two)
    assert_same_rows(one, two, "evaluations.jsonl")
    mine, theirs = (LanguagePolicy.from_path(job.path / "model").state_dict() for job in (one, two))
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in one.path.rglob("*")) == sorted(path.name for path in two.path.rglob("*"))


# ---- what breaks ----------------------------------------------------------------------------------------------------


def ended(in_shards: Run, job: Job, *, timeout: float = 60.0) -> list[str]:
    """The error every shard ends with, and within the timeout."""

    def check(place: Place) -> str:
        clock = time.monotonic()
        try:
            run_shard(place, job)
        except Exception as error:
            assert time.monotonic() - clock < timeout
            return f"{type(error).__name__}: {error}"
        return "nothing"

    return in_shards(check, timeout=timeout)


def test_an_error_in_the_world_ends_all_shards_with_it(in_shards, make_job, small):
    class Unplugged(LanguageWorld):
        def collect(self, sampler: Any, step: int) -> Any:
            if step == 1:
                raise InputError("the engine was unplugged")
            return super().collect(sampler, step)

    job = make_job(small("grpo"))
    inner = job.world

    def world(policy: Any) -> Any:
        made = inner(policy)
        made.__class__ = Unplugged
        return made

    said = ended(in_shards, dataclasses.replace(job, world=world))
    assert said == ["InputError: the engine was unplugged"] * 2
    assert len(rows(job)) == 1


def test_a_world_that_cannot_be_made_ends_all_shards(in_shards, make_job, small):
    def world(policy: Any) -> Any:
        raise InputError("no such task")

    said = ended(in_shards, dataclasses.replace(make_job(small("grpo")), world=world))
    assert said == ["InputError: no such task"] * 2


def test_a_disk_that_is_full_ends_all_shards_and_names_the_checkpoint(in_shards, make_job, small, monkeypatch):
    def full(self: Any, name: str, *others: Any) -> Any:
        if name == "step-2":
            raise OSError(28, "No space left on device")
        return save(self, name, *others)

    save = RunDirectory.save
    monkeypatch.setattr(RunDirectory, "save", full)
    job = make_job(small("grpo"), checkpoint_every=1)
    for said in ended(in_shards, job):
        assert said.startswith("BrokenRunError: checkpoint step-2 could not be written (No space left on device)")
        assert said.endswith(str(job.path / "checkpoints" / "step-1"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_shard_that_is_killed_ends_the_other(in_shards, make_job, small, rank):
    def killed(trainer: Any) -> None:
        step = trainer._optimizer.step

        def last(*arguments: Any) -> Any:
            if trainer._group.rank == rank:
                os._exit(9)
            return step(*arguments)

        trainer._optimizer.step = last

    said = ended(in_shards, make_job(small("grpo"), started=killed), timeout=20.0)
    assert said[rank] is None
    assert said[1 - rank].startswith(f"ShardsLost: shard {1 - rank} of 2 lost the others")


def test_an_error_of_another_shard_alone_ends_shard_0(in_shards, make_job, small):
    def breaking(trainer: Any) -> None:
        if trainer._group.rank == 1:

            def step(*arguments: Any) -> Any:
                raise ValueError("out of memory")

            trainer._optimizer.step = step

    first, second = ended(in_shards, make_job(small("grpo"), started=breaking), timeout=20.0)
    assert first.startswith("ShardsLost: shard 0 of 2 lost the others")
    assert second == "ValueError: out of memory"


# ---- processes that were not forked ---------------------------------------------------------------------------------

APART = """
import sys, torch
from pathlib import Path
from stratagem import catalogue
from stratagem.cluster.process_group import Place
from stratagem.cluster.shard import Job, run_shard
from stratagem.language import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.shards import whole
from stratagem.tasks import registry
from stratagem.training.loop import Settings

rank, port, path, name = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
values = {"sampler.prompts_per_step": 3, "sampler.group_size": 4, "optimization.microbatch_tokens": 1000}
recipe = catalogue.card(name).recipe().with_values(values)

def started(trainer):
    run = trainer.run
    def observed():
        metrics = run()
        state = {**trainer.policy.state_dict(), **trainer.recipe.state_dict()}
        print(sum(float(whole(tensor).double().abs().sum()) for tensor in state.values()), metrics["loss"])
        return metrics
    trainer.run = observed

run_shard(
    Place(rank, 2, "127.0.0.1", port, timeout=60.0),
    Job(
        recipe,
        Settings(steps=2, evaluation_episodes=0),
        path,
        lambda: LanguagePolicy.from_path(tiny_model_path(), value_head=True, dtype="float32"),
        lambda policy: LanguageWorld(registry.make("key_door:max_turns=12"), policy, HFEngine(policy), 0),
        started=started,
    ),
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["missing_old_logits", "remix"])
def test_processes_whose_sets_have_another_order_agree(free_port, tmp_path, name):
    RunDirectory.create(tmp_path)
    port = str(free_port())
    environments = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in (1, 2)]
    shards = [
        subprocess.Popen(
            [sys.executable, "-c", APART, str(rank), port, str(tmp_path), name],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, environment in enumerate(environments)
    ]
    try:
        said = [shard.communicate(timeout=200) for shard in shards]
    finally:
        for shard in shards:
            shard.kill()
    assert said[0][0] == said[1][0] and said[0][0].strip(), [errors for _, errors in said]


def test_a_judge_is_asked_by_one_shard_for_all(in_shards, make_job, small, tmp_path, monkeypatch):
    """Whoever asks leaves a line in a file: two shards leave as many as one process."""
    from types import ModuleType

    from stratagem.helpers import named
    from stratagem.preferences import Judge

    asked = tmp_path / "asked"

    def judge(messages: Any, seed: int) -> str:
        with asked.open("a") as file:
            file.write("x\n")
        first, second = messages[-1]["content"].split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
        return "[[A]]" if len(first) > len(second) else "[[B]]" if len(first) < len(second) else "[[C]]"

    module = ModuleType("judging")
    module.judge = judge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "judging", module)
    named.helper.cache_clear()
    recipe = small("sppo", advantage__preference=Judge("python:judging:judge"), sampler__prompts_per_step=2)
    one, two = make_job(recipe, "alone", steps=2), make_job(recipe, "both", steps=2)
    alone(one)
    count = len(asked.read_text().splitlines())
    sharded(in_shards, two)
    assert len(asked.read_text().splitlines()) == 2 * count > 0
    assert_same_rows(one, two)


def test_a_head_of_answers_is_for_one_process(in_shards, make_job):
    job = make_job(catalogue.card("bradley_terry_model").recipe(), steps=1)

    def check(place: Place) -> str:
        try:
            run_shard(place, job)
        except InputError as error:
            return str(error)
        return "it ran"

    for said in in_shards(check):
        assert said.startswith("ShardedPolicy has no view answer_head; it has ")
