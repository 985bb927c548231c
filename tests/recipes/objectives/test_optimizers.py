"""Muon++ as a recipe: what it changes, and that the trainer gives each weight to its rule."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.optimizers import Muon, spectral_size
from stratagem.recipe import Recipe


def norm(matrix: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, ord=2))


def test_it_is_grpo_with_another_optimizer():
    changes = recipes.muonpp().diff(recipes.grpo())
    assert {change.path.split(".")[0] for change in changes} == {"optimization"}
    assert recipes.muonpp().optimization == Muon(
        matrix_learning_rate=0.005, scale="spectral", power_iterations=10, weight_decay=0.0
    )
    card = catalogue.card("muonpp")
    assert (card.arxiv, card.base, card.family) == ("2601.01306", "grpo", "objectives")


def test_its_arguments_reach_their_parts():
    recipe = recipes.muonpp(matrix_learning_rate=0.1, weight_decay=0.2, power_iterations=3, clip=0.3, group_size=4)
    assert (recipe.objective.gate.low, recipe.objective.gate.high, recipe.sampler.group_size) == (0.3, 0.3, 4)
    assert recipe.optimization.learning_rates() == (5e-4, 5e-4, 0.1)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    with pytest.raises(InputError, match=r"^muon\.matrix_learning_rate = -1: "):
        recipes.muonpp(matrix_learning_rate=-1)


def test_any_recipe_takes_the_optimizer_by_name():
    recipe = recipes.rloo().with_values({"optimization": "muon", "optimization.scale": "adam"})
    assert recipe.optimization == Muon(scale="adam")


def test_a_step_of_training_moves_every_hidden_matrix_by_the_same_share_of_its_spectral_size(
    make_trainer, make_world, small
):
    world = make_world()
    before = [p.detach().clone() for p in world.policy.hidden_matrices()]
    embedding = world.policy.model.get_input_embeddings().weight
    table = embedding.detach().clone()
    recipe = small("muonpp", optimization__learning_rate=1e-3, optimization__power_iterations=1000)
    make_trainer(recipe, world=world, steps=1).run()
    shares = [
        norm(p.detach() - old) / spectral_size(p) for p, old in zip(world.policy.hidden_matrices(), before, strict=True)
    ]
    assert shares == pytest.approx([0.005] * len(before), rel=1e-3)
    # The first step of Adam: the learning rate against the sign of the gradient.
    assert float((embedding.detach() - table).abs().max()) == pytest.approx(1e-3, rel=1e-2)


def test_without_hidden_matrices_it_is_grpo(make_trainer, small):
    from stratagem.lab import find_game
    from stratagem.lab.world import LabTask, LabWorld

    tables = []
    for name in ("muonpp", "grpo"):
        world = LabWorld(LabTask(find_game("prompts")), 5)
        make_trainer(world.adapt(small(name)), name, world).run()
        tables.append(world.policy.logits.detach())
    assert torch.equal(*tables)
