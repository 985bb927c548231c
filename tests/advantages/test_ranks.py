"""Credit by rank: the paper's worked examples, and what a map to normal quantiles may depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GaussianRanks, GroupStandardized, PerReward
from stratagem.errors import InputError
from stratagem.experience import Experience

OUTLIER = [0.1, 0.1, 0.1, 0.2, 1.0]


def answers(*groups: list[float], **fields) -> Experience:
    """Groups of one-token answers with these rewards, in float64."""
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=torch.float64)
    rows = len(rewards)
    return Experience.from_lengths([1] * rows, [1] * rows, [len(g) for g in groups], reward=rewards, **fields)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0, 0, 0, 0, 1], [-0.3204] * 4 + [1.2816]),
        ([0, 0, 1, 1, 1], [-0.9030] * 2 + [0.6020] * 3),
        (OUTLIER, [-0.6020] * 3 + [0.5244, 1.2816]),
        ([0.81, 0.81, 0.82, 0.82, 0.83], [-0.9030] * 2 + [0.2622] * 2 + [1.2816]),
        ([*OUTLIER[:4], 1000.0], [-0.6020] * 3 + [0.5244, 1.2816]),
    ],
)
def test_the_published_examples(rewards, expected):
    assert GaussianRanks()(answers(rewards)).tolist() == pytest.approx(expected, abs=6e-5)
    backwards = GaussianRanks()(answers(rewards[::-1])).tolist()
    assert backwards == pytest.approx(expected[::-1], abs=6e-5)


def test_one_success_in_eight_counts_less_than_in_grpo():
    x = answers([0.0] * 7 + [1.0])
    assert float(GaussianRanks()(x)[-1]) == pytest.approx(1.5341, abs=5e-5)
    assert float(GroupStandardized(0)(x)[-1]) == pytest.approx(2.6458, abs=1e-4)
    assert float((GaussianRanks()(x) ** 2).mean()) == pytest.approx(0.336, abs=1e-3)


grades = st.lists(st.integers(0, 5), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)
@given(first=grades, second=grades)
def test_ranks_add_up_to_zero_are_bounded_and_turn_around_with_the_reward(first, second):
    x = answers([r / 7 for r in first], [r / 7 for r in second])
    credit = GaussianRanks()(x)
    assert float(x.group_of_trajectory.sum(credit).abs().max()) < 1e-9
    for size, own in zip((len(first), len(second)), credit.split([len(first), len(second)]), strict=True):
        bound = float(torch.special.ndtri(torch.tensor(1 - 0.5 / size, dtype=torch.float64)))
        assert float(own.abs().max()) <= bound + 1e-12
    torch.testing.assert_close(GaussianRanks()(x.replace(reward=-x.reward)), -credit, atol=1e-12, rtol=0)
    for increasing in (torch.exp, lambda r: 100 * r + 7):
        torch.testing.assert_close(GaussianRanks()(x.replace(reward=increasing(x.reward))), credit)


def test_many_different_rewards_are_credited_by_a_standard_normal():
    source = torch.Generator().manual_seed(0)
    credit = GaussianRanks()(answers(torch.rand(1000, generator=source, dtype=torch.float64).tolist()))
    assert float(credit.mean()) == pytest.approx(0, abs=1e-12) and float(credit.std()) == pytest.approx(1, abs=0.01)
    reached = torch.special.ndtr(credit.sort().values)
    steps = torch.arange(1001, dtype=torch.float64) / 1000
    distance = torch.maximum((reached - steps[:-1]).abs(), (steps[1:] - reached).abs()).max()
    assert float(distance) <= 0.0005 + 1e-9


def test_equal_returns_and_a_lone_one_teach_nothing_exactly():
    assert GaussianRanks()(answers([0.3] * 5, [0.7], [1, 1, 1])).tolist() == [0.0] * 9
    assert GaussianRanks().least_group() == 2 and GaussianRanks("domain").least_group() == 1


def test_rounding_errors_make_no_ranks():
    x = answers([0.3, 0.1 + 0.2, 0.3 + 1e-9, 1.0])
    expected = GaussianRanks()(answers([0.3, 0.3, 0.3, 1.0]))
    torch.testing.assert_close(GaussianRanks()(x), expected)
    apart = GaussianRanks(tolerance=0.0)(x)
    assert apart.unique().numel() == 4
    assert GaussianRanks(tolerance=1.0)(answers([0.1, 0.2, 0.9, 1.1])).tolist() == pytest.approx(
        GaussianRanks()(answers([0, 0, 1, 1])).tolist()
    )


def test_over_domains_answers_of_all_its_groups_are_ranked_together():
    x = answers([0.0, 1.0], [2.0, 3.0], [5.0, 4.0], groups_per_domain=[2, 1])
    together = GaussianRanks()(answers([0.0, 1.0, 2.0, 3.0])).tolist()
    pair = GaussianRanks()(answers([5.0, 4.0])).tolist()
    assert GaussianRanks("domain")(x).tolist() == together + pair


def test_tokens_share_the_credit_of_their_trajectory_and_columns_may_be_ranked_apart():
    reward = torch.tensor([[0.0, 9.0], [1.0, 1.0]])
    x = Experience.from_lengths([2, 1], [1, 1], [2], reward=reward, reward_names=("a", "b"), reward_weights=(1.0, 0.5))
    ranked = float(torch.special.ndtri(torch.tensor(0.75)))
    assert GaussianRanks()(x).tolist() == pytest.approx([ranked, ranked, -ranked])
    apart = PerReward(GaussianRanks())(x).tolist()
    assert apart == pytest.approx([-0.5 * ranked, -0.5 * ranked, 0.5 * ranked])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_return_that_is_not_finite_is_refused(bad):
    with pytest.raises(InputError, match=f"gaussian_ranks: trajectory 1 has a return of {bad}: not finite"):
        GaussianRanks()(answers([0.0, bad]))
