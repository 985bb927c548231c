"""Credit discounted by confidence: numbers worked by hand, and what it does to groups that were all right."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import (
    BatchWhitened,
    ConfidenceDiscounted,
    GroupCentered,
    GroupStandardized,
    LeaveOneOut,
    RewardToGo,
    TotalReturn,
)
from stratagem.advantages.confidence import least_likely
from stratagem.errors import InputError
from stratagem.experience import Experience

POPULATION = GroupStandardized(correction=0, eps=0)
FOUR = (0.9, 0.3, 0.5, 0.5)


def answers(*probabilities: tuple[float, ...], returns: list[float], groups=None, **fields) -> Experience:
    """Answers of one turn whose tokens had these probabilities."""
    every = [p for answer in probabilities for p in answer]
    return Experience.from_lengths(
        [len(answer) for answer in probabilities],
        [1] * len(probabilities),
        [len(probabilities)] if groups is None else groups,
        reward=torch.tensor(returns, dtype=torch.float64),
        behavior_logp=torch.tensor(every, dtype=torch.float64).log(),
        **fields,
    )


def one_token(returns: list[float], probabilities=FOUR, **fields) -> Experience:
    return answers(*[(p,) for p in probabilities], returns=returns, **fields)


# ---- confidence -----------------------------------------------------------------------------------------------------


def test_confidence_is_of_the_least_likely_fifth_of_the_tokens():
    x = answers((0.9, 0.25, 0.9, 0.9, 0.9, 0.16, 0.9, 0.9, 0.9, 0.9), returns=[1.0])
    lowest, lengths = least_likely(x, 0.2)
    assert lengths.tolist() == [10]
    assert lowest.exp().tolist() == pytest.approx([0.2])
    everything, _ = least_likely(x, 1.0)
    assert everything.exp().tolist() == pytest.approx([0.6662], abs=1e-4)


@given(st.lists(st.lists(st.floats(-30, 5), min_size=1, max_size=12), min_size=1, max_size=5), st.floats(0.01, 1))
def test_the_lowest_are_the_lowest_of_every_answer_whatever_their_sign(logps, share):
    x = answers(*[(1.0,) * len(logp) for logp in logps], returns=[0.0] * len(logps))
    x = x.replace(behavior_logp=torch.tensor([v for logp in logps for v in logp], dtype=torch.float64))
    found, _ = least_likely(x, share)
    for value, logp in zip(found.tolist(), logps, strict=True):
        count = max(1, math.ceil(share * len(logp) - 1e-9))
        assert value == pytest.approx(sum(sorted(logp)[:count]) / count, abs=1e-5)


def test_a_share_is_rounded_up_unless_it_is_a_whole_number():
    x = answers(tuple(0.5 ** (n + 1) for n in range(10)), returns=[1.0])
    for share, lowest in ((0.01, [10]), (0.2, [10, 9]), (0.21, [10, 9, 8]), (0.3, [10, 9, 8])):
        expected = sum(lowest) / len(lowest) * math.log(0.5)
        assert float(least_likely(x, share)[0]) == pytest.approx(expected)


def test_confidence_is_of_the_policy_before_the_update_where_it_is_known():
    x = one_token([1.0, 0, 0, 0])
    x = x.replace(old_logp=torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log())
    assert least_likely(x, 0.2)[0].exp().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


# ---- credit ---------------------------------------------------------------------------------------------------------


def test_a_group_by_hand():
    found = ConfidenceDiscounted(POPULATION, 0.5, prompt=0.4)(one_token([1.0, 1, 0, 0]))
    assert found.tolist() == pytest.approx([0.75, 1.05, -1.05, -1.05])


def test_without_a_number_for_the_prompt_the_term_adds_up_to_nothing():
    x = one_token([1.0, 1, 0, 0])
    found = ConfidenceDiscounted(POPULATION, 0.5)(x)
    # The mean confidence is 0.55.
    assert found.tolist() == pytest.approx([1 - 0.175, 1 + 0.125, -1 + 0.025, -1 + 0.025])
    assert float(found.sum()) == pytest.approx(0)


def test_the_confidence_in_the_prompt_is_the_policy_s_where_it_says_so():
    x = one_token([1.0, 1, 0, 0])
    told = x.replace(prompt_confidence=torch.tensor([0.4] * 4))
    by_hand = [0.75, 1.05, -1.05, -1.05]
    assert ConfidenceDiscounted(POPULATION)(told).tolist() == pytest.approx(by_hand)
    assert ConfidenceDiscounted(POPULATION, prompt="policy")(told).tolist() == pytest.approx(by_hand)
    # A number, or the group's mean, is what it is whatever the policy says.
    assert ConfidenceDiscounted(POPULATION, prompt=0.4)(told.replace(prompt_confidence=torch.zeros(4))).tolist() == (
        pytest.approx(by_hand)
    )
    usual = ConfidenceDiscounted(POPULATION, prompt=None)
    assert torch.equal(usual(told), usual(x)) and torch.equal(usual(x), ConfidenceDiscounted(POPULATION)(x))
    assert not torch.equal(usual(told), ConfidenceDiscounted(POPULATION)(told))


def test_for_a_prompt_nothing_is_said_of_the_group_s_mean_stands():
    x = one_token([1.0, 1, 0, 0] * 2, FOUR * 2, groups=[4, 4])
    told = x.replace(prompt_confidence=torch.tensor([0.4] * 4 + [math.nan] * 4))
    found = ConfidenceDiscounted(POPULATION, prompt="policy")(told)
    assert found[:4].tolist() == pytest.approx([0.75, 1.05, -1.05, -1.05])
    assert torch.equal(found[4:], ConfidenceDiscounted(POPULATION, prompt=None)(x)[4:])


def test_only_a_prompt_that_nothing_may_stand_in_for_is_required():
    needed = {choice: ConfidenceDiscounted(share=0.3, prompt=choice) for choice in ("auto", "policy", None, 0.4)}
    assert {choice: part.prompt_share for choice, part in needed.items()} == (
        {"auto": 0.3, "policy": 0.3, None: None, 0.4: None}
    )
    assert [choice for choice, part in needed.items() if "prompt_confidence" in part.needs()] == ["policy"]
    with pytest.raises(ValueError, match=r"confidence_discounted by the policy needs x\.prompt_confidence"):
        needed["policy"](one_token([1.0, 1, 0, 0]))


def test_differences_within_a_group_do_not_depend_on_the_prompt():
    x = one_token([1.0, 1, 0, 0])
    first, *others = (ConfidenceDiscounted(POPULATION, prompt=prompt)(x) for prompt in (None, 0.0, 0.3, 1.0))
    for other in others:
        torch.testing.assert_close(other - other[0], first - first[0])


def test_a_group_that_was_all_right_learns_and_one_that_was_all_wrong_does_not():
    x = one_token([1.0] * 4 + [0.0] * 4, FOUR * 2, groups=[4, 4])
    found = ConfidenceDiscounted(POPULATION, 0.5, prompt=0.4)(x)
    assert found.tolist() == pytest.approx([0.5 * (0.4 - p) for p in FOUR] + [0.0] * 4)
    assert not found[4:].any()


def test_of_right_answers_the_surer_gain_less():
    found = ConfidenceDiscounted()(one_token([1.0, 1, 1, 0], (0.2, 0.5, 0.8, 0.1)))
    assert found[0] > found[1] > found[2]


def test_wrong_answers_are_left_alone_on_demand():
    x = one_token([1.0, 1, 0, 0])
    found = ConfidenceDiscounted(POPULATION, 0.5, prompt=0.4, rewarded_only=True)(x)
    assert found.tolist() == pytest.approx([0.75, 1.05, -1, -1])


@pytest.mark.parametrize("of", [POPULATION, LeaveOneOut(), BatchWhitened(GroupCentered()), RewardToGo()])
def test_strength_zero_is_the_advantage_it_is_added_to(of):
    x = answers((0.9, 0.4), (0.3,), (0.5, 0.2), returns=[1.0, 1, 0])
    assert torch.equal(ConfidenceDiscounted(of, 0.0)(x), of(x))
    # The addend does not depend on what it is added to.
    addend = ConfidenceDiscounted(TotalReturn())(x) - TotalReturn()(x)
    torch.testing.assert_close(ConfidenceDiscounted(of)(x), of(x) + addend, check_dtype=False)


def test_two_right_answers_come_nearer_to_each_other():
    """Exact expected update of a softmax over two actions: ``d(z_a - z_b) = 2 pi_a pi_b (A_a - A_b)``."""
    pi, strength = torch.tensor([0.9, 0.1], dtype=torch.float64), 0.5
    x = one_token([1.0, 1.0], (0.9, 0.1))
    for prompt in (None, 0.4):
        credit = ConfidenceDiscounted(POPULATION, strength, prompt=prompt)(x)
        move = (pi * credit) @ (torch.eye(2, dtype=torch.float64) - pi)
        assert float(move[0] - move[1]) == pytest.approx(-0.144 * strength)
    assert not POPULATION(x).any()


# ---- what is passed over, and bad input -----------------------------------------------------------------------------


def test_tokens_that_may_not_train_count_nowhere_whatever_they_hold():
    nan = float("nan")
    plain = ConfidenceDiscounted(POPULATION)(answers((0.9, 0.4), (0.3,), (0.5,), returns=[1.0, 0, 0]))
    x = answers((0.9, nan, 0.4), (0.3, nan), (0.5,), returns=[1.0, 0, 0])
    x = x.replace(mask=~x.behavior_logp.isnan())
    found = ConfidenceDiscounted(POPULATION)(x)
    torch.testing.assert_close(found[x.mask], plain)
    assert not found[~x.mask].any()


def test_an_answer_without_a_token_that_may_train_is_not_in_the_mean():
    x = one_token([1.0, 0, 0, 0], mask=torch.tensor([False, True, True, True]))
    found = ConfidenceDiscounted(TotalReturn(), 1.0)(x)
    usual = (0.3 + 0.5 + 0.5) / 3
    assert found.tolist() == pytest.approx([0, usual - 0.3, usual - 0.5, usual - 0.5])


def test_log_probabilities_must_be_there_and_be_numbers():
    x = one_token([1.0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"needs x\.old_logp or x\.behavior_logp"):
        ConfidenceDiscounted()(x.replace(behavior_logp=None))
    with pytest.raises(ValueError, match="token 2 is not finite"):
        ConfidenceDiscounted()(one_token([1.0, 0, 0, 0], (0.5, 0.5, 0.0, 0.5)))
    with pytest.raises(InputError, match=r"confidence_discounted\.prompt = 1\.5"):
        ConfidenceDiscounted(prompt=1.5)
    assert ConfidenceDiscounted(TotalReturn()).least_group() == 2
