"""Credit by win rates, and by the distance from the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stratagem.advantages import ReferenceLogRatio, WinRate
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture


def answers(*groups: tuple[float, ...], **fields: object) -> Experience:
    """Groups of answers of two tokens with these returns."""
    rewards = [reward for group in groups for reward in group]
    return Experience.from_lengths(
        [2] * len(rewards), [1] * len(rewards), [len(group) for group in groups], reward=torch.tensor(rewards), **fields
    )


def by_answer(credit: Tensor) -> list[float]:
    """Credit of each answer; the same for both tokens."""
    assert torch.equal(credit[::2], credit[1::2])
    return credit[::2].tolist()


def test_win_rates_worked_by_hand():
    x = answers((2, 1, 0, -1, -2), (1, 1))
    expected = [0.30929, 0.16667, 0, -0.16667, -0.30929, 0, 0]
    assert by_answer(WinRate()(x)) == pytest.approx(expected, abs=5e-6)


def test_against_the_others_alone_nothing_is_shrunk():
    x = answers((2, 1, 0), (3, -1))
    group, others = (torch.tensor(by_answer(WinRate(against=who)(x))) for who in ("group", "others"))
    torch.testing.assert_close(group[:3], others[:3] * 2 / 3)
    torch.testing.assert_close(group[3:], others[3:] / 2)
    assert float(others[3]) == pytest.approx(1 / (1 + math.exp(-4)) - 0.5, abs=1e-6)


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=6))
def test_what_some_win_others_lose(scores):
    credit = WinRate()(answers(tuple(scores)))
    assert float(credit.sum()) == pytest.approx(0, abs=1e-5)
    assert float(credit.abs().max()) <= 0.5


def test_an_opponent_weighs_the_answers_it_would_give():
    """Opponents in proportion to ``(mu / pi)^b`` of whole answers."""
    behavior = torch.tensor([[-1.0, -1], [-1, -2], [-0.5, -0.5]])
    reference = torch.tensor([[-1.0, -0.5], [-2, -2], [-0.5, -1.5]])
    x = answers((2, 0, 1), behavior_logp=behavior.flatten(), ref_logp=reference.flatten())
    weight = (0.4 * (reference - behavior).sum(1)).exp()
    wins = torch.sigmoid(torch.tensor([2.0, 0, 1]).unsqueeze(1) - torch.tensor([2.0, 0, 1]))
    expected = wins @ weight / weight.sum() - 0.5
    found = WinRate(opponent=GeometricMixture(reference=0.4))(x)
    torch.testing.assert_close(torch.tensor(by_answer(found)), expected)
    others = WinRate(opponent=GeometricMixture(reference=0.4), against="others")(x)
    first = (wins[0, 1] * weight[1] + wins[0, 2] * weight[2]) / (weight[1] + weight[2]) - 0.5
    assert by_answer(others)[0] == pytest.approx(float(first), abs=1e-6)


def test_an_opponent_that_is_the_policy_is_no_opponent():
    x = answers((2, 0, 1), behavior_logp=torch.full((6,), -1.0))
    torch.testing.assert_close(WinRate(opponent=GeometricMixture())(x), WinRate()(x))


def test_opponents_read_only_what_they_are_made_of():
    assert WinRate().needs() == frozenset()
    assert WinRate(opponent=GeometricMixture()).needs() == {"behavior_logp"}
    assert WinRate(opponent=GeometricMixture(0.5, -1)).needs() == {"behavior_logp", "ref_logp", "previous_logp"}
    with pytest.raises(ValueError, match=r"weight 0\.5 on ref_logp needs x\.ref_logp"):
        WinRate(opponent=GeometricMixture(0.5))(answers((1, 0), behavior_logp=torch.full((4,), -1.0)))


def test_an_extrapolation_goes_beyond_the_last_policy():
    mixture = GeometricMixture(previous=-0.5)
    x = answers((1, 0), previous_logp=torch.tensor([-1.0, -2, -3, -4]))
    torch.testing.assert_close(mixture.logp(torch.full((4,), -2.0), x), torch.tensor([-2.5, -2, -1.5, -1]))


def test_answers_that_may_not_train_play_no_one():
    mask = torch.tensor([True, True, False, False, False, True])
    credit = WinRate()(answers((2, 9, 1), mask=mask))
    alone = WinRate()(answers((2, 1)))
    assert credit[0] == alone[0] and credit[5] == alone[3] and credit[2] == 0
    assert WinRate(against="others")(answers((2, 9), mask=torch.tensor([True, True, False, False])))[0] == 0


def test_answers_far_from_the_reference_are_weighed_without_overflow():
    x = answers((1, 0), behavior_logp=torch.tensor([-500.0, -500, -1, -1]), ref_logp=torch.tensor([-1.0, -1, -1, -1]))
    credit = WinRate(opponent=GeometricMixture(reference=1.0))(x)
    assert credit.isfinite().all() and credit[0] == 0


@dataclass(frozen=True)
class _Says(Preference):
    value: float = 0.5

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Tensor:
        return torch.full((len(first),), self.value)


@pytest.mark.parametrize(
    ("value", "message"), [(0.7, r"contradicts itself"), (1.5, r"in \[0, 1\]"), (math.nan, r"in \[0, 1\]")]
)
def test_an_oracle_that_says_what_cannot_be_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        WinRate(_Says(value))(answers((1, 0)))
    assert WinRate(_Says())(answers((1, 0))).tolist() == [0, 0, 0, 0]


def test_the_oracle_may_be_changed_by_name():
    assert WinRate(BradleyTerry(0))(answers((3, 0)))[0] == 0.25


# ---- distance from the reference ------------------------------------------------------------------------------------


def test_log_ratios_of_answers_and_of_tokens():
    behavior, reference = torch.tensor([-1.0, -2, -1, -1]), torch.tensor([-1.5, -1, -1, -3])
    x = answers((0, 0), behavior_logp=behavior, ref_logp=reference)
    assert ReferenceLogRatio("token")(x).tolist() == [0.5, -1, 0, 2]
    assert ReferenceLogRatio()(x).tolist() == [-0.5, -0.5, 2, 2]
    masked = x.replace(mask=torch.tensor([True, False, True, True]), ref_logp=torch.tensor([-1.5, math.nan, -1, -3]))
    assert ReferenceLogRatio()(masked).tolist() == [0.5, 0.5, 2, 2]


def test_log_ratios_need_a_reference():
    with pytest.raises(ValueError, match="needs ref_logp and behavior_logp"):
        ReferenceLogRatio()(answers((0, 0)))
