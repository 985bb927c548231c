"""The recipe by curvature: what policies say for it, its learning rate, and the trainer it runs in."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.lab import GAMES, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.inputs import TokenInputs
from stratagem.recipe import Recipe
from stratagem.schedules import LinearRamp
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

FIGURES = ("hidden", "hidden_square", "score_square", "score_variance", "top_id", "top_probability")
KEEPS_MOST = {"objective.correction.gain": 10.0, "objective.correction.shift": 0.02}


@pytest.fixture
def tree() -> Tree:
    return Tree.enumerate(GAMES["graded"])


def lab_trainer(folder, recipe: Recipe, steps: int = 6, **options) -> Trainer:
    world = LabWorld(LabTask(GAMES["graded"]), 1000)
    settings = Settings(steps, 1000, evaluation_episodes=0, checkpoint_every=100)
    return Trainer(
        recipe.with_values({"optimization.learning_rate": 0.05, **options}),
        world,
        RunDirectory.create(folder),
        settings,
    )


# ---- the recipe -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gain", "shift"), [("grpo", 1e-2, 1e-4), ("dr_grpo", 5e-4, 1e-3), ("reinforce", 1e-1, 1e-5)]
)
def test_it_is_its_base_with_a_mask_at_the_released_bounds(name, gain, shift):
    recipe = recipes.capo(name)
    assert {change.path.split(".")[1] for change in recipe.diff(getattr(recipes, name)())} == {"correction"}
    mask = recipe.objective.correction
    assert (mask.gain, mask.shift, mask.low, mask.unit, mask.step.part_name()) == (
        gain,
        shift,
        None,
        "token",
        "adam_step",
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    for argument in ({"policy_gradient": "ppo"}, {"step": "lion"}):
        with pytest.raises(InputError, match="of capo"):
            recipes.capo(**argument)


def test_two_recipes_share_no_moments():
    assert recipes.capo().objective.correction.step is not recipes.capo().objective.correction.step


# ---- what policies say ----------------------------------------------------------------------------------------------


def test_a_table_says_the_figures_of_its_own_step(tree):
    """One token's step on the table, against the prediction."""
    policy, rate = TabularPolicy(tree.normal_logits(0)), 1e-3
    x = tree.leaves.replace(advantage=torch.ones(tree.leaves.tokens), learning_rate=rate)
    out = policy(x, temperature=2.0, also=FIGURES)
    mask = recipes.capo(step="gradient").objective.correction
    objective, shift = mask.shifts(out, x)
    (gradient,) = torch.autograd.grad(out.logp[5], policy.logits)
    with torch.no_grad():
        policy.logits += rate * gradient
    moved = policy(x, temperature=2.0).logp[5] - out.logp[5]
    assert objective[5].item() == pytest.approx(moved.item(), rel=2e-3)
    assert shift[5].item() == pytest.approx(moved.item() ** 2 / 2, rel=1e-2)
    assert out.hidden.square().sum(1).tolist() == out.hidden_square.tolist() == [0.25] * x.tokens
    assert not any(getattr(out, name).requires_grad for name in FIGURES)


def test_a_language_policy_says_the_figures_of_its_output_layer(make_policy):
    from stratagem.experience import Experience

    ids = torch.tensor([3, 7, 11, 2, 5, 9])
    x = Experience.from_lengths([3], [1], [1], inputs=TokenInputs(ids, torch.tensor([6]), torch.tensor([2, 4, 5])))
    policy = make_policy(logits_budget=320)
    out = policy(x, temperature=1.7, also=FIGURES)
    head = policy.model.get_output_embeddings().weight
    logp = torch.log_softmax(out.hidden @ head.mT, 1)
    torch.testing.assert_close(logp[range(3), x.inputs.actions], out.logp)
    torch.testing.assert_close(out.hidden_square, out.hidden.square().sum(1))
    v = torch.nn.functional.one_hot(x.inputs.actions, 320) - logp.exp()
    torch.testing.assert_close(out.score_square, v.square().sum(1))
    fisher = [torch.diag(p) - torch.outer(p, p) for p in logp.exp()]
    torch.testing.assert_close(out.score_variance, torch.stack([s @ f @ s for s, f in zip(v, fisher, strict=True)]))
    assert out.top_id.shape == out.top_probability.shape == (3, 51)
    assert out.top_id[:, 0].tolist() == x.inputs.actions.tolist()
    torch.testing.assert_close(out.top_probability.sum(1), torch.ones(3))
    assert not any(getattr(out, name).requires_grad for name in FIGURES)
    nothing = x.select(torch.tensor([], dtype=torch.int64))
    empty = policy(nothing, also=FIGURES)
    assert [getattr(empty, name).shape[1:] for name in FIGURES] == [getattr(out, name).shape[1:] for name in FIGURES]


# ---- the trainer ----------------------------------------------------------------------------------------------------


def test_the_learning_rate_looked_at_is_that_of_the_batch(tmp_path):
    """During a warm-up from 0 everything stays; a fixed rate of the same size drops some."""
    warm = LinearRamp("optimization.learning_rate", 0.0, 0.5, 5)
    recipe = recipes.capo(step="gradient", gain=0.1, shift=math.inf).replace(schedules=(warm,))
    rejected = [lab_trainer(tmp_path / "warm", recipe).step()["curvature/rejected"]]
    fixed = lab_trainer(tmp_path / "fixed", recipe.replace(schedules=()), **{"optimization.learning_rate": 0.5})
    rejected.append(fixed.step()["curvature/rejected"])
    assert rejected[0] == 0.0 < rejected[1]


def test_when_every_token_is_dropped_momentum_does_not_move_the_policy(tmp_path):
    trainer = lab_trainer(tmp_path, recipes.capo(gain=10.0, shift=0.02))
    trainer.step()
    weights = trainer.policy.logits.detach().clone()
    trainer.recipe = trainer.recipe.with_values({"objective.correction.shift": 0.0})
    metrics = trainer.step()
    assert metrics["curvature/rejected"] == metrics["updates/no_gradient"] == 1.0
    assert metrics["optimizer_steps"] == 1.0
    assert torch.equal(trainer.policy.logits, weights)


def test_a_broken_update_leaves_the_moments_as_they_were(tmp_path):
    trainer = lab_trainer(tmp_path, recipes.capo().with_values(KEEPS_MOST))
    trainer.step()
    before = {name: tensor.clone() for name, tensor in trainer.recipe.state_dict().items()}
    trainer.policy.logits.register_hook(lambda gradient: gradient * math.nan)
    assert trainer.step()["updates/not_finite"] == 1.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.recipe.state_dict().items())


def test_a_resumed_run_repeats_the_unbroken_one_moments_and_all(tmp_path):
    values = {**KEEPS_MOST, "optimization.epochs": 2}
    unbroken = lab_trainer(tmp_path / "unbroken", recipes.capo(), **values)
    expected = [unbroken.step() for _ in range(6)]
    first = lab_trainer(tmp_path / "broken", recipes.capo(), **values)
    for _ in range(3):
        first.step()
    first.checkpoint()
    second = lab_trainer(tmp_path / "other", recipes.capo(), **values)
    second._restore(first.run_directory.load())
    for row in expected[3:]:
        found = second.step()
        assert all(found[name] == value for name, value in row.items() if not name.startswith(("timing/", "memory/")))
    for name, tensor in unbroken.recipe.state_dict().items():
        assert torch.equal(tensor, second.recipe.state_dict()[name]), name
    assert unbroken.recipe.state_dict()["objective.correction.step.steps"].item() > 6


def test_micro_batches_of_a_language_policy_keep_the_same_tokens(make_trainer, make_world, small, make_policy):
    recipe, runs = small("capo"), []
    for name, bound in (("whole", None), ("pieces", 40)):
        values = {"optimization.microbatch_tokens": bound, "objective": recipes.capo(gain=10.0).objective}
        trainer = make_trainer(recipe.with_values(values), name, make_world(policy=make_policy()), steps=3)
        runs.append([trainer.step()["curvature/rejected"] for _ in range(3)])
    assert runs[0] == pytest.approx(runs[1], abs=1e-6)
    assert any(0 < rejected < 1 for rejected in runs[0])
