"""The truth, by hand, by autograd, by finite differences, and by summing over every group there is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.lab import GAMES, Exact, Tree
from stratagem.lab.exact import optimal_values

EVERY_GAME = pytest.mark.parametrize("tree", [Tree.enumerate(game) for game in GAMES.values()], ids=list(GAMES))


def expected_return(tree: Tree, logits: torch.Tensor) -> torch.Tensor:
    """The definition, differentiable."""
    logp = torch.log_softmax(logits, -1)[tree.node, tree.action]
    total = torch.zeros(tree.leaves.trajectories, dtype=torch.float64)
    total = total.index_add(0, tree.leaves.trajectory_of_token.labels, logp)
    return (tree.chance * total.exp() * tree.leaves.returns.double()).sum()


def test_two_bits_by_hand(both):
    close = torch.testing.assert_close
    float64 = torch.float64
    close(both.leaf_probability, torch.tensor([1 / 8, 1 / 8, 3 / 8, 3 / 8], dtype=float64))
    assert both.expected_return == pytest.approx(3 / 8) and both.success == pytest.approx(3 / 8)
    assert both.return_std == pytest.approx(math.sqrt(3 / 8 * 5 / 8))
    assert both.length == pytest.approx(2) and both.turns == pytest.approx(1)
    close(both.value, torch.tensor([3 / 8, 0, 1 / 2], dtype=float64))
    close(both.node_probability, torch.tensor([1, 1 / 4, 3 / 4], dtype=float64))
    # dJ/dlogit of an action is P(node) pi(a) (Q(a) - V): at the root 3/4 (1/2 - 3/8), after a one 3/4 * 1/2 (1 - 1/2).
    close(both.gradient, torch.tensor([[-3 / 32, 3 / 32], [0, 0], [-3 / 16, 3 / 16]], dtype=float64))
    first = math.log(4) - 3 / 4 * math.log(3)
    assert both.entropy == pytest.approx((first + math.log(2)) / 2)
    close(optimal_values(both.tree), torch.tensor([[0, 1], [0, 0], [0, 1]], dtype=float64))


@EVERY_GAME
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 30))
def test_leaves_have_probability_one_together(tree, seed, spread):
    policy = Exact(tree, tree.normal_logits(seed, spread))
    assert float(policy.leaf_probability.sum()) == pytest.approx(1, abs=1e-12)
    assert float(Exact.greedy(tree, policy.logits).leaf_probability.sum()) == pytest.approx(1, abs=1e-12)


@EVERY_GAME
def test_the_gradient_is_that_of_autograd_and_of_finite_differences(tree):
    policy = Exact(tree, tree.normal_logits(3))
    logits = policy.logits.clone().requires_grad_()
    value = expected_return(tree, logits)
    assert policy.expected_return == pytest.approx(float(value.detach()), abs=1e-12)
    torch.testing.assert_close(policy.gradient, torch.autograd.grad(value, logits)[0], atol=1e-12, rtol=0)
    direction = tree.normal_logits(4)
    ahead, behind = (expected_return(tree, policy.logits + h * direction) for h in (1e-4, -1e-4))
    assert float((policy.gradient * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-4, abs=1e-7)


@EVERY_GAME
def test_values_at_the_starts_average_to_the_expected_return(tree):
    policy = Exact(tree, tree.normal_logits(5))
    roots = tree.node[tree.leaves.trajectory_of_token.first()][tree.leaves.group_of_trajectory.first()]
    assert float(policy.start_probability @ policy.value[roots]) == pytest.approx(policy.expected_return)


@EVERY_GAME
def test_the_entropy_slope_is_that_of_autograd(tree):
    policy = Exact(tree, tree.normal_logits(6))
    logits = policy.logits.clone().requires_grad_()
    entropy = torch.special.entr(torch.softmax(logits, -1)).sum()
    torch.testing.assert_close(policy.entropy_slope, torch.autograd.grad(entropy, logits)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("four_by_four", 1),
        ("graded", 1),
        ("prompts", 1),
        ("length", 1),
        ("corridor", 1),
        ("windy", 0.8192),
        ("stopping", 2.5),
    ],
)
def test_optimal_play_by_hand(name, best):
    """``windy``: at least three of four steps go right, 0.8^4 + 4 * 0.8^3 * 0.2. ``stopping``: 2, 2, 1, 1."""
    tree = Tree.enumerate(GAMES[name])
    values = optimal_values(tree)
    assert float(values[0].max()) == pytest.approx(best)
    assert Exact.greedy(tree, values).expected_return == pytest.approx(best)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_noise_of_reinforce_is_that_over_all_groups_there_are(arms, size):
    policy = Exact(arms.tree, torch.tensor([[0.3, -0.2], [0.5, 0.1]]))
    tree, start = policy.tree, policy.tree.leaves.group_of_trajectory.labels
    reward = tree.leaves.returns.double() - policy.expected_return
    # One token each: the score of a leaf is its own.
    score = torch.zeros(tree.leaves.trajectories, tree.nodes, 2, dtype=torch.float64)
    score[torch.arange(len(score)), tree.node] = (
        torch.eye(2, dtype=torch.float64)[tree.action] - policy.logp.exp()[tree.node]
    )
    update, mean, square = reward[:, None, None] * score, 0.0, 0.0
    for group in itertools.product(range(len(score)), repeat=size):
        if len(set(start[list(group)].tolist())) == 1:
            odds = policy.start_probability[start[group[0]]] * math.prod(
                float(policy.leaf_probability[leaf] / policy.start_probability[start[leaf]]) for leaf in group
            )
            mean = mean + odds * update[list(group)].mean(0)
            square += float(odds * update[list(group)].mean(0).square().sum())
    torch.testing.assert_close(mean, policy.gradient)
    assert policy.reinforce_noise(size) == pytest.approx(square - float(mean.square().sum()))


def test_values_of_actions_average_to_the_value_and_the_median_splits_the_policy_in_halves():
    for name in ("windy", "stopping", "length"):
        tree = Tree.enumerate(GAMES[name])
        policy = Exact(tree, tree.normal_logits(3))
        met = policy.node_probability > 0
        average = (policy.logp.exp() * policy.action_value).sum(-1)
        torch.testing.assert_close(average[met], policy.value[met])
        below = (policy.logp.exp() * (policy.action_value <= policy.median[:, None] + 1e-12)).sum(-1)
        above = (policy.logp.exp() * (policy.action_value >= policy.median[:, None] - 1e-12)).sum(-1)
        assert bool((below >= 0.5 - 1e-9).all())
        assert bool((above >= 0.5 - 1e-9).all())
