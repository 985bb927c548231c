from __future__ import annotations

from pathlib import Path

import pytest
import torch

import stratagem
from stratagem import recipes, run
from stratagem.errors import InputError
from stratagem.hybrid import HybridPolicy, HybridTask, HybridWorld, Shape, warm_start
from stratagem.objectives import KL
from stratagem.sampling import Demonstrations, DynamicSampling, EntropyTempering, Rollouts, Segments
from stratagem.training.companions import Companions

TASK = HybridTask("find", steps=2, dims=4)


def world(task: HybridTask = TASK, seed: int = 0) -> HybridWorld:
    made = HybridWorld(task, seed, HybridPolicy(Shape.of(task), seed))
    made.serve(0)
    return made


def test_a_batch_is_groups_of_chains_that_end_in_an_answer():
    collected = world().collect(Rollouts(prompts_per_step=3, group_size=4), 0)
    x = collected.x
    assert (x.groups, x.trajectories, x.tokens, collected.tokens) == (3, 12, 36, 36)
    assert x.latent.tolist() == [True, True, False] * 12
    assert x.reward.squeeze(1).tolist() == x.success.float().tolist()
    assert collected.metrics["latents/concentration_per_dim"] == 2.0
    # One picture for all of a group, another for the next.
    pictures = x.inputs.picture.reshape(3, 4, -1)
    assert (pictures == pictures[:, :1]).all() and not (pictures[0] == pictures[1]).all()


def test_the_policy_agrees_with_what_it_noted_when_it_acted():
    made = world()
    x = made.collect(Rollouts(prompts_per_step=2, temperature=0.7), 0).x
    torch.testing.assert_close(made.policy(x, temperature=0.7).logp.detach(), x.behavior_logp)


def test_equal_seeds_and_steps_collect_equal_batches():
    first, second = (world().collect(Rollouts(prompts_per_step=2), 3).x for _ in range(2))
    assert torch.equal(first.action, second.action)
    assert not torch.equal(first.action, world().collect(Rollouts(prompts_per_step=2), 4).x.action)


def test_groups_that_agree_are_replaced():
    collected = world().collect(DynamicSampling(prompts_per_step=4, group_size=8, refill_rounds=20), 0)
    by_group = collected.x.group_of_trajectory.mean(collected.x.success.float())
    assert collected.x.groups == 4 and ((by_group > 0.1) & (by_group < 0.9)).all()


def test_demonstrations_are_right_and_marked():
    x = world().collect(Demonstrations(prompts_per_step=5), 0).x
    assert x.success.all() and x.demonstrated.all() and x.groups == 5


def test_samplers_it_does_not_know_are_refused():
    with pytest.raises(InputError, match="a hybrid task takes rollouts or demonstrations"):
        world().collect(Segments(), 0)
    with pytest.raises(InputError, match="without top_p and top_k"):
        world().collect(Rollouts(top_k=3), 0)
    with pytest.raises(InputError, match=r"similar_states = 0\.9: a hybrid policy reads no text"):
        world().collect(Rollouts(similar_states=0.9), 0)
    with pytest.raises(InputError, match="a hybrid policy samples at one temperature"):
        world().collect(Rollouts(tempering=EntropyTempering()), 0)


def test_a_policy_of_another_shape_is_refused():
    with pytest.raises(InputError, match="needs a policy with"):
        HybridWorld(HybridTask("compare"), 0, HybridPolicy(Shape.of(TASK)))


def test_the_concentration_of_the_task_is_that_of_every_kl():
    values = world().adapt(recipes.hylar()).flat()
    found = [value for path, value in values.items() if path.endswith("concentration")]
    assert found == [TASK.concentration]


def test_the_reference_says_the_directions_the_run_began_with():
    made = world()
    recipe = recipes.hylar()
    companions = Companions(made.policy, recipe)
    before = made.policy.copy()
    with torch.no_grad():
        for parameter in made.policy.policy_parameters():
            parameter.add_(0.1)
    x = companions.complete(recipe, made.collect(Rollouts(prompts_per_step=2), 0).x)
    out = before(x, temperature=recipe.sampler.policy_temperature, also=["direction"])
    torch.testing.assert_close(x.ref_direction, out.direction)
    torch.testing.assert_close(x.ref_logp, out.logp)
    assert not torch.allclose(x.ref_direction, made.policy(x, also=["direction"]).direction)


def test_state_is_carried_over():
    first, second = world(), world()
    first.collect(Rollouts(prompts_per_step=2), 0)
    second.load_state_dict(*first.state_dict())
    ours, theirs = (made.collect(Rollouts(prompts_per_step=2), 1).x for made in (first, second))
    assert torch.equal(ours.action, theirs.action) and torch.equal(ours.episode, theirs.episode)


def test_evaluations_repeat_and_disturb_nothing():
    made = world()
    before = made.state_dict()
    first, second = (made.evaluate(20, "sampled", 5) for _ in range(2))
    assert first.success == second.success and made.state_dict() == before
    assert made.evaluate(20, "greedy").mean_length == 3


def test_a_warm_start_learns_to_look():
    policy = warm_start(HybridTask("find"), 1, 30, size=64)
    pictures = HybridTask("find").pictures("test", range(100))
    thought = policy.chain(pictures.picture, pictures.question, lambda step, direction: direction)
    target = policy.targets(pictures.picture, pictures.cell[:, :1])
    assert float((thought.direction.detach() * target).sum(-1).mean()) > 0.3


@pytest.mark.parametrize("recipe", ["hylar", "grpo", "ppo", "sft"])
def test_recipes_train_and_resume(recipe: str, tmp_path: Path):
    values = {} if recipe == "sft" else {"sampler.prompts_per_step": 2, "sampler.group_size": 4}
    task = HybridTask("find", steps=2, dims=4)
    HybridPolicy(Shape.of(task)).save(tmp_path / "start", "card")
    arguments = {"model": str(tmp_path / "start"), "values": values, "evaluation_episodes": 10}
    whole = stratagem.train(recipe, task.name, steps=3, out=tmp_path / "whole", **arguments)
    stratagem.train(recipe, task.name, steps=1, out=tmp_path / "parts", checkpoint_every=1, **arguments)
    resumed = run.resume(tmp_path / "parts", steps=3)
    for name, value in whole.metrics.items():
        if not name.startswith(("timing/", "memory/")):
            assert resumed.metrics[name] == value, name
    if recipe == "hylar":
        assert {"latents/clip_fraction", "latents/regularizer", "regularizer"} <= whole.metrics.keys()
    assert HybridPolicy.from_directory(tmp_path / "whole" / "model").shape == Shape.of(task)


def test_a_recipe_that_wants_an_entropy_is_refused_in_one_line(tmp_path: Path):
    task = HybridTask("find", steps=2, dims=4)
    HybridPolicy(Shape.of(task)).save(tmp_path / "start", "card")
    recipe = recipes.ppo(entropy_weight=0.1)
    with pytest.raises(InputError, match="HybridPolicy does not say entropy"):
        stratagem.train(recipe, task.name, model=str(tmp_path / "start"), steps=1, out=tmp_path / "run")


def test_a_policy_without_directions_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="TabularPolicy does not say direction"):
        stratagem.train("hylar", "lab:graded", steps=1, out=tmp_path / "run")


def test_the_kl_of_all_rows_alike_is_no_nan_either(tmp_path: Path):
    made = world()
    recipe = recipes.grpo(kl_coefficient=0.1)
    assert isinstance(recipe.objective.regularizer.term, KL)
    x = recipe.prepare(Companions(made.policy, recipe).complete(recipe, made.collect(Rollouts(), 0).x))
    assert recipe.objective(made.policy(x), x).loss.isfinite()
