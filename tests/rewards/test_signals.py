"""Rewards in the place of the task's own: what each pays, and that nothing of the task's shows through."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import Confidence, Correct, FormatOnly, Inverted, Majority, RandomSignal


def batch(success: list[bool], group: int | None = None, **fields: object) -> Experience:
    """One token per trajectory, all in groups of ``group``."""
    size = len(success) if group is None else group
    ones = [1] * len(success)
    return Experience.from_lengths(ones, ones, [size] * (len(success) // size), success=success, **fields)


def elect(answers: list[int], groups: list[int] | None = None) -> list[float]:
    ones = [1] * len(answers)
    x = Experience.from_lengths(ones, ones, groups or [len(answers)], answer=torch.tensor(answers))
    return Majority()(x).returns.tolist()


def seeded(count: int, first: int = 0) -> Experience:
    ones = [1] * count
    return Experience.from_lengths(ones, ones, [count], seed=torch.arange(first, first + count))


# ---- right, wrong, format -------------------------------------------------------------------------------------------


def test_right_wrong_and_format_share_out_the_trajectories():
    x = batch(
        [True, True, False, False],
        reward=torch.tensor([[5.0, 1.0], [5, 0], [2, 1], [2, 0]]),
        reward_names=("reward", "format"),
    )
    assert Correct()(x).returns.tolist() == [1, 0, 0, 0]
    assert Inverted()(x).returns.tolist() == [0, 0, 1, 0]
    assert FormatOnly()(x).returns.tolist() == [1, 0, 1, 0]


def test_a_task_without_a_reward_for_it_has_always_the_right_format():
    x = batch([True, False, False], answer=torch.tensor([7, 7, -1]), reward=[1.0, 0, 0])
    assert FormatOnly()(x).returns.tolist() == [1, 1, 1]
    assert Inverted()(x).returns.tolist() == [0, 1, 1]
    assert FormatOnly()(x.replace(reward=None)).returns.tolist() == [1, 1, 1]


def test_a_signal_leaves_nothing_of_the_tasks_rewards():
    x = Experience.from_lengths(
        [1, 2], [2], [1], turn_reward=[3.0, 4.0], token_reward=[0.5, 0.5, 0.5], reward=torch.tensor([[7.0, 1.0]]),
        reward_weights=(1.0, 2.0), reward_names=("reward", "style"), success=[True],
    )  # fmt: skip
    paid = Correct()(x)
    assert (paid.returns.tolist(), paid.reward_names, paid.reward_weights) == ([1.0], ("reward",), (1.0,))
    assert paid.turn_rewards().tolist() == [0, 1]
    assert paid.token_rewards().tolist() == [0, 0, 1]
    assert paid.success.tolist() == [True]


def test_the_wrong_reward_is_the_right_one_the_other_way_round():
    generator = torch.Generator().manual_seed(0)
    x = batch((torch.rand(64, generator=generator) < 0.3).tolist(), group=8)
    for advantage in (GroupCentered(), GroupStandardized()):
        right, wrong = advantage(Correct()(x)), advantage(Inverted()(x))
        assert float(right.abs().max()) > 0.1
        torch.testing.assert_close(wrong, -right, rtol=0, atol=1e-6)


def test_an_all_wrong_group_teaches_nothing_whatever_right_and_wrong_are_worth():
    x = batch([False] * 4)
    for signal in (Correct(), Inverted(), FormatOnly()):
        assert GroupStandardized()(signal(x)).tolist() == [0.0] * 4


# ---- chance ---------------------------------------------------------------------------------------------------------


def test_a_random_reward_has_its_probability_and_knows_nothing_of_success():
    x = seeded(100_000)
    for probability in (0.0, 0.1, 0.5, 1.0):
        paid = RandomSignal(probability)(x).returns
        spread = (probability * (1 - probability) / 100_000) ** 0.5
        assert abs(float(paid.mean()) - probability) <= 4 * spread
    first_half = torch.arange(100_000) < 50_000
    paid = RandomSignal()(x).returns
    assert abs(float(paid[first_half].mean() - paid[~first_half].mean())) < 4 * (0.25 / 25_000) ** 0.5


def test_a_random_advantage_has_mean_zero_for_right_and_for_wrong_answers():
    count = 12_500
    success = [True, False, False, False, True, False, False, False] * count
    x = batch(success, group=8, seed=torch.arange(8 * count))
    advantage = GroupStandardized()(RandomSignal()(x))
    for chosen in (x.success, ~x.success):
        of_those = advantage[chosen]
        assert abs(float(of_those.mean())) < 4 * float(of_those.std()) / len(of_those) ** 0.5


def test_a_random_reward_follows_the_trajectory_however_the_batch_is_cut():
    x = seeded(64)
    whole = RandomSignal()(x).returns
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(RandomSignal()(x.select(rows)).returns, whole[rows])
    assert torch.equal(RandomSignal()(x).returns, whole)
    assert not torch.equal(RandomSignal()(seeded(64, first=1000)).returns, whole)
    assert not torch.equal(RandomSignal(stream=1)(x).returns, whole)


def test_a_random_reward_is_paid_in_the_right_format_alone():
    x = seeded(8).replace(
        reward=torch.tensor([[0.0, 1.0], [0, 0]] * 4), reward_names=("reward", "format"), reward_weights=(1.0, 1.0)
    )
    assert RandomSignal(1.0)(x).returns.tolist() == [1, 0] * 4


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_is_a_probability(probability):
    with pytest.raises(InputError, match=r"random_signal\.probability"):
        RandomSignal(probability)


# ---- the majority ---------------------------------------------------------------------------------------------------


def test_the_majority_worked_by_hand():
    assert elect([3, 3, 5, 7]) == [1, 1, 0, 0]
    assert elect([3, 3, 5, 7, 7, 7, 3, 7], [4, 4]) == [1, 1, 0, 0, 1, 1, 0, 1]


def test_of_equally_frequent_answers_the_first_wins():
    assert elect([9, 2, 2, 9]) == [1, 0, 0, 1]
    assert elect([5, 4, 3]) == [1, 0, 0]
    assert elect([-1, 2**62, 1, 2**62, 1]) == [0, 1, 0, 1, 0]


def test_what_cannot_be_read_has_no_vote_and_earns_nothing():
    assert elect([-1, -1, -1, 4]) == [0, 0, 0, 1]
    assert elect([-1, -1]) == [0, 0]
    assert elect([]) == []


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.lists(st.integers(-1, 3), min_size=1, max_size=12))
def test_the_majority_of_each_group_is_what_counting_finds(first, second):
    def counted(answers: list[int]) -> list[float]:
        votes = [answer for answer in answers if answer >= 0]
        elected = max(votes, key=lambda answer: (votes.count(answer), -votes.index(answer)), default=None)
        return [float(answer == elected) for answer in answers]

    assert elect(first + second, [len(first), len(second)]) == counted(first) + counted(second)


@pytest.mark.parametrize(("answers", "same"), [([1, 1, 2, 3], True), ([2, 2, 1, 3], False)])
def test_the_majority_pays_like_the_right_answer_exactly_when_it_is_right(answers, same):
    x = batch([answer == 1 for answer in answers], answer=torch.tensor(answers))
    assert (Majority()(x).returns.tolist() == Correct()(x).returns.tolist()) == same


# ---- confidence -----------------------------------------------------------------------------------------------------


def test_confidence_is_the_mean_log_probability_of_what_was_sampled():
    x = Experience.from_lengths(
        [2, 1, 1], [1, 1, 1], [3], behavior_logp=torch.tensor([-1.0, -3.0, -0.5, math.nan]),
        mask=[True, True, True, False],
    )  # fmt: skip
    assert Confidence()(x).returns.tolist() == [-2.0, -0.5, 0.0]


def test_confidence_is_expected_to_be_minus_the_entropy():
    logp = torch.tensor([0.7, 0.2, 0.1]).log()
    action = torch.multinomial(logp.exp(), 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    x = Experience.from_lengths([1] * 40_000, [1] * 40_000, [40_000], behavior_logp=logp[action])
    paid = Confidence()(x).returns
    entropy = -float((logp.exp() * logp).sum())
    assert abs(float(paid.mean()) + entropy) < 4 * float(paid.std()) / 200


# ---- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "field"),
    [(Correct(), "success"), (RandomSignal(), "seed"), (Majority(), "answer"), (Confidence(), "behavior_logp")],
)
def test_a_signal_says_what_it_reads_and_misses(signal, field):
    assert field in signal.needs()
    with pytest.raises(ValueError, match=f"{signal.part_name()} reads {field}"):
        signal(Experience.from_lengths([1], [1], [1], reward=[1.0]))


def test_equally_frequent_answers_are_decided_by_how_likely_they_were_and_then_by_their_keys():
    x = Experience.from_lengths(
        [1, 2, 1, 1],
        [1] * 4,
        [4],
        answer=[7, 7, 4, 4],
        reward=[0.0] * 4,
        behavior_logp=[-1.0, -3.0, -1.0, -1.0, -2.0],
    )
    likeliest = Majority("likeliest")
    # Means -1 and -2 against -1 and -2: a tie, so that the smallest key decides.
    assert likeliest(x).returns.tolist() == [0, 0, 1, 1] and Majority()(x).returns.tolist() == [1, 1, 0, 0]
    surer = x.replace(behavior_logp=torch.tensor([-1.0, -2.9, -1.0, -1.0, -2.0]))
    assert likeliest(surer).returns.tolist() == [1, 1, 0, 0]
    masked = surer.replace(mask=torch.tensor([True, False, True, True, True]), behavior_logp=x.behavior_logp.clone())
    masked.behavior_logp[1] = torch.nan
    assert likeliest(masked).returns.tolist() == [1, 1, 0, 0]
    outvoted = surer.replace(answer=torch.tensor([7, 4, 4, -1]))
    assert likeliest(outvoted).returns.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="behavior_logp"):
        likeliest(x.replace(behavior_logp=None))
