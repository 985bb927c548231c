"""One batch has one gradient, however it is cut and in whatever order it comes: for every baseline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem import catalogue
from stratagem.experience import Experience
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.training.microbatches import microbatches

BASELINES = [card.name for card in catalogue.cards("baselines")]


@pytest.fixture(scope="module")
def policy(make_policy: Any) -> Any:
    return make_policy(seed=3)


@pytest.fixture(scope="module")
def batch(policy: Any, chatter: Any) -> Experience:
    """Five groups of four episodes of one to three turns, with what recipes read, all of it off policy."""
    from stratagem.language.hf_engine import HFEngine
    from stratagem.language.world import LanguageWorld

    world = LanguageWorld(chatter(), policy, HFEngine(policy), seed=0)
    x = world.collect(Rollouts(prompts_per_step=5, group_size=4), 0).x
    world.close()
    noise = torch.Generator().manual_seed(0)

    def near(values: Tensor) -> Tensor:
        return values + 0.2 * torch.randn(values.shape, generator=noise)

    logp = x.behavior_logp
    return x.replace(
        behavior_logp=near(logp), old_logp=near(logp), ref_logp=near(logp), value=near(logp), entropy=near(-logp)
    )


def gradient(policy: Any, recipe: Recipe, pieces: list[Experience]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Of the sum of the pieces' losses; and the sums of their metrics."""
    policy.zero_grad(set_to_none=True)
    needs, metrics = recipe.output_needs(), {}
    for piece in pieces:
        out = policy(piece, also=needs, view=recipe.view)
        loss = recipe.objective(out, piece)
        loss.loss.backward()
        for name, value in {"loss": loss.loss.detach(), **loss.metrics}.items():
            metrics[name] = metrics.get(name, 0.0) + float(value)
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}, metrics


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut_or_ordered(policy, batch, name):
    recipe = catalogue.card(name).recipe()
    x = recipe.prepare(batch)
    whole = gradient(policy, recipe, [x])
    assert max(float(value.abs().max()) for value in whole[0].values()) > 1e-4
    for count in (2, 8):
        pieces = [x.microbatch(chosen) for chosen in torch.arange(x.trajectories).tensor_split(count)]
        assert_same(gradient(policy, recipe, pieces), whole)
    order = torch.randperm(x.trajectories, generator=torch.Generator().manual_seed(1))
    assert_same(gradient(policy, recipe, [x.select(order)]), whole)
    assert_same(gradient(policy, recipe, microbatches(x.select(order), 100)), whole)


@pytest.mark.parametrize("name", BASELINES)
def test_credit_does_not_depend_on_the_order_of_the_batch(batch, name):
    recipe = catalogue.card(name).recipe()
    order = torch.randperm(batch.trajectories, generator=torch.Generator().manual_seed(2))
    # A recipe made anew has forgotten the batch before.
    again = catalogue.card(name).recipe()
    expected = recipe.prepare(batch)
    found = again.prepare(batch.select(order))
    assert found.trajectories == expected.trajectories
    key = expected.episode.argsort()[torch.argsort(found.episode.argsort())]
    torch.testing.assert_close(found.advantage, expected.select(key).advantage, rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_mask_hides_tokens_whatever_the_pieces(policy, batch, temperature):
    recipe = catalogue.card("dapo").recipe()
    mask = torch.arange(batch.tokens) % 3 != 0
    x = recipe.prepare(batch.replace(mask=mask))
    whole = gradient(policy, recipe, [x])
    assert_same(gradient(policy, recipe, microbatches(x, 100)), whole)
    garbage = x.replace(old_logp=torch.where(mask, x.old_logp, 50.0), advantage=torch.where(mask, x.advantage, 9e9))
    assert_same(gradient(policy, recipe, [garbage]), whole)
