"""Conflict between components of a reward, and what each weighs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import Conflict, TabularMDP, ToolRules, conflict, effective_weights, tool_game
from stratagem.lab.problems import GameProblem, MDPProblem


def bandit(*rewards: list[float], weights: tuple[float, ...]) -> MDPProblem:
    names = [f"J{number}" for number in range(1, len(rewards) + 1)]
    tables = {name: torch.tensor([row], dtype=torch.float64) for name, row in zip(names, rewards, strict=True)}
    mdp = TabularMDP.bandit(torch.zeros(len(rewards[0])))
    return MDPProblem.of(mdp, tables, dict(zip(names, weights, strict=True)))


def test_a_compromise_that_is_best_for_neither():
    """J1 = (1, 0, 0.6), J2 = (0, 1, 0.6), half and half: the third action earns 0.6, each alone 1."""
    found = conflict(bandit([1, 0, 0.6], [0, 1, 0.6], weights=(0.5, 0.5)))
    assert (found.joint, found.alone) == (pytest.approx(0.6), (1, 1))
    assert found.delta == pytest.approx(0.4)
    # Who learns the first component only takes the first action.
    assert found.loss((1, 0)) == pytest.approx(0.1) and found.bound((1, 0)) == pytest.approx(0.5)


def test_one_policy_best_for_all_is_no_conflict():
    assert conflict(bandit([1, 0], [0.5, 0.2], weights=(1.0, 3.0))).delta == pytest.approx(0)
    assert conflict(bandit([1, 0, 0.6], weights=(2.0,))).delta == pytest.approx(0)
    # What weighs nothing is in nobody's way.
    assert conflict(bandit([1, 0], [0, 1], weights=(1.0, 0.0))).delta == pytest.approx(0)


def test_tools_that_fail_bring_accuracy_and_executability_into_conflict():
    """One prompt that needs a call: without one, executability is 1; with two if need be, accuracy 0.96 + 0.04 / 2.

    The best sum is 2.86, as worked out for the game.
    """
    assert conflict(GameProblem.of(tool_game(ToolRules(success=(1.0,) * 3)))).delta == pytest.approx(0)
    found = conflict(GameProblem.of(tool_game(ToolRules(needs=(1,)))))
    assert found.alone == pytest.approx((0.98, 1, 1))
    assert found.delta == pytest.approx(2.98 - 2.86)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), weights=st.tuples(*[st.floats(0, 3)] * 3))
def test_no_policy_loses_more_than_its_components_do(seed, weights):
    mdp = TabularMDP.random(seed)
    rewards = {name: TabularMDP.random(seed + place).reward for place, name in enumerate("abc")}
    problem = MDPProblem.of(mdp, rewards, dict(zip("abc", weights, strict=True)))
    found = conflict(problem)
    assert found.delta >= -1e-9
    source = torch.Generator().manual_seed(seed)
    for _ in range(5):
        policy = torch.softmax(3 * torch.randn((5, 3), generator=source, dtype=torch.float64), -1)
        earned = problem.returns(policy).tolist()
        assert -1e-9 <= found.loss(earned) <= found.bound(earned) + 1e-9
        assert found.bound(earned) == pytest.approx(found.loss(earned) + found.delta)


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match=r"weight of reward 'J2' = -1.0: must be at least 0"):
        conflict(bandit([1, 0], [0, 1], weights=(1.0, -1.0)))
    with pytest.raises(InputError, match="must be at least 0"):
        Conflict(("a",), (-1.0,), 0.0, (1.0,))


def test_standardised_components_weigh_by_their_spread():
    """Sample deviations: of (1, 1, 0, 0) sqrt(1/3), of (0.2, 0, 0, 0) 0.1; the second group has no spread at all."""
    reward = torch.tensor([[1, 0.2], [1, 0], [0, 0], [0, 0], [1, 0.5], [1, 0.5]])
    x = Experience.from_lengths([1] * 6, [1] * 6, [4, 2], reward=reward, reward_weights=(1.0, 2.0))
    found = effective_weights(x)
    assert found == {"reward_0": pytest.approx(math.sqrt(3)), "reward_1": pytest.approx(20)}
    assert effective_weights(x, correction=0)["reward_0"] == pytest.approx(2)
    assert effective_weights(x.select(torch.tensor([4, 5]))) == {"reward_0": 0, "reward_1": 0}
    with pytest.raises(ValueError, match=r"needs x\.reward"):
        effective_weights(x.replace(reward=None))
