"""HAPO through the recipe: four settings, each of which can be taken out."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipe import Recipe


def batch() -> tuple[Experience, torch.Tensor]:
    """Four groups of answers of many lengths, and log-probabilities of a policy that has moved."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (16,), generator=source)
    tokens = int(lengths.sum())
    old = -torch.rand(tokens, generator=source, dtype=torch.float64)
    x = Experience.from_lengths(
        lengths.tolist(),
        [1] * 16,
        [4] * 4,
        reward=(torch.arange(16) % 3 == 0).double(),
        truncated=torch.zeros(16, dtype=torch.bool),
        behavior_logp=old,
        old_logp=old,
        entropy=torch.rand(tokens, generator=source, dtype=torch.float64),
    )
    return x, old + 0.3 * torch.randn(tokens, generator=source, dtype=torch.float64)


def loss(recipe: Recipe) -> torch.Tensor:
    x, logp = batch()
    return recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss


OFF = {"tempering": 0.0, "token_average": False, "redistribution": 0.0, "widening": 0.0, "dual": None}


def test_with_everything_off_it_is_dapo():
    off = recipes.hapo(**OFF)
    assert loss(off).item() == loss(recipes.dapo(0.2, 0.2)).item()
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    off.sampler.tempering.before_steps(batch()[0])
    assert torch.equal(off.sampler.tempered(logits), recipes.dapo().sampler.tempered(logits))


@pytest.mark.parametrize("setting", ["token_average", "redistribution", "widening"])
def test_each_part_of_the_loss_says_something_alone(setting):
    on = recipes.hapo(**{**OFF, setting: {"token_average": True}.get(setting, 1.0)})
    assert loss(on).item() != pytest.approx(loss(recipes.dapo(0.2, 0.2)).item(), abs=1e-6)


def test_tempering_says_something_alone():
    on = recipes.hapo(**{**OFF, "tempering": 0.05})
    assert loss(on).item() == loss(recipes.dapo(0.2, 0.2)).item()
    on.prepare(batch()[0])
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    torch.testing.assert_close(on.sampler.tempered(logits), logits / torch.tensor([[1.05], [0.95]]))


def test_the_published_numbers_are_its_defaults_and_it_is_written_and_read_back():
    recipe = recipes.hapo()
    gate = recipe.objective.gate
    assert (recipe.sampler.tempering.strength, gate.strength, gate.of.widening) == (0.05, 1.0, 1.0)
    assert (gate.of.low, gate.of.high, gate.of.dual) == (0.2, 0.2, 10.0)
    assert {gate.quantile, gate.of.quantile, recipe.sampler.tempering.quantile} == {0.8}
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_released_sign_is_one_setting_for_all_parts():
    recipe = recipes.hapo(below="positive")
    assert {recipe.sampler.tempering.below, recipe.objective.gate.below, recipe.objective.gate.of.below} == {"positive"}
    assert loss(recipe).item() != pytest.approx(loss(recipes.hapo()).item(), abs=1e-6)
