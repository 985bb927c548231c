"""Recipes of the theory: what they are against their base, and the exact facts the theory rests on."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.advantages import GroupCentered
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Outcome, PolicyCliff, TokenGame, Tree, over
from stratagem.recipe import Recipe

REWARDS = ((1.0, 0.0), (0.0, 0.5), (0.5, 0.5))


@pytest.fixture(scope="module")
def arms() -> Exact:
    """Three arms with two rewards, at an uneven policy."""

    def pull(state: str, tokens: tuple[int, ...]) -> list[Outcome]:
        first, second = REWARDS[tokens[0]]
        return over(first, second=second)

    game = TokenGame("arms", "", 3, ((1.0, "start"),), pull, ("first", "second"), (1.0, 2.0))
    return Exact(Tree.enumerate(game), torch.tensor([[0.2, -0.3, 0.5]], dtype=torch.float64))


def expected_update(recipe: Recipe, policy: Exact, size: int) -> torch.Tensor:
    """Minus the gradient of the loss by the logits, over every group there is."""
    total = torch.zeros_like(policy.logits)
    for group in itertools.product(range(3), repeat=size):
        x = policy.tree.leaves.select(torch.tensor(group))
        logits = policy.logits.clone().requires_grad_()
        logp = torch.log_softmax(logits, -1)[0, x.action]
        x = recipe.prepare(x.replace(behavior_logp=logp.detach().float()))
        recipe.objective(PolicyOutput(logp), x).loss.backward()
        total -= math.prod(float(policy.leaf_probability[arm]) for arm in group) * logits.grad
    return total


@pytest.mark.parametrize(("size", "share"), [(2, 0.5), (4, 0.75)])
def test_a_baseline_with_the_own_answer_shrinks_the_gradient(arms, size, share):
    """``E = (1 - 1/G) grad J`` of the composite reward, whether components are credited together or apart."""
    for recipe in (recipes.grpo(), recipes.ta_mdp()):
        path = "advantage" if recipe.name == "grpo" else "advantage.of"
        centred = recipe.with_values({path: "group_centered"})
        found = expected_update(centred, arms, size)
        torch.testing.assert_close(found, share * arms.gradient, atol=1e-6, rtol=1e-5)


def test_standardised_components_are_another_update_than_the_standardised_sum(arms):
    joint, apart = (expected_update(recipe, arms, 3).flatten() for recipe in (recipes.grpo(), recipes.ta_mdp()))
    assert float(torch.cosine_similarity(joint, apart, dim=0)) < 0.999


def test_ta_mdp_is_grpo_with_credit_per_component():
    changes = {change.path.split(".")[0] for change in recipes.ta_mdp().diff(recipes.grpo())}
    assert changes == {"advantage"}
    x = Experience.from_lengths([2, 1, 3, 1], [1] * 4, [4], reward=[1.0, 0, 0.5, 0])
    assert torch.equal(recipes.ta_mdp().advantage(x), recipes.grpo().advantage(x))
    card = catalogue.card("ta_mdp")
    assert (card.base, card.arxiv, card.family, card.roles) == ("grpo", "2604.19857", "objectives", ("advantage",))
    assert recipes.ta_mdp(group_size=4).sampler.group_size == 4


def test_the_weights_of_the_task_can_be_replaced():
    reward = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=reward)
    only_second = recipes.ta_mdp(weights=(0.0, 1.0)).prepare(x).advantage
    alone = recipes.grpo().prepare(x.replace(reward=reward[:, 1], reward_names=("b",), reward_weights=(1.0,))).advantage
    torch.testing.assert_close(only_second, alone)
    recipe = recipes.ta_mdp(weights=(0.5, 1.0))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    with pytest.raises(InputError, match="must be one for each of the rewards"):
        recipes.ta_mdp(weights=(1.0,)).prepare(x)


def test_sums_apart_may_be_built_from_the_command_line():
    recipe = recipes.grpo().with_values({"advantage": "per_reward", "advantage.of": "group_centered"})
    assert recipe.advantage.of == GroupCentered()


def test_the_policy_cliff_is_a_diagnostic_and_no_recipe():
    card = catalogue.card("policy_cliff")
    assert card.build is PolicyCliff and card.roles == ("diagnostic",) and card.base is None
    assert "jumps" in card.summary
    with pytest.raises(InputError, match="is not a recipe but of type PolicyCliff"):
        card.recipe()
