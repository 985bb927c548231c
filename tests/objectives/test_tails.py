"""Clips as wide as a response was unsure of itself in the end, and credit that follows uncertainty."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem.advantages import GroupStandardized, UncertaintyShaped
from stratagem.distribution import sureness
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, TailConfidenceClip
from stratagem.sampling import FirstRollouts


def batch(confidence: list[float], lengths: list[int], **fields: Any) -> Experience:
    return Experience.from_lengths(
        lengths, [1] * len(lengths), [len(lengths)], confidence=torch.tensor(confidence, dtype=torch.float64), **fields
    )


def test_the_width_falls_with_confidence_and_stays_in_the_upper_half():
    x = batch([0.0, 0.5, 1.0], [1, 1, 1])
    assert TailConfidenceClip().width(x).tolist() == pytest.approx([0.19730, 0.18212, 0.125], abs=1e-5)
    centered = TailConfidenceClip(center=0.5).width(x).tolist()
    assert centered[1] == pytest.approx(0.125) and centered[0] - 0.125 == pytest.approx(0.125 - centered[2])
    # A mean of five probabilities is at most 0.2, so that little of it is left.
    likely = TailConfidenceClip().width(batch([0.0, 0.2], [1, 1])).tolist()
    assert likely == pytest.approx([0.19730, 0.19412], abs=1e-5)
    assert TailConfidenceClip(slope=0.0).width(x).tolist() == pytest.approx([0.125] * 3)


def test_the_tail_is_of_tokens_that_may_train_as_far_as_there_are_some():
    nan = float("nan")
    x = batch([1.0, 0.2, 0.4, nan, 0.6, nan], [5, 1], mask=[True, True, True, False, True, False])
    width = TailConfidenceClip(tail=2).width(x)
    alone = TailConfidenceClip().width(batch([0.5, (1.0 + 0.2 + 0.4 + 0.6) / 4], [1, 1]))
    assert float(width[0]) == pytest.approx(float(alone[0])) and bool(width.isfinite().all())
    assert float(TailConfidenceClip(tail=99).width(x)[0]) == pytest.approx(float(alone[1]))


def test_it_is_the_clip_of_that_width():
    x = batch([0.0, 1.0], [1, 1])
    out = PolicyOutput(logp=torch.zeros(2))
    gate, ratio = TailConfidenceClip(), torch.tensor([1.15, 1.15], dtype=torch.float64)
    credit = torch.ones(2, dtype=torch.float64)
    assert gate(ratio, credit, out, x).tolist() == pytest.approx([1.15, 1.125])
    assert gate.binds(ratio, credit, out, x).tolist() == [False, True]
    for sign in (1.0, -1.0):
        for value in (0.7, 0.9, 1.1, 1.3):
            at = torch.full((2,), value, dtype=torch.float64)
            fixed = TailConfidenceClip(least=0.2, most=0.2)(at, sign * credit, out, x)
            torch.testing.assert_close(fixed, Clip(0.2, 0.2)(at, sign * credit, out, x))


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(InputError, match="most"):
        TailConfidenceClip(least=0.3, most=0.2)
    with pytest.raises(ValueError, match=r"x\.confidence"):
        TailConfidenceClip().width(batch([0.5], [1]).replace(confidence=None))


def shaped(**fields: Any) -> Experience:
    given = {"entropy": torch.tensor([9.0, 0, 0, 0, 0, 0]).double(), "reward": [1.0, 0.0]}
    return batch([0.0, 0.2, 0.2, 0.2, 0.2, 0.2], [3, 3], **(given | fields))


def test_uncertain_tokens_count_up_to_a_fifth_more_and_no_sign_changes():
    x = shaped()
    advantage, plain = UncertaintyShaped(), GroupStandardized()(x)
    score = advantage.score(x)
    assert float(score[0]) == 2.0 and score[1:].tolist() == pytest.approx([-2 / 5**0.5] * 5)
    torch.testing.assert_close(advantage(x), plain.double() * (1 + 0.1 * score))
    assert (advantage(x).sign() == plain.sign()).all()
    sure = UncertaintyShaped().score(x.replace(entropy=-x.entropy, confidence=-x.confidence))
    assert float(sure[0]) == -2.0


def test_without_strength_or_where_all_tokens_are_alike_it_is_what_it_shapes():
    x = shaped()
    torch.testing.assert_close(UncertaintyShaped(strength=0.0)(x), GroupStandardized()(x).double())
    alike = shaped(entropy=torch.ones(6).double()).replace(confidence=torch.full((6,), 0.2).double())
    torch.testing.assert_close(UncertaintyShaped()(alike), GroupStandardized()(alike).double())
    one = batch([0.2], [1], entropy=torch.ones(1), reward=[1.0])
    assert UncertaintyShaped().score(one).tolist() == [0.0]


def test_a_group_of_equal_rewards_learns_only_by_the_addend():
    x = shaped(reward=[1.0, 1.0])
    assert (UncertaintyShaped()(x) == 0).all()
    added = UncertaintyShaped(addend=0.5)
    score = added.score(x)
    torch.testing.assert_close(added(x), 0.5 * (score - score.mean()))


def test_tokens_that_may_not_train_count_nowhere_and_others_must_be_numbers():
    x = shaped()
    wide = shaped(mask=[True] * 5 + [False])
    wide.entropy[5] = wide.confidence[5] = float("nan")
    narrow = UncertaintyShaped().score(batch([0.0, 0.2, 0.2, 0.2, 0.2], [3, 2], entropy=x.entropy[:5]))
    torch.testing.assert_close(UncertaintyShaped().score(wide)[:5], narrow)
    assert bool(UncertaintyShaped()(wide).isfinite().all())
    with pytest.raises(ValueError, match="not finite"):
        UncertaintyShaped()(shaped(entropy=torch.full((6,), float("nan"))))


def test_confidence_is_of_the_whole_distribution():
    peaked = torch.tensor([[0.91, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]]).log()
    assert float(sureness(peaked)) == pytest.approx(0.95 / 5)
    assert float(sureness(torch.full((1, 10), 0.1).log())) == pytest.approx(0.1)
    # Among five tokens it says nothing.
    for row in ([0.96, 0.01, 0.01, 0.01, 0.01], [0.2] * 5):
        assert float(sureness(torch.tensor([row]).log())) == pytest.approx(0.2)


def test_the_first_rollouts_of_each_group_are_kept():
    x = Experience.from_lengths([1] * 5, [1] * 5, [3, 2])
    assert FirstRollouts(2)(x).tolist() == [True, True, False, True, True]
