"""Advantages scaled by a density of success rates: numbers worked by hand, the density's optimum, edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stratagem.advantages import BetaNormalized, GroupCentered, GroupStandardized, LeaveOneOut, PerReward
from stratagem.advantages.rates import log_beta_density
from stratagem.errors import InputError
from stratagem.experience import Experience


def batch(*successes: int, size: int, **fields) -> Experience:
    """Groups of one-token answers, of which so many are right, the right ones first."""
    rewards = [float(i < right) for right in successes for i in range(size)]
    rows = len(rewards)
    return Experience.from_lengths(
        [1] * rows, [1] * rows, [size] * len(successes), reward=torch.tensor(rewards, dtype=torch.float64), **fields
    )


def second_moment(a: float, b: float, alpha: float, beta: float) -> float:
    """``E[p (1 - p) / f(p; alpha, beta)^2]`` for ``p ~ Beta(a, b)``, by sums over a fine grid of ``p``."""
    nodes = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    inner = nodes * (1 - nodes) * (log_beta_density(nodes, a, b) - 2 * log_beta_density(nodes, alpha, beta)).exp()
    return float(inner.mean())


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_three_rates_around_a_half_fit_the_shape_of_grpo():
    x = batch(1, 2, 3, size=4)
    assert BetaNormalized().shape_for(x) == pytest.approx((1.5, 1.5))
    found = BetaNormalized()(x)
    assert float(found[0]) == pytest.approx(0.68017, abs=1e-5)
    assert float(found[4]) == pytest.approx(math.pi / 8) == pytest.approx(0.39270, abs=1e-5)
    torch.testing.assert_close(found, math.pi / 8 * GroupStandardized(correction=0, eps=0)(x))


def test_rates_that_lean_to_failure_fit_a_lopsided_shape():
    x = batch(1, 2, 6, size=10)
    alpha, beta = BetaNormalized().shape_for(x)
    assert (alpha, beta) == pytest.approx((1.2, 1.46667), abs=1e-5)
    found = BetaNormalized()(x)
    expected = [0.9 / 1.11146, 0.8 / 1.20845, 0.4 / 1.08936]
    assert found[[0, 10, 20]].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.5, 1.5), (1.2, 1.4667), (1.0, 2.5), (30.0, 7.0)])
def test_the_density_is_the_beta_density(alpha, beta):
    rates = torch.linspace(0, 1, 21, dtype=torch.float64)
    expected = torch.from_numpy(stats.beta(alpha, beta).pdf(rates.numpy()))
    torch.testing.assert_close(log_beta_density(rates, alpha, beta).exp(), expected, rtol=1e-9, atol=1e-12)


# ---- what it comes down to ------------------------------------------------------------------------------------------

SUCCESSES = st.lists(st.integers(0, 6), min_size=1, max_size=8)


@settings(deadline=None)
@given(SUCCESSES)
def test_the_shape_of_ones_is_group_centering_bit_for_bit(successes):
    for precision in (torch.float32, torch.float64):
        x = batch(*successes, size=6)
        x = x.replace(reward=x.reward.to(precision))
        assert torch.equal(BetaNormalized(shape=(1, 1))(x), GroupCentered()(x))


@settings(deadline=None)
@given(SUCCESSES)
def test_the_shape_of_three_halves_is_grpo_by_the_populations_deviation(successes):
    x = batch(*successes, size=6)
    expected = math.pi / 8 * GroupStandardized(correction=0, eps=0)(x)
    torch.testing.assert_close(BetaNormalized(shape=(1.5, 1.5))(x), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(SUCCESSES)
def test_every_group_adds_up_to_nothing_and_one_of_equal_rewards_gets_exactly_nothing(successes):
    x = batch(*successes, size=6)
    found = BetaNormalized()(x)
    assert bool(found.isfinite().all())
    assert x.group_of_token.sum(found).abs().max() < 1e-9
    alike = x.group_of_token.spread(torch.tensor([right in (0, 6) for right in successes]))
    assert not found[alike].any()


def test_the_fitted_shape_has_the_least_second_moment():
    assert second_moment(2, 1, 1, 1) == pytest.approx(0.16667, abs=1e-4)
    assert second_moment(2, 1, 1.5, 1.5) == pytest.approx(0.15421, abs=1e-4)
    best = second_moment(2, 1, 1 + 2 / 3, 1 + 1 / 3)
    assert best == pytest.approx(0.13097, abs=1e-4)
    grid = [1 + step / 5 for step in range(5)]
    assert best <= min(second_moment(2, 1, alpha, beta) for alpha in grid for beta in grid) + 1e-6


@pytest.mark.parametrize(("a", "b"), [(2.0, 1.0), (1.5, 1.5), (4.0, 2.0)])
def test_the_second_moment_of_grpos_shape_is_the_same_for_all_rates(a, b):
    assert second_moment(a, b, 1.5, 1.5) == pytest.approx((math.pi / 8) ** 2, rel=1e-4)


def test_rates_of_a_beta_distribution_give_its_parameters_back():
    source = torch.distributions.Beta(torch.tensor(0.6).double(), torch.tensor(2.4).double())
    torch.manual_seed(1000)
    rates = source.sample((100_000,))
    x = Experience.from_lengths([1] * 100_000, [1] * 100_000, [1] * 100_000, reward=rates)
    assert BetaNormalized().shape_for(x) == pytest.approx((1 + 0.6 / 3, 1 + 2.4 / 3), abs=0.02)


@settings(deadline=None, max_examples=30)
@given(SUCCESSES, st.integers(0, 99))
def test_only_groups_matter_and_not_where_their_rows_are(successes, seed):
    x = batch(*successes, size=6)
    order = torch.randperm(x.trajectories, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(BetaNormalized()(x.select(order)), BetaNormalized()(x)[order])


def test_a_reward_of_another_range_is_brought_to_zero_and_one():
    x = batch(1, 2, 6, size=10)
    signed = x.replace(reward=2 * x.reward - 1)
    torch.testing.assert_close(BetaNormalized(low=-1, high=1)(signed), BetaNormalized()(x))


# ---- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("successes", [(2,), (0, 0), (4, 4, 4), (3, 3)])
def test_rates_without_spread_leave_the_centered_reward(successes):
    x = batch(*successes, size=4)
    assert BetaNormalized().shape_for(x) == (1.0, 1.0)
    assert torch.equal(BetaNormalized()(x), GroupCentered()(x))


def test_rates_that_differ_by_rounding_count_as_equal():
    reward = torch.tensor([0.3, 0.3, 0.3, 0.3 + 1e-7], dtype=torch.float64)
    x = Experience.from_lengths([1] * 4, [1] * 4, [2, 2], reward=reward)
    assert BetaNormalized().shape_for(x) == (1.0, 1.0)


def test_rates_that_spread_more_than_any_beta_density_leave_the_centered_reward():
    # v = 1/2 and m (1 - m) = 1/4.
    assert BetaNormalized().shape_for(batch(0, 4, size=4)) == (1.0, 1.0)


def test_nearly_equal_rates_make_the_step_small():
    # What follows from dividing by a density: it is high where the rates are.
    wide, narrow = BetaNormalized()(batch(25, 50, 75, size=100)), BetaNormalized()(batch(49, 50, 51, size=100))
    assert float(narrow[100]) < float(wide[100]) / 10


def test_a_group_of_one_gets_nothing():
    x = Experience.from_lengths([1] * 3, [1] * 3, [1, 1, 1], reward=[1.0, 0.0, 1.0])
    assert BetaNormalized()(x).tolist() == [0, 0, 0]
    assert BetaNormalized().least_group() == 2


def test_groups_that_a_selection_emptied_are_no_rates():
    x = batch(1, 2, 3, size=4)
    emptied = x.select(torch.arange(8))
    assert BetaNormalized().shape_for(emptied) == BetaNormalized().shape_for(batch(1, 2, size=4))


def test_rounding_beyond_the_range_is_allowed():
    x = Experience.from_lengths([1] * 4, [1] * 4, [2, 2], reward=[0.0, 1.0000001, 0.0, 0.0])
    assert BetaNormalized(shape=(1, 1))(x).tolist() == [-0.5, 0.5, 0, 0]


@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan])
def test_a_return_out_of_range_is_refused_by_its_group(bad):
    x = batch(1, 1, size=2, task_id=torch.tensor([7, 9]))
    reward = x.reward.clone()
    reward[3] = bad
    expected = (
        rf"beta_normalized: trajectory 3 of group 1 \(task 9\) has return {bad}: must be between low = 0 and high"
    )
    with pytest.raises(InputError, match=expected):
        BetaNormalized()(x.replace(reward=reward))


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"beta_normalized\.high = 0\.0: must be above low = 0\.0"):
        BetaNormalized(high=0)
    with pytest.raises(InputError, match=r"beta_normalized\.shape = \(0\.5, 1\)"):
        BetaNormalized(shape=(0.5, 1))
    with pytest.raises(InputError, match=r"beta_normalized\.largest = inf"):
        BetaNormalized(largest=math.inf)


# ---- by column ------------------------------------------------------------------------------------------------------


def columns(*rewards: list[float], weights: tuple[float, ...]) -> Experience:
    """Two groups of two."""
    return Experience.from_lengths(
        [1] * 4, [1] * 4, [2, 2], reward=torch.tensor(rewards, dtype=torch.float64).T, reward_weights=weights
    )


def test_a_constant_column_halves_the_mean_of_two():
    right, form = [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]
    alone = BetaNormalized()(columns(right, weights=(1.0,)))
    part = PerReward(BetaNormalized(), mean=True)
    assert torch.equal(part(columns(right, form, weights=(1.0, 1.0))), alone / 2)
    assert torch.equal(part(columns(right, weights=(1.0,))), alone)


def test_a_mean_weighs_columns_by_their_share_of_the_weights():
    x = columns([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], weights=(3.0, -1.0))
    expected = (3 * LeaveOneOut()(x.replace(reward=x.reward[:, 0], reward_names=("a",), reward_weights=(1.0,)))) / 4
    expected -= LeaveOneOut()(x.replace(reward=x.reward[:, 1], reward_names=("b",), reward_weights=(1.0,))) / 4
    torch.testing.assert_close(PerReward(LeaveOneOut(), mean=True)(x), expected)


def test_a_column_that_is_only_noted_may_hold_anything():
    x = columns([1.0, 0.0, 1.0, 1.0], [7.0, -3.0, 40.0, 2.0], weights=(1.0, 0.0))
    alone = columns([1.0, 0.0, 1.0, 1.0], weights=(1.0,))
    assert torch.equal(PerReward(BetaNormalized(), mean=True)(x), BetaNormalized()(alone))
    nothing = x.replace(reward_weights=(0.0, 0.0))
    assert PerReward(mean=True)(nothing).tolist() == PerReward()(nothing).tolist() == [0, 0, 0, 0]
