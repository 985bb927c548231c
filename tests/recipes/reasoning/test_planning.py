"""HICRA through its recipe and the lab: the numbers, where it is GRPO, and the update it makes in expectation."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Outcome, TokenGame
from stratagem.lab.game import over
from stratagem.lab.tree import Tree
from stratagem.recipe import Recipe
from stratagem.recipes import grpo, hicra

PLANS = hicra().with_values({"advantage.by": "phrases"})


def batch(**fields) -> Experience:
    source = torch.Generator().manual_seed(0)
    return Experience.from_lengths(
        [3] * 8,
        [1] * 8,
        [4, 4],
        reward=torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 1]),
        behavior_logp=-torch.rand(24, generator=source, dtype=torch.float64),
        **fields,
    )


def gradient(recipe: Recipe, x: Experience) -> torch.Tensor:
    x = recipe.prepare(x)
    logp = x.behavior_logp.clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


def test_it_is_grpo_with_another_advantage():
    assert {change.path.split(".")[0] for change in hicra().diff(grpo())} == {"advantage"}
    assert (hicra().advantage.alpha, hicra().advantage.top) == (0.2, 0.3)
    named = hicra("grams.json")
    assert (named.sampler.phrases, named.advantage.by) == ("grams.json", "phrases")
    assert named.advantage.needs() == {"planning"} and hicra().advantage.needs() == {"entropy"}
    for recipe in (hicra(), named):
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert catalogue.card("hicra").arxiv == "2509.03646"


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_the_gradient_is_grpos_and_that_of_what_was_added(alpha):
    planning = torch.arange(24) % 3 == 0
    x = batch(planning=planning)
    base = grpo().prepare(x)
    extra = -alpha * (planning * base.advantage.abs()) / 24
    # Answers are of one length, so the mean over answers of means over tokens is the mean over tokens.
    torch.testing.assert_close(
        gradient(PLANS.with_values({"advantage.alpha": alpha}), x), gradient(grpo(), x) + extra.double()
    )


def test_without_strength_or_phrases_it_is_grpo_exactly():
    x = batch(planning=torch.zeros(24, dtype=torch.bool), entropy=torch.rand(24))
    assert torch.equal(gradient(PLANS, x), gradient(grpo(), x))
    assert torch.equal(gradient(hicra(alpha=0.0), x), gradient(grpo(), x))
    assert not torch.equal(gradient(hicra(), x), gradient(grpo(), x))


def test_bad_strengths_and_missing_marks_are_refused():
    with pytest.raises(InputError, match=r"planning_raised\.alpha = 1\.5"):
        hicra(alpha=1.5)
    with pytest.raises(ValueError, match="recipe hicra reads planning, which this experience does not have"):
        hicra("grams.json").prepare(batch())


# ---- in the lab -----------------------------------------------------------------------------------------------------


def _two_tokens(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    return None if len(tokens) < 2 else over(float(tokens in ((0, 1), (1, 0), (1, 1))))


def _plan_first(state: str, tokens: tuple[int, ...]) -> tuple[bool, ...]:
    return True, False


GAME = TokenGame("plan_and_do", "A token that plans and one that does.", 2, ((1.0, "start"),), _two_tokens,
                 planning=_plan_first)  # fmt: skip


def test_the_lab_marks_the_tokens_of_which_the_game_says_that_they_plan():
    leaves = Tree.enumerate(GAME).leaves
    assert leaves.planning.tolist() == [True, False] * 4
    bad = TokenGame("bad", "One too few.", 2, GAME.starts, _two_tokens, planning=lambda state, tokens: (True,))
    with pytest.raises(InputError, match=r"game bad: planning says 1 of \(0, 0\); must be one for each"):
        Tree.enumerate(bad)


def test_the_expected_update_differs_from_grpos_by_what_the_plans_are_raised():
    """Over all groups of three answers there are, by their probabilities: ``alpha E[|A| (e - pi)]`` at the plan."""
    tree = Tree.enumerate(GAME)
    policy = Exact(tree, torch.tensor([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.2]], dtype=torch.float64))
    choices = torch.cartesian_prod(*[torch.arange(4)] * 3)
    odds = policy.leaf_probability[choices].prod(1)
    x = tree.leaves.select(choices.flatten())
    x = Experience.from_lengths(
        [2] * x.trajectories, [1] * x.trajectories, [3] * len(choices), reward=x.returns.double(), planning=x.planning
    )
    advantages = [recipe.advantage(x).view(-1, 3, 2) for recipe in (PLANS, grpo())]
    first = tree.action.view(4, 2)[choices][..., 0]
    score = torch.nn.functional.one_hot(first, 2) - policy.logits[0].softmax(-1)

    def update(credit: torch.Tensor) -> torch.Tensor:
        return torch.einsum("g,gi,giv->v", odds, credit, score)

    difference = update(advantages[0][..., 0]) - update(advantages[1][..., 0])
    expected = 0.2 * update(advantages[1][..., 0].abs())
    torch.testing.assert_close(difference, expected)
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(advantages[0][..., 1], advantages[1][..., 1])
