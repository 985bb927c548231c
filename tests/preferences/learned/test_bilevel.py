"""Reward design in two levels: the gradient through the policy, by hand, against differences, and estimated."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.mdp import TabularMDP
from stratagem.preferences.learned import BilevelReward, score_gradient

EXACT = BilevelReward()


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def bandit(strength: float):
    """``V = pi.nu + lambda H(pi)``."""

    def lower(nu: Tensor, theta: Tensor) -> Tensor:
        policy = torch.softmax(theta, 0)
        return (policy * nu).sum() + strength * torch.special.entr(policy).sum()

    return lower


class Walk:
    """A random decision process whose policy is paid ``nu`` and entropy; what it is for is another reward."""

    def __init__(self, seed: int, states: int = 3, actions: int = 2, strength: float = 0.5) -> None:
        self.process = TabularMDP.random(seed, states, actions)
        self.wanted = torch.randn(states, actions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.shape, self.strength = (states, actions), strength

    def lower(self, nu: Tensor, theta: Tensor) -> Tensor:
        logp = theta.view(self.shape).log_softmax(-1)
        return self.process.policy_values(logp.exp(), nu.view(self.shape) - self.strength * logp).mean()

    def upper(self, nu: Tensor, theta: Tensor) -> Tensor:
        policy = theta.view(self.shape).softmax(-1)
        return 0.05 * nu.square().sum() - self.process.policy_values(policy, self.wanted).mean()

    def best(self, nu: Tensor) -> Tensor:
        return (self.process.optimal_values(nu.view(self.shape), self.strength) / self.strength).flatten()

    def outcome(self, nu: Tensor) -> float:
        return float(self.upper(nu, self.best(nu)))


def test_two_arms_by_hand():
    nu = vector(1, 0)
    found = EXACT.hypergradient(lambda _, theta: (theta.softmax(0)[0] - 0.5) ** 2, bandit(1.0), nu, nu)
    torch.testing.assert_close(found.total, vector(0.090858, -0.090858), atol=1e-6, rtol=0)
    assert found.direct.tolist() == [0.0, 0.0]
    assert found.unconverged < 1e-12


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_the_best_parameters_follow_the_reward_over_the_entropys_weight(strength):
    nu = vector(0.3, -0.2, 0.5, 0.1)
    theta = nu / strength
    for chosen in range(4):
        found = EXACT.hypergradient(lambda _, t, c=chosen: t[c], bandit(strength), nu, theta)
        expected = (torch.eye(4, dtype=torch.float64)[chosen] - 0.25) / strength
        torch.testing.assert_close(found.total, expected)


@pytest.mark.parametrize("seed", range(1000, 1005))
def test_the_gradient_is_what_solving_again_says(seed):
    walk, step = Walk(seed), 1e-5
    nu = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = EXACT.hypergradient(walk.upper, walk.lower, nu, walk.best(nu)).total
    moves = step * torch.eye(6, dtype=torch.float64)
    differences = vector(*[(walk.outcome(nu + move) - walk.outcome(nu - move)) / (2 * step) for move in moves])
    assert float((found - differences).norm() / differences.norm()) < 1e-4


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_a_small_step_down_makes_the_outcome_smaller(seed):
    walk, nu = Walk(seed, 4, 3), torch.zeros(12, dtype=torch.float64)
    found = EXACT.hypergradient(walk.upper, walk.lower, nu, walk.best(nu))
    assert walk.outcome(nu - 1e-3 * found.total) < walk.outcome(nu)


def test_conjugate_gradients_agree_and_the_identity_does_with_an_entropy_that_is_large():
    walk, nu = Walk(1000), torch.zeros(6, dtype=torch.float64)
    theta = walk.best(nu)
    exact = EXACT.hypergradient(walk.upper, walk.lower, nu, theta)
    close = BilevelReward("cg", damping=1e-9).hypergradient(walk.upper, walk.lower, nu, theta)
    torch.testing.assert_close(close.total, exact.total, rtol=1e-5, atol=1e-8)
    assert exact.residual < 1e-8 and close.residual < 1e-6
    rough = BilevelReward("identity", damping=0.5).hypergradient(walk.upper, walk.lower, nu, theta)
    assert float(torch.cosine_similarity(rough.implicit, exact.implicit, dim=0)) > 0.5
    assert rough.residual > 0.1


def test_data_that_is_not_the_policys_leaves_ordinary_reward_learning():
    features, label = torch.randn(20, 6, generator=torch.Generator().manual_seed(1)).double(), torch.ones(20).double()
    walk, nu = Walk(1000), torch.full((6,), 0.1, dtype=torch.float64)

    def fixed(reward: Tensor, theta: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(features @ reward, label) + 0.0 * theta.sum()

    found = EXACT.hypergradient(fixed, walk.lower, nu, walk.best(nu))
    assert found.implicit.tolist() == [0.0] * 6
    by_hand = -(features * torch.sigmoid(-features @ nu).unsqueeze(1)).mean(0)
    torch.testing.assert_close(found.total, by_hand)


def test_the_loop_designs_a_reward_whose_policy_does_what_is_wanted():
    walk = Walk(1003)
    design = BilevelReward(inner=50, policy_rate=0.5, reward_rate=0.5)
    outcomes = {}
    for implicit in (True, False):
        nu, theta = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
        for _ in range(15):
            nu, theta, found = design.step(walk.upper, walk.lower, nu, theta, implicit=implicit)
        outcomes[implicit] = walk.outcome(nu)
    assert outcomes[True] < walk.outcome(torch.zeros(6, dtype=torch.float64)) - 0.5
    assert outcomes[False] == pytest.approx(walk.outcome(torch.zeros(6, dtype=torch.float64)))
    assert found.unconverged < 0.1


def test_a_policy_that_is_not_trained_to_the_end_is_told():
    walk, nu = Walk(1000), vector(1, 0, 0, 0, 0, 0)
    far, near = torch.zeros(6, dtype=torch.float64), walk.best(nu)
    assert EXACT.hypergradient(walk.upper, walk.lower, nu, far).unconverged > 1e-2
    assert EXACT.hypergradient(walk.upper, walk.lower, nu, near).unconverged < 1e-10


# ---- estimated ------------------------------------------------------------------------------------------------------


def trajectories(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All of two actions each of two: their probability, their scores, and what they are worth."""
    policy = theta.view(2, 2).softmax(-1)
    chance, score, worth = [], [], []
    for first, second in itertools.product(range(2), repeat=2):
        rows = torch.stack([torch.eye(2)[first] - policy[0], torch.eye(2)[second] - policy[1]])
        chance.append(policy[0, first] * policy[1, second])
        score.append(rows.flatten())
        worth.append(1.0 * first - 2.0 * first * second + 0.5 * second)
    return torch.stack(chance), torch.stack(score), torch.tensor(worth, dtype=torch.float64)


@pytest.mark.parametrize("baseline", ["none", "others"])
def test_the_estimate_through_the_policy_is_unbiased(baseline):
    theta = vector(0.3, -0.1, 0.8, 0.2)
    exact = torch.func.grad(lambda t: (trajectories(t)[0] * trajectories(t)[2]).sum())(theta)
    chance, score, worth = trajectories(theta)
    mean = torch.zeros(4, dtype=torch.float64)
    for pair in itertools.product(range(4), repeat=2):
        rows = torch.tensor(pair)
        mean += chance[rows].prod() * score_gradient(worth[rows], score[rows], baseline)
    torch.testing.assert_close(mean, exact)


def test_a_baseline_makes_equal_utilities_say_nothing():
    score = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert score_gradient(torch.full((5,), 0.7, dtype=torch.float64), score).abs().max() < 1e-15


def test_an_estimate_takes_the_place_of_the_derivative():
    nu = vector(1, 0)
    given = EXACT.hypergradient(lambda n, _: n.sum(), bandit(1.0), nu, nu, through_policy=vector(1, 0))
    torch.testing.assert_close(given.implicit, vector(0.5, -0.5))
    torch.testing.assert_close(given.direct, vector(1, 1))


def test_bad_input_is_refused_in_one_line():
    for call, problem in (
        (lambda: BilevelReward(damping=0), "parl: damping=0 is not allowed"),
        (lambda: BilevelReward(solver="newton"), "parl: solver='newton' is not allowed"),
        (lambda: score_gradient(torch.ones(1), torch.ones(1, 3)), "two for a baseline"),
        (lambda: score_gradient(torch.ones(3), torch.ones(2, 3)), "a row for each"),
        (lambda: EXACT.hypergradient(lambda n, t: (n * math.inf * t).sum(), bandit(1.0), vector(1, 0), vector(1, 0)),
         "must be finite"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=problem):
            call()
