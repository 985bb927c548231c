"""Batches, evaluations and runs of a diffusion policy, through the contract the loop asks for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch

from stratagem import recipes, run
from stratagem.diffusion import Countdown, DiffusionPolicy, DiffusionTask, Shape, Sudoku
from stratagem.diffusion.world import DiffusionWorld
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import (
    Demonstrations,
    Denoising,
    DynamicSampling,
    EntropyTempering,
    MaskedElbo,
    OneStep,
    Rollouts,
    Segments,
)
from stratagem.training.batch_storage import pack, unpack
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

TASK = Countdown(numbers=2)
SAMPLER = Denoising(prompts_per_step=3, group_size=4)


def fresh(task=TASK, seed: int = 1) -> DiffusionPolicy:
    """A policy that knows nothing, with predictions far from uniform."""
    policy = DiffusionPolicy(Shape(len(task.symbols), task.prompt_length + task.answer_length, width=16), seed)
    with torch.no_grad():
        policy.head.weight.mul_(2)
        policy.head.bias[-1] += 1.5  # The end of an answer comes often.
    return policy


def collected(world: DiffusionWorld, sampler=SAMPLER, step: int = 0) -> Experience:
    x = world.collect(sampler, step).x
    assert x is not None
    return x


@pytest.fixture
def world() -> DiffusionWorld:
    return DiffusionWorld(TASK, 5, fresh())


# ---- batches --------------------------------------------------------------------------------------------------------


def test_the_answers_of_a_group_are_to_one_prompt(world):
    x = collected(world)
    assert x.group_of_trajectory.size().tolist() == [4, 4, 4] and x.task_id.tolist() == [0, 1, 2]
    assert x.episode.tolist() == list(range(12))
    prompts = x.inputs.tokens[:, : TASK.prompt_length].view(3, 4, -1)
    assert torch.equal(prompts, prompts[:, :1].expand_as(prompts))
    assert [tuple(prompt) for prompt in prompts[:, 0].tolist()] == [TASK.solved("train", n)[0] for n in range(3)]


def test_an_answer_is_its_tokens_up_to_its_first_end(world):
    x = collected(world, Denoising(prompts_per_step=8, group_size=8))
    answers = x.action.split(x.trajectory_of_token.size().tolist())
    ended = [TASK.end in answer.tolist() for answer in answers]
    assert x.finished.tolist() == ended and x.truncated.tolist() == [not each for each in ended]
    for row, (answer, ends) in enumerate(zip(answers, ended, strict=True)):
        assert TASK.end not in answer.tolist()[:-1]
        assert len(answer) == TASK.answer_length or ends
        canvas = x.inputs.tokens[row]
        assert torch.equal(canvas[x.inputs.response[row]], answer)
        assert bool((canvas[TASK.prompt_length + len(answer) :] == world.policy.mask).all())
        assert not x.inputs.hidden[row, :, : TASK.prompt_length].any()
    assert len({len(answer) for answer in answers}) > 2


def test_rewards_are_what_the_verifier_says():
    task = Sudoku(clues=7)
    policy = fresh(task)
    with torch.no_grad():
        policy.head.bias[4] -= 50
    x = collected(DiffusionWorld(task, 0, policy), Denoising(prompts_per_step=20, group_size=4, order="confident"))
    right = [task.accepts(tuple(row[:16]), tuple(row[16:])) for row in x.inputs.tokens.tolist()]
    assert x.success.tolist() == right and x.returns.tolist() == [float(each) for each in right]
    assert x.finished.all() and x.trajectory_of_token.size().tolist() == [8] * 80


def test_the_behaviour_log_probability_is_the_served_policys_share_under_the_masks_of_the_batch(world):
    sampler = Denoising(prompts_per_step=3, group_size=4, temperature=1.5)
    x = collected(world, sampler)
    assert torch.equal(world.policy(x, temperature=1.5).logp.detach(), x.behavior_logp)
    assert not torch.equal(world.policy(x).logp.detach(), x.behavior_logp)


def test_masks_follow_from_the_seed_and_the_episode_and_differ_between_batches(world):
    first, second = collected(world), collected(world, step=1)
    again = collected(DiffusionWorld(TASK, 5, fresh()))
    assert torch.equal(first.inputs.hidden, again.inputs.hidden)
    other = collected(DiffusionWorld(TASK, 6, fresh()))
    for different in (second, other):
        assert not torch.equal(first.inputs.hidden, different.inputs.hidden)
    assert len({tuple(row.flatten().tolist()) for row in first.inputs.hidden}) > 6


def test_masks_and_answers_owe_nothing_to_torchs_own_generator():
    batches = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        batches.append(collected(DiffusionWorld(TASK, 5, fresh())))
    assert torch.equal(batches[0].action, batches[1].action)
    assert torch.equal(batches[0].inputs.hidden, batches[1].inputs.hidden)


def test_a_sampler_that_says_nothing_of_denoising_gets_likelihoods_of_one_step(world):
    x = collected(world, Rollouts(prompts_per_step=3, group_size=4))
    assert x.inputs.hidden.shape[1] == OneStep().evaluations == 1
    assert bool(x.inputs.hidden.squeeze(1)[x.inputs.response].all())


def test_the_likelihood_of_the_sampler_decides_the_views(world):
    likelihood = MaskedElbo("random", 2, samples=2, masks="count")
    x = collected(world, Denoising(prompts_per_step=2, group_size=2, likelihood=likelihood))
    assert x.inputs.hidden.shape[1] == 4 and x.inputs.lengths.tolist() == [4 * 8] * 4


def test_groups_that_a_sampler_rejects_are_replaced_and_counted():
    task = Sudoku(clues=7)
    policy = fresh(task)
    with torch.no_grad():
        policy.head.bias[4] -= 50
    world = DiffusionWorld(task, 0, policy)
    said = world.collect(DynamicSampling(prompts_per_step=6, group_size=4, refill_rounds=2), 0)
    assert said.metrics["groups/kept"] == said.x.groups and said.metrics["groups/rejected"] > 0
    returns = said.x.returns
    assert bool((said.x.group_of_trajectory.max(returns) > said.x.group_of_trajectory.min(returns)).all())
    assert said.tokens == 8 * 4 * (said.metrics["groups/kept"] + said.metrics["groups/rejected"])


def test_demonstrations_are_the_tasks_own_solutions(world):
    x = collected(world, Demonstrations(prompts_per_step=5))
    assert x.success.all() and x.behavior_logp is None and x.groups == 5
    expected = [token for index in range(5) for token in TASK.solved("train", index)[1]]
    assert x.action.tolist() == expected


def test_the_weights_last_served_answer(world):
    with torch.no_grad():
        world.policy.head.bias.copy_(torch.tensor([0.0] * 7 + [60.0] + [0.0] * 6))
    assert set(collected(world).action.tolist()) != {7}
    world.serve(9)
    x = collected(world, step=1)
    assert set(x.action.tolist()) == {7} and set(x.version.tolist()) == {9}


def test_a_batch_survives_a_checkpoint_with_its_masks(world):
    x = collected(world)
    again = unpack(*pack(x))
    assert torch.equal(world.policy(again).logp, world.policy(x).logp)


# ---- evaluations ----------------------------------------------------------------------------------------------------


def test_evaluations_are_of_held_out_prompts_repeatable_and_without_effect_on_training(world):
    twin = DiffusionWorld(TASK, 5, fresh())
    first = [world.evaluate(30, mode) for mode in ("sampled", "greedy")]
    assert [world.evaluate(30, mode) for mode in ("sampled", "greedy")] == first
    assert torch.equal(collected(world).action, collected(twin).action)
    shown = first[0].samples[0]["messages"][0]["content"]
    assert shown == TASK.read(TASK.solved("test", 0)[0])
    later = world.evaluate(10, "sampled", first=20)
    assert later.episodes == 10 and later.samples[0]["episode"] == 20


def test_the_state_of_a_world_continues_where_it_was(world):
    collected(world)
    other = DiffusionWorld(TASK, 5, fresh())
    other.load_state_dict(*world.state_dict())
    a, b = collected(world, step=1), collected(other, step=1)
    assert a.task_id.tolist() == [3, 4, 5] and a.episode.tolist() == b.episode.tolist()
    assert torch.equal(a.action, b.action) and torch.equal(a.inputs.hidden, b.inputs.hidden)


# ---- learning -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FirstToken(DiffusionTask):
    """Say the prompt's last token first: what a policy that knows nothing does every now and then."""

    kind = "first_token"
    description = "say it again"
    symbols = ("a", "b", "end")
    prompt_length = 2
    answer_length = 3
    end = 2
    warm_start = 0

    def solved(self, split, index):
        said = index % 2
        return (int(split == "test"), said), (said, 0, 2)

    def accepts(self, prompt, answer):
        return answer[:1] == prompt[1:]

    def corrupted(self, prompt, answer):
        return (1 - answer[0], *answer[1:])


def trained(recipe, tmp_path, batches: int = 2) -> tuple[Trainer, list[dict[str, float]]]:
    world = DiffusionWorld(FirstToken(), 5)
    recipe = recipe.with_values({"sampler.prompts_per_step": 8})
    trainer = Trainer(recipe, world, RunDirectory.create(tmp_path / recipe.name), Settings(batches, 5))
    return trainer, [trainer.step() for _ in range(batches)]


def test_recipes_are_adapted_in_their_learning_rate_alone(world):
    changes = world.adapt(recipes.gdpo_diffusion()).diff(recipes.gdpo_diffusion())
    assert [(change.path, change.after) for change in changes] == [("optimization.learning_rate", 1e-3)]


@pytest.mark.parametrize("name", ["gdpo_diffusion", "grpo", "dapo", "ppo", "sft", "reinforce_pp", "decoupled_ppo"])
def test_recipes_with_critics_references_and_demonstrations_learn_here_too(name, tmp_path):
    trainer, metrics = trained(getattr(recipes, name)(), tmp_path)
    for row in metrics:
        assert math.isfinite(row["loss"]) and row["grad_norm"] > 0 and row["updates/not_finite"] == 0
    start = DiffusionWorld(FirstToken(), 5).policy
    assert not torch.equal(trainer.policy.head.weight, start.head.weight)


def test_several_updates_on_one_batch_see_the_same_masks(tmp_path):
    recipe = recipes.gdpo_diffusion(epochs=3, kl_coefficient=0.1).with_values({"optimization.learning_rate": 0.0})
    for row in trained(recipe, tmp_path)[1]:
        assert row["ratio"] == 1.0 and row["kl_old"] == 0.0 and row["kl"] == 0.0 and row["grad_norm"] > 0


def test_gdpo_learns_what_is_rewarded(tmp_path):
    recipe = recipes.gdpo_diffusion().with_values({"optimization.learning_rate": 1e-2})
    metrics = trained(recipe, tmp_path, 25)[1]
    assert metrics[0]["success"] < 0.7 and metrics[-1]["success"] > 0.9


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_trains_evaluates_and_resumes_like_an_unbroken_one(tmp_path):
    options = {"seed": 3, "evaluation_episodes": 10, "checkpoint_every": 2, "values": {"optimization.epochs": 2}}
    task = FirstToken()
    whole = run.train("gdpo_diffusion", task, steps=4, out=tmp_path / "whole", **options)
    run.train("gdpo_diffusion", task, steps=2, out=tmp_path / "part", **options)
    resumed = run.resume(tmp_path / "part", task=task, steps=4)

    def rows(result):
        kept = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith(("timing/", "memory/"))} for row in kept]

    assert rows(resumed) == rows(whole) and len(rows(whole)) == 4
    assert rows(whole)[0]["grad_norm"] > 0


def test_a_saved_policy_is_trained_and_evaluated_by_the_name_of_its_task(tmp_path):
    fresh().save(tmp_path / "start", "card")
    spec = "diffusion:countdown,numbers=2"
    options = {"model": str(tmp_path / "start"), "evaluation_episodes": 10}
    result = run.train("gdpo_diffusion", spec, steps=1, out=tmp_path / "run", **options)
    evaluations = run.evaluate(result.directory, episodes=10)
    assert [each.mode for each in evaluations] == ["sampled", "greedy"] and evaluations[0].episodes == 10
    assert evaluations[0].samples[0]["episode"] == run.UNSEEN


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_policy_of_another_size_is_refused():
    with pytest.raises(InputError, match="needs a policy of 5 tokens and 24 positions; this one is of 14 and 8"):
        DiffusionWorld(Sudoku(), 0, fresh())


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Segments(), "sampler segments: a diffusion task takes rollouts or demonstrations"),
        (Denoising(top_p=0.9), "sampler denoising: a diffusion policy samples without top_p and top_k"),
        (Rollouts(top_k=3), "sampler rollouts: a diffusion policy samples without top_p and top_k"),
        (Rollouts(similar_states=0.9), "similar_states = 0.9: a diffusion policy reads no text"),
        (Rollouts(tempering=EntropyTempering()), "a diffusion policy samples at one temperature"),
    ],
)
def test_what_diffusion_cannot_sample_is_refused(world, sampler, message):
    with pytest.raises(InputError, match=message):
        world.collect(sampler, 0)
