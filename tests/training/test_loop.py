"""The loop: the same numbers from the same seed, however a batch is cut and wherever a run was stopped."""

from __future__ import annotations

import json
import math
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.experience import Experience, Loss
from stratagem.language.inputs import TokenInputs
from stratagem.objectives import PolicyGradient
from stratagem.partition import Partition
from stratagem.parts import Objective
from stratagem.sampling import Rollouts
from stratagem.schedules import LinearRamp
from stratagem.training.loop import Interrupted, Settings, Trainer, microbatches
from stratagem.training.world import Collected

MEASURED = ("timing/", "memory/")
TWO_EPOCHS = {"optimization__epochs": 2, "optimization__minibatches": 2}


def rows(trainer: Any, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Logged rows without what a clock or the memory of the process said."""
    logged = trainer.run_directory.rows(name)
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in logged]


def assert_same_state(first: Any, second: Any) -> None:
    """Weights, optimizer and part states, bit by bit."""
    first.checkpoint(), second.checkpoint()
    one, other = first.run_directory.load(), second.run_directory.load()
    assert one.tensors.keys() == other.tensors.keys()
    for group in one.tensors:
        assert one.tensors[group].keys() == other.tensors[group].keys(), group
        for name, tensor in one.tensors[group].items():
            assert torch.equal(tensor, other.tensors[group][name]), f"{group}: {name}"


class StopAfter:
    """Asks a trainer to stop once it has tried so many optimizer steps."""

    def __init__(self, trainer: Any, updates: int) -> None:
        step, left = trainer._optimizer.step, [updates]

        def counted(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                trainer.stop()
            return step(*arguments)

        trainer._optimizer.step = counted


# ---- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(make_trainer, make_world, small, name):
    def run(folder: str, seed: int) -> list[dict[str, Any]]:
        world = make_world(seed=seed)
        trainer = make_trainer(small(name), folder, world, seed=seed, evaluation_episodes=3)
        trainer.run()
        return rows(trainer) + rows(trainer, "evaluations.jsonl") + rows(trainer, "samples.jsonl")

    first = run("first", 5)
    assert first == run("again", 5)
    assert first != run("other", 6)


@pytest.mark.parametrize(
    ("name", "values", "updates"),
    [
        ("ppo", {"optimization__epochs": 2, "optimization__minibatches": 3}, 6),
        ("grpo", TWO_EPOCHS, 4),
        ("reinforce", TWO_EPOCHS, 4),
        ("reinforce_pp", TWO_EPOCHS, 4),
        ("dapo", {"optimization__epochs": 2, "optimization__microbatch_tokens": 200}, 2),
        ("muonpp", TWO_EPOCHS, 4),
    ],
)
def test_a_run_stopped_between_two_optimizer_steps_of_a_batch_goes_on_exactly(
    make_trainer, small, name, values, updates
):
    unbroken = make_trainer(small(name, **values), "unbroken", steps=3)
    unbroken.run()
    stopped = make_trainer(small(name, **values), "stopped", steps=3)
    StopAfter(stopped, updates + 1)
    with pytest.raises(Interrupted):
        stopped.run()
    [folder] = stopped.run_directory.checkpoints()
    assert folder.name == "step-1-1"
    resumed = make_trainer(small(name, **values), "stopped", steps=3)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert rows(resumed, "samples.jsonl") == rows(unbroken, "samples.jsonl")
    assert_same_state(resumed, unbroken)


def test_a_run_stopped_at_the_last_optimizer_step_of_a_batch_logs_it_once(make_trainer, small):
    unbroken = make_trainer(small("grpo", **TWO_EPOCHS), "unbroken")
    unbroken.run()
    stopped = make_trainer(small("grpo", **TWO_EPOCHS), "stopped")
    StopAfter(stopped, 4)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = make_trainer(small("grpo", **TWO_EPOCHS), "stopped")
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert [row["step"] for row in rows(resumed)] == [1, 2]


def test_memory_and_schedules_survive_a_resume(make_trainer, small):
    ramp = LinearRamp("optimization.learning_rate", 1e-2, 1e-4, 4)
    recipe = small("reinforce").replace(schedules=(ramp,))
    unbroken = make_trainer(recipe, "unbroken", steps=4, checkpoint_every=2)
    unbroken.run()
    first = make_trainer(small("reinforce").replace(schedules=(ramp,)), "broken", steps=2)
    first.run()
    assert float(first.recipe.advantage.memory()["batches"]) == 2
    resumed = make_trainer(small("reinforce").replace(schedules=(ramp,)), "broken", steps=4)
    resumed.resume(resumed.run_directory.load())
    assert float(resumed.recipe.advantage.memory()["batches"]) == 2
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert float(resumed.recipe.advantage.memory()["batches"]) == 4
    # The last step is number 3 of a ramp over 4: 1e-2 - 3/4 (1e-2 - 1e-4).
    assert resumed.recipe.optimization.learning_rate == pytest.approx(2.575e-3)
    assert_same_state(resumed, unbroken)


def test_a_second_run_of_the_same_recipe_object_remembers_nothing_of_the_first(make_trainer, make_world, small):
    recipe = small("reinforce")
    trainers = [make_trainer(recipe, name, make_world(seed=5), seed=5) for name in ("first", "second")]
    for trainer in trainers:
        trainer.run()
    assert rows(trainers[0]) == rows(trainers[1])
    assert float(recipe.advantage.memory()["batches"]) == 0


def test_a_resumed_run_forgets_what_was_logged_after_its_checkpoint(make_trainer, small):
    trainer = make_trainer(small("grpo"), steps=2, checkpoint_every=1, evaluation_episodes=2)
    trainer.run()
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        trainer.run_directory.append(name, {"step": 3, "mode": "sampled"})
    with open(trainer.run_directory.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    resumed = make_trainer(small("grpo"), steps=2, evaluation_episodes=2)
    resumed.resume(resumed.run_directory.load())
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert max(row["step"] for row in rows(resumed, name)) == 2
    assert (trainer.run_directory.path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_checkpoint_of_another_recipe_or_model_is_refused(make_trainer, make_world, make_policy, small):
    trainer = make_trainer(small("grpo"), "grpo")
    trainer.run()
    checkpoint = trainer.run_directory.load()
    deeper = make_trainer(small("grpo"), "deeper", make_world(policy=make_policy(value_head=False)))
    with pytest.raises(InputError, match=r"the checkpoint is of another model or recipe: .*value_head"):
        deeper.resume(checkpoint)
    del checkpoint.state["world"]
    with pytest.raises(InputError, match="the checkpoint lacks 'world': it is of another recipe, task or version"):
        make_trainer(small("grpo"), "again").resume(checkpoint)


# ---- micro-batches --------------------------------------------------------------------------------------------------


def spoken(lengths: list[int]) -> Experience:
    """One group of one-turn trajectories of so many action tokens, each after one observation token."""
    is_action = [place > 0 for length in lengths for place in range(length + 1)]
    inputs = TokenInputs(
        token_ids=torch.zeros(len(is_action), dtype=torch.int64),
        lengths=torch.tensor(lengths) + 1,
        action_positions=torch.nonzero(torch.tensor(is_action)).squeeze(1),
    )
    every = list(range(len(lengths)))
    rewards = [float(number) for number in every]
    return Experience.from_lengths(
        lengths, [1] * len(every), [len(every)], reward=rewards, episode=every, inputs=inputs
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 20))
def test_micro_batches_hold_at_most_so_many_positions_and_every_trajectory_once(lengths, bound):
    x = spoken(lengths)
    pieces = microbatches(x, bound)
    assert torch.cat([piece.episode for piece in pieces]).tolist() == list(range(len(lengths)))
    for piece in pieces:
        assert piece.trajectories == 1 or int(piece.inputs.lengths.sum()) <= bound
    for piece, following in pairwise(pieces):
        assert int(piece.inputs.lengths.sum()) + int(following.inputs.lengths[0]) > bound


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 20), st.integers(0, 99))
def test_micro_batches_of_whole_groups_cut_none(lengths, bound, seed):
    x = spoken(lengths)
    label = torch.randint(0, 4, (len(lengths),), generator=torch.Generator().manual_seed(seed))
    x = x.replace(group_of_trajectory=Partition(label, 4), domain_of_group=Partition.whole(4))
    pieces = microbatches(x, bound, "groups")
    assert torch.cat([piece.episode for piece in pieces]).sort().values.tolist() == list(range(len(lengths)))
    for piece in pieces:
        assert piece.groups == 1 or int(piece.inputs.lengths.sum()) <= bound
    homes = [set(label[piece.episode].tolist()) for piece in pieces]
    assert sum(map(len, homes)) == len(set(label.tolist()))


def test_mini_batches_of_whole_groups_cut_none_and_every_group_comes_once_an_epoch(make_trainer, make_world, small):
    seen: list[list[int]] = []

    class _Noting(PolicyGradient):
        def __call__(self, out, x):
            assert x.group_of_trajectory.size().tolist() == [4] * x.groups
            seen.append(x.task_id.tolist())
            return super().__call__(out, x)

    recipe = small("p3o", optimization__minibatches=3, sampler__prompts_per_step=7)
    recipe = recipe.replace(objective=_Noting(**vars(recipe.objective)))
    make_trainer(recipe, steps=1).run()
    assert [len(groups) for groups in seen] == [3, 2, 2] * 2
    first, second = list(chain(*seen[:3])), list(chain(*seen[3:]))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("name", ["grpo", "ppo", "dr_grpo", "reinforce_pp", "p3o"])
def test_a_step_moves_the_weights_alike_however_the_batch_is_cut(make_trainer, make_world, small, name):
    # With a large eps Adam's step is proportional to the gradient, so that rounding is not blown up to a sign.
    plain = {"optimization__eps": 1.0, "optimization__learning_rate": 1.0}

    def weights(bound: int | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        world = make_world()
        recipe = small(name, **plain, optimization__microbatch_tokens=bound)
        trainer = make_trainer(recipe, f"cut-{bound}", world, steps=1)
        trainer.run()
        [row] = rows(trainer)
        return world.policy.state_dict(), row

    whole, row = weights(None)
    for bound in (600, 90):
        pieces, cut_row = weights(bound)
        for key, value in whole.items():
            torch.testing.assert_close(pieces[key], value, rtol=1e-5, atol=1e-6)
        assert cut_row.keys() == row.keys()
        for key, value in row.items():
            assert cut_row[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


# ---- batches that teach nothing -------------------------------------------------------------------------------------


def with_collect(world: Any, *batches: Collected) -> Any:
    """The world, its batches replaced by these."""
    left = list(batches)
    world.collect = lambda sampler, step: left.pop(0)
    return world


def collected(world: Any, **changes: Any) -> Collected:
    """A batch of two groups of three, with fields changed."""
    world.serve(0)
    brought = type(world).collect(world, Rollouts(prompts_per_step=2, group_size=3), 0)
    assert brought.x is not None
    return Collected(brought.x.replace(**changes), brought.tokens, brought.metrics)


def test_a_batch_without_learning_signal_costs_no_optimizer_step_and_says_so(make_trainer, make_world, small):
    world = make_world()
    before = {name: value.clone() for name, value in world.policy.state_dict().items()}
    equal = collected(world, reward=torch.ones(6, 1))
    trainer = make_trainer(small("grpo"), world=with_collect(world, equal), steps=1)
    trainer.run()
    [row] = rows(trainer)
    assert (row["batch/skipped"], row["optimizer_steps"]) == (1, 0)
    assert "loss" not in row
    assert all(torch.equal(value, before[name]) for name, value in world.policy.state_dict().items())
    assert trainer._optimizer.state_dict()["state"] == {}


def test_a_batch_that_teaches_says_that_it_was_not_skipped(make_trainer, small):
    trainer = make_trainer(small("grpo"), steps=1)
    trainer.run()
    [row] = rows(trainer)
    assert (row["batch/skipped"], row["optimizer_steps"], row["updates/not_finite"]) == (0, 1, 0)
    assert row["batch/trajectories"] == 12


def test_no_gradient_is_held_while_a_batch_is_collected(make_trainer, small):
    trainer = make_trainer(small("grpo"))
    collect, held = trainer.world.collect, list[bool]()

    def watched(*arguments: Any) -> Any:
        held.append(any(p.grad is not None for p in trainer.policy.parameters()))
        return collect(*arguments)

    trainer.world.collect = watched
    for _ in range(2):
        assert trainer.step()["grad_norm"] > 0
    assert held == [False, False]


def test_a_lost_batch_is_skipped_and_the_run_goes_on(make_trainer, make_world, small):
    world = make_world()
    batches = [Collected(None, 48, {"episodes/failed": 12.0}), collected(world)]
    trainer = make_trainer(small("grpo"), world=with_collect(world, *batches))
    with pytest.warns(UserWarning, match="step 1: no episode was of use"):
        trainer.run()
    first, second = rows(trainer)
    assert (first["batch/skipped"], first["optimizer_steps"], first["episodes/failed"]) == (1, 0, 12)
    assert (second["batch/skipped"], second["optimizer_steps"]) == (0, 1)


def test_batches_whose_groups_are_all_rejected_are_skipped_and_lose_nothing(make_trainer, make_world, small):
    """A policy that has learned everything teaches dynamic sampling nothing; that is no fault, and may last."""
    world = make_world()
    rejected = [Collected(collected(world).x.select(torch.tensor([], dtype=torch.int64)), 48) for _ in range(4)]
    trainer = make_trainer(small("ppo"), world=with_collect(world, *rejected, collected(world)), steps=5)
    trainer.run()
    assert [row["batch/skipped"] for row in rows(trainer)] == [1, 1, 1, 1, 0]
    assert [row["optimizer_steps"] for row in rows(trainer)][3:] == [0, 4]


def test_a_group_left_with_one_trajectory_is_dropped_where_groups_are_compared(make_trainer, make_world, small):
    def dropped(name: str) -> float:
        world = make_world()
        whole = collected(world).x
        left = whole.select(torch.tensor([0, 3, 4, 5]))
        trainer = make_trainer(small(name), name, with_collect(world, Collected(left, left.tokens)), steps=1)
        trainer.run()
        return rows(trainer)[0]["batch/dropped_trajectories"]

    assert dropped("grpo") == 1
    assert dropped("reinforce") == 0


def test_trajectories_without_a_token_cost_nothing(make_trainer, make_world, small):
    """A micro-batch without a token has a loss without a gradient."""
    world = with_collect(make_world(), Collected(spoken([3, 0, 2]), 5))
    trainer = make_trainer(small("grpo", optimization__microbatch_tokens=1), world=world, steps=1)
    trainer.run()
    assert rows(trainer)[0]["optimizer_steps"] == 1


class Poisoned(Objective):
    """The loss of another objective; in chosen calls the loss, or only its gradient, is not a number."""

    def __init__(self, of: Objective, loss: set[int], gradient: set[int]) -> None:
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "bad", (loss, gradient, [0]))

    def __call__(self, out: Any, x: Experience) -> Loss:
        loss, gradient, calls = self.bad
        calls[0] += 1
        right = self.of(out, x)
        if calls[0] in loss:
            return Loss(right.loss + math.nan, right.metrics)
        if calls[0] in gradient:
            # sqrt(0) is 0, and its slope is infinite.
            return Loss(right.loss + (out.logp - out.logp).sum().sqrt(), right.metrics)
        return right


def test_a_step_that_is_not_finite_is_not_taken_but_counted(make_trainer, make_world, small):
    def run(name: str, loss: set[int], gradient: set[int]) -> tuple[Any, dict[str, torch.Tensor]]:
        world = make_world()
        trainer = make_trainer(small("grpo", **TWO_EPOCHS), name, world, steps=1)
        poisoned = Poisoned(trainer.recipe.objective, loss, gradient)
        object.__setattr__(trainer.recipe, "objective", poisoned)
        trainer._batch = trainer._collect()
        trainer.step()
        return rows(trainer)[0], world.policy.state_dict()

    row, weights = run("poisoned", {2}, {3})
    assert (row["updates/not_finite"], row["optimizer_steps"]) == (2, 2)
    assert math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
    assert all(value.isfinite().all() for value in weights.values())
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_metrics_of_a_batch_are_means_over_the_steps_that_were_taken(make_trainer, make_world, small):
    world = make_world()
    trainer = make_trainer(small("grpo", **TWO_EPOCHS), world=world, steps=1)
    fixed = Poisoned(trainer.recipe.objective, {1}, set())
    object.__setattr__(trainer.recipe, "objective", fixed)
    trainer._batch = trainer._collect()
    batch = trainer._batch
    trainer.step()
    assert (batch.update, batch.not_finite) == (4, 1)
    assert batch.metrics()["loss"] == pytest.approx(batch.totals["loss"] / 3)


# ---- evaluation and settings ----------------------------------------------------------------------------------------


def test_the_best_policy_by_evaluation_is_kept_and_a_worse_one_is_not(make_trainer, make_world, small):
    world = make_world()
    scores = iter([0.2, 0.2, 0.6, 0.4, 0.1, 0.1])  # sampled and greedy at step 0, 1 and 2
    play = world.evaluate

    def evaluate(episodes: int, mode: Any) -> Any:
        import dataclasses

        return dataclasses.replace(play(episodes, mode), success=next(scores))

    world.evaluate = evaluate
    trainer = make_trainer(small("grpo"), world=world, evaluation_episodes=2, evaluate_every=1)
    trainer.run()
    card = (trainer.run_directory.path / "model" / "README.md").read_text()
    assert "- step: 1\n" in card and "evaluation/sampled/success: 0.600" in card
    assert [row["step"] for row in rows(trainer, "evaluations.jsonl")] == [0, 0, 1, 1, 2, 2]


def test_an_evaluation_without_a_good_episode_is_no_record_to_beat(make_trainer, make_world, chatter, small):
    broken = [True]

    def fault(call: str, index: int, turn: int) -> None:
        if broken[0] and index < 0:
            raise RuntimeError("the simulator is down")

    world = make_world(chatter(fault=fault))
    trainer = make_trainer(small("grpo"), world=world, steps=1, evaluation_episodes=2)
    trainer._evaluate(0)
    assert not (trainer.run_directory.path / "model").exists()
    broken[0] = False
    trainer._evaluate(1)
    assert (trainer.run_directory.path / "model" / "model.safetensors").is_file()


def test_without_evaluation_the_last_policy_is_saved(make_trainer, small):
    from stratagem.language.policy import LanguagePolicy

    trainer = make_trainer(small("grpo"))
    trainer.run()
    saved = LanguagePolicy.from_path(trainer.run_directory.path / "model", dtype="float32")
    for (name, value), (_, expected) in zip(saved.weights(), trainer.policy.weights(), strict=True):
        assert torch.equal(value, expected), name


def test_old_checkpoints_are_removed(make_trainer, small):
    trainer = make_trainer(small("grpo"), steps=4, checkpoint_every=1, keep_checkpoints=2)
    trainer.run()
    assert [path.name for path in trainer.run_directory.checkpoints()] == ["step-3", "step-4"]


@pytest.mark.parametrize("name", ["steps", "checkpoint_every", "keep_checkpoints"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=f"{name} = 0: must be at least 1"):
        Settings(**{name: 0})
    with pytest.raises(InputError, match="evaluate_every = -1: must be at least 0"):
        Settings(evaluate_every=-1)
    with pytest.raises(InputError, match="budget = 0: must be at least 1 token, or None"):
        Settings(budget=0)


# ---- a budget of tokens ---------------------------------------------------------------------------------------------


def test_a_budget_ends_the_run_with_the_batch_that_uses_it_up(make_trainer, small):
    unbounded = make_trainer(small("grpo"), "unbounded", steps=4)
    unbounded.run()
    totals = [row["tokens/total"] for row in rows(unbounded)]
    assert [b - a for a, b in pairwise([0, *totals])] == [row["tokens/sampled"] for row in rows(unbounded)]
    for budget, steps in ((totals[1], 2), (totals[1] + 1, 3)):
        bounded = make_trainer(small("grpo"), f"budget-{budget}", steps=100, budget=int(budget))
        bounded.run()
        assert rows(bounded) == rows(unbounded)[:steps]


def test_evaluations_come_whenever_so_many_tokens_were_sampled(make_trainer, small):
    trainer = make_trainer(small("grpo"), steps=6, evaluation_episodes=1, evaluate_tokens=250)
    trainer.run()
    totals = [row["tokens/total"] for row in rows(trainer)]
    due = [n for n, (a, b) in enumerate(pairwise([0, *totals]), 1) if b // 250 > a // 250 or n == 6]
    assert [row["step"] for row in rows(trainer, "evaluations.jsonl")][::2] == [0, *due]
    assert 2 <= len(due) < 6, "the figures of this test should leave some batches without an evaluation"


def test_a_run_stopped_within_its_budget_uses_up_the_rest_and_no_more(make_trainer, small, make_world):
    whole = make_trainer(small("grpo"), "whole", steps=100, budget=500)
    whole.run()
    stopped = make_trainer(small("grpo"), "stopped", steps=100, budget=500)
    StopAfter(stopped, 1)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = Trainer(small("grpo"), make_world(), stopped.run_directory, stopped.settings)
    resumed.resume(stopped.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(whole)


def test_a_budget_too_small_for_the_first_batch_is_refused_with_what_that_takes(make_trainer, small):
    whole = make_trainer(small("grpo"), "whole", steps=1)
    needed = int(whole.run()["tokens/sampled"])
    with pytest.raises(InputError, match=rf"budget = 5 tokens: too small for one step; .* samples about {needed}$"):
        make_trainer(small("grpo"), "small", budget=5).run()


def test_samples_bear_the_number_of_the_step_that_learned_from_them(make_trainer, small):
    trainer = make_trainer(small("grpo"), sample_episodes=1)
    trainer.run()
    assert [row["step"] for row in rows(trainer, "samples.jsonl")] == [1, 2]
    message = rows(trainer, "samples.jsonl")[0]["messages"][0]
    assert message["role"] == "user" and message["content"].startswith("topic ")


def test_metrics_are_strict_json(make_trainer, small, tmp_path: Path):
    trainer = make_trainer(small("ppo"), evaluation_episodes=1)
    trainer.run()
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        text = (tmp_path / "run" / name).read_text()
        assert "NaN" not in text and "Infinity" not in text
