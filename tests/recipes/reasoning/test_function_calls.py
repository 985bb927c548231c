"""FunRL's recipe: what it changes, where it is GRPO, and training in its task."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipe import Recipe
from stratagem.recipes import funrl_function_calling, grpo
from stratagem.spans import Span


def batch(entropy: list[float]) -> Experience:
    """A group of two right and two wrong answers, a thought and a call each."""
    return Experience.from_lengths(
        [2] * 4,
        [1] * 4,
        [4],
        reward=torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64),
        behavior_logp=-torch.ones(8, dtype=torch.float64),
        entropy=torch.tensor([h for value in entropy for h in (value, 5.0)], dtype=torch.float64),
        span=torch.tensor([Span.THINK, Span.ACTION] * 4),
    )


def gradient(recipe: Recipe, x: Experience) -> torch.Tensor:
    x = recipe.prepare(x)
    logp = x.behavior_logp.clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


def test_it_is_grpo_with_another_advantage():
    recipe = funrl_function_calling()
    assert {change.path.split(".")[0] for change in recipe.diff(grpo())} == {"advantage"}
    assert (recipe.advantage.strength, recipe.advantage.cap) == (0.4, 2.0)
    assert catalogue.card("funrl_function_calling").arxiv == "2508.05118"
    for form in ("capped", "clipped", "logistic"):
        made = funrl_function_calling(form, kl_coefficient=0.01)
        assert Recipe.from_yaml(made.to_yaml()) == made and "ref_logp" in made.needs()
    with pytest.raises(InputError, match=r"entropy_raised\.strength"):
        funrl_function_calling(strength=-1.0)


@pytest.mark.parametrize("form", ["capped", "clipped", "logistic"])
def test_without_strength_it_is_grpo_exactly(form):
    x = batch([0.2, 1.0, 2.0, 0.1])
    assert torch.equal(gradient(funrl_function_calling(form, strength=0.0), x), gradient(grpo(), x))
    assert not torch.equal(gradient(funrl_function_calling(form), x), gradient(grpo(), x))


def test_of_two_right_answers_the_less_sure_thought_pulls_more():
    found = funrl_function_calling().prepare(batch([0.2, 0.8, 0.2, 0.8])).advantage[::2]
    plain = grpo().prepare(batch([0.2, 0.8, 0.2, 0.8])).advantage[::2]
    torch.testing.assert_close(found - plain, torch.tensor([0.08, 0.32, 0.08, 0.32]).double())
    assert found[1] > found[0] > 0 > found[3] > found[2]


def test_a_task_without_thoughts_is_named_and_may_take_the_whole_response():
    x = batch([0.2, 0.8, 0.2, 0.8]).replace(span=None)
    with pytest.raises(ValueError, match="recipe funrl_function_calling reads span"):
        funrl_function_calling().prepare(x)
    whole = funrl_function_calling().with_values({"advantage.within": "response"})
    assert whole.prepare(x).advantage.isfinite().all()


def test_who_never_thinks_has_nothing_to_learn_from_in_its_task(make_world, tmp_path):
    """Tokens of a random policy are neither right nor a thought, so even a bonus that needs no reward is 0."""
    from stratagem.tasks import FunctionCallsTask
    from stratagem.training.loop import Settings, Trainer
    from stratagem.training.run_directory import RunDirectory

    world = make_world(FunctionCallsTask(category="single", max_new_tokens=8))
    before = [parameter.detach().clone() for parameter in world.policy.policy_parameters()]
    small = {"sampler.prompts_per_step": 2, "sampler.group_size": 2}
    for number, (within, moves) in enumerate((("thoughts", False), ("response", True))):
        recipe = funrl_function_calling("logistic").with_values({**small, "advantage.within": within})
        run = RunDirectory.create(tmp_path / str(number))
        metrics = Trainer(recipe, world, run, Settings(steps=1, evaluation_episodes=0)).run()
        assert (metrics["reward"], metrics["reward/format"], metrics["reward/calls"]) == (0, 0, 0)
        after = list(world.policy.policy_parameters())
        assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True)) == moves
