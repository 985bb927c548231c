"""Tabular processes: by hand, by enumerating all policies, and one way of solving against the other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.lab import TabularMDP
from stratagem.lab.mdp import choice, soft_maximum

SEEDS = st.integers(0, 2**31)
TEMPERATURES = st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0])


def close(found: torch.Tensor, expected: object, **tolerance: float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), **tolerance)


@pytest.fixture
def two_rooms() -> TabularMDP:
    """Room 0: action 0 stays and earns 1, action 1 goes to room 1 for nothing. Room 1: both stay, earning 3 and 0."""
    transition = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]]])
    return TabularMDP(transition, torch.tensor([[1.0, 0], [3, 0]]), 0.5)


def test_two_rooms_by_hand(two_rooms):
    """Room 1 is worth 3 / (1 - 1/2) = 6; so going there 3, and staying 1 + 3 / 2."""
    close(two_rooms.optimal_values(), [[2.5, 3], [6, 3]])
    close(two_rooms.reach, [[2.0, 2], [2, 2]])
    stay = torch.tensor([[1.0, 0], [0.5, 0.5]])
    close(two_rooms.policy_values(stay), [2.0, 3])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, temperature=TEMPERATURES, discount=st.sampled_from([0.0, 0.5, 0.9]))
def test_policy_iteration_and_value_iteration_agree(seed, temperature, discount):
    mdp = TabularMDP.random(seed, discount=discount)
    close(mdp.value_iteration(temperature=temperature), mdp.optimal_values(temperature=temperature), atol=2e-9, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_no_deterministic_policy_is_better_than_the_best(seed):
    mdp = TabularMDP.random(seed, states=3, actions=2)
    every = torch.tensor(list(itertools.product(range(2), repeat=3)))
    values = mdp.policy_values(torch.nn.functional.one_hot(every, 2))
    close(mdp.optimal_values().amax(-1), values.amax(0), atol=1e-10, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, temperature=st.sampled_from([1e-3, 0.1, 1.0]))
def test_the_soft_policy_is_the_best_one_with_an_entropy_bonus(seed, temperature):
    mdp = TabularMDP.random(seed)
    values = mdp.optimal_values(temperature=temperature)

    def regularised(policy: torch.Tensor) -> torch.Tensor:
        bonus = temperature * torch.special.entr(policy).sum(-1, keepdim=True)
        return mdp.policy_values(policy, mdp.reward + bonus)

    best = soft_maximum(values, temperature)
    close(regularised(choice(values, temperature)), best, atol=1e-9, rtol=0)
    other = torch.softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double(), -1)
    assert bool((regularised(other) <= best + 1e-9).all())


@pytest.mark.parametrize("temperature", [1e-6, 1e-8])
def test_small_temperatures_do_not_overflow(temperature):
    mdp = TabularMDP.random(1)
    soft, hard = mdp.optimal_values(temperature=temperature), mdp.optimal_values()
    assert bool((soft >= hard - 1e-9).all())
    assert bool((soft <= hard + temperature * math.log(3) * 10 + 1e-9).all())


def test_rewards_solved_together_are_as_solved_alone():
    mdp = TabularMDP.random(0)
    rewards = torch.stack([TabularMDP.random(seed).reward for seed in range(1, 5)])
    for temperature in (0.0, 0.1):
        together = mdp.optimal_values(rewards, temperature)
        for number, reward in enumerate(rewards):
            close(together[number], mdp.optimal_values(reward, temperature))
            close(together[number], TabularMDP(mdp.transition, reward, 0.9).optimal_values(temperature=temperature))
    assert mdp.optimal_values(rewards.view(2, 2, 5, 3)).shape == (2, 2, 5, 3)


def test_a_finite_horizon_is_solved_backwards(two_rooms):
    """The last step: 1 and 3. The one before: stay 1 + 1 or go 0 + 3, and 3 + 3. The first: 1 + 3 or 0 + 6."""
    mdp = TabularMDP.finite(two_rooms.transition, two_rooms.reward, 3)
    values = mdp.optimal_values().view(3, 2, 2)
    close(values.amax(-1), [[6.0, 9], [3, 6], [1, 3]])
    close(values[0, 0], [4.0, 6])
    close(mdp.reach.view(3, 2, 2)[:, 0, 0], [3.0, 2, 1])
    discounted = TabularMDP.finite(two_rooms.transition, two_rooms.reward, 3, discount=0.5)
    close(discounted.reach.view(3, 2, 2)[:, 0, 0], [1.75, 1.5, 1])


def test_a_bandit_is_worth_its_best_arm():
    bandit = TabularMDP.bandit(torch.tensor([1.0, 4, 2]))
    close(bandit.optimal_values(), [[1.0, 4, 2]])
    close(bandit.reach, [[1.0, 1, 1]])
    close(choice(bandit.optimal_values(temperature=2.0), 2.0), torch.softmax(torch.tensor([[0.5, 2, 1]]).double(), -1))


def test_a_policy_is_followed_to_where_it_may_come():
    transition = torch.zeros(3, 2, 3)
    transition[0, 0, 1], transition[0, 1, 2] = 1, 1
    mdp = TabularMDP(transition, torch.zeros(3, 2))
    start = torch.tensor([True, False, False])
    left = torch.tensor([[1.0, 0], [0.5, 0.5], [0.5, 0.5]])
    assert mdp.visited(left, start).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: TabularMDP(torch.zeros(2, 2, 3), torch.zeros(2, 2)), "transition has shape"),
        (lambda: TabularMDP(torch.zeros(2, 2, 2), torch.zeros(2, 3)), r"reward has shape \(2, 3\): must be \(2, 2\)"),
        (lambda: TabularMDP(torch.zeros(2, 2, 2), torch.full((2, 2), math.nan)), "reward: must be finite"),
        (lambda: TabularMDP(torch.ones(2, 2, 2), torch.zeros(2, 2)), "add up to at most 1"),
        (lambda: TabularMDP(-torch.ones(2, 2, 2), torch.zeros(2, 2)), "at least 0"),
        (lambda: TabularMDP(torch.zeros(2, 2, 2), torch.zeros(2, 2), 1.5), r"discount = 1.5: must be in \[0, 1\]"),
        (lambda: TabularMDP(torch.full((2, 2, 2), 0.5), torch.zeros(2, 2)), "could go on forever"),
        (lambda: TabularMDP.finite(torch.zeros(2, 2, 2), torch.zeros(2, 2), 0), "horizon = 0: must be at least 1"),
        (lambda: TabularMDP.random(0).optimal_values(torch.zeros(3, 3)), r"reward has shape \(3, 3\)"),
        (lambda: TabularMDP.random(0).optimal_values(torch.full((5, 3), math.inf)), "must be finite"),
        (lambda: TabularMDP.random(0).value_iteration(tolerance=0), "tolerance = 0: must be above 0"),
    ],
)
def test_what_is_no_process_is_refused_in_one_line(build, problem):
    with pytest.raises(InputError, match=problem) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-300, 1e-200, 1e200])
@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_rewards_next_to_nothing_and_huge_ones_are_solved_as_well(scale, temperature):
    """Below the least normal number rounding is no share of a value any more, and nothing may wait for it to shrink."""
    for seed in range(20):
        mdp = TabularMDP.random(seed)
        values = mdp.optimal_values(scale * mdp.reward, temperature * scale)
        assert bool(values.isfinite().all())
        if scale > 1e-250:
            torch.testing.assert_close(
                values / scale, mdp.optimal_values(temperature=temperature), rtol=1e-8, atol=1e-8
            )
