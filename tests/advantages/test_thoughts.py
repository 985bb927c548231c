"""Advantages raised by the entropy of thoughts: numbers by hand, signs, and what has no entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import EntropyRaised, GroupStandardized, RewardToGo, TotalReturn
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.spans import Span

PLAIN = TotalReturn()
THOUGHT, ACT = Span.THINK, Span.ACTION


def rollouts(credit: list[float], entropy: list[float], **fields) -> Experience:
    """A group of trajectories of two tokens of thought and one of action, each with this entropy in its thought."""
    count = len(credit)
    tokens = [value for h in entropy for value in (h - 0.1, h + 0.1, 9.0)]
    return Experience.from_lengths(
        [3] * count,
        [1] * count,
        [count],
        reward=torch.tensor(credit, dtype=torch.float64),
        entropy=torch.tensor(tokens, dtype=torch.float64),
        span=torch.tensor([THOUGHT, THOUGHT, ACT] * count),
        **fields,
    )


def per_rollout(part: EntropyRaised, x: Experience) -> list[float]:
    found = part(x).view(-1, 3)
    assert torch.equal(found, found[:, :1].expand(-1, 3))
    return found[:, 0].tolist()


@pytest.mark.parametrize(("entropy", "expected"), [(2.0, [1.5, -0.5]), (0.5, [1.2, -0.8])])
def test_the_capped_bonus_by_hand(entropy, expected):
    assert per_rollout(EntropyRaised(PLAIN), rollouts([1, -1], [entropy] * 2)) == pytest.approx(expected)


def test_the_clipped_bonus_is_by_how_far_an_entropy_is_from_the_groups():
    x = rollouts([1, -1, 0], [0.5, 1.0, 4.5])
    found = per_rollout(EntropyRaised(PLAIN, "clipped"), x)
    assert found == pytest.approx([1 - 0.5, -1 - 0.4, 0.5])


def test_the_logistic_bonus_by_hand():
    found = per_rollout(EntropyRaised(PLAIN, "logistic"), rollouts([0, 1], [1.0, 0.1]))
    assert found == pytest.approx([0.4 * (2 / (1 + math.exp(-h)) - 1) + a for a, h in ((0, 1.0), (1, 0.1))])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(0.2, 9)), min_size=1, max_size=6), st.floats(0, 5), st.floats(1, 9)
)
def test_the_cap_keeps_signs_for_any_entropy(pairs, strength, cap):
    credit, entropy = zip(*pairs, strict=True)
    x = rollouts(list(credit), list(entropy))
    found = EntropyRaised(PLAIN, strength=strength, cap=cap)(x)
    assert bool((found * PLAIN(x) >= 0).all())
    assert bool((found >= PLAIN(x)).all())


def test_among_equals_the_more_unsure_thought_counts_more_up_to_the_cap():
    found = per_rollout(EntropyRaised(PLAIN), rollouts([1] * 4, [0.2, 0.6, 1.25, 3.0]))
    assert found == pytest.approx([1.08, 1.24, 1.5, 1.5])


@pytest.mark.parametrize("form", ["capped", "clipped", "logistic"])
def test_without_strength_it_is_the_advantage_exactly(form):
    x = rollouts([1.3, -0.2, 0.4], [0.5, 2.0, 1.0])
    assert torch.equal(EntropyRaised(PLAIN, form, strength=0.0)(x), PLAIN(x))


def test_a_group_of_equal_rewards_gets_nothing_from_the_cap_and_trains_on_entropy_otherwise():
    x = rollouts([1, 1], [0.5, 2.0])
    assert not EntropyRaised()(x).any()
    assert EntropyRaised(form="clipped")(x).any() and EntropyRaised(form="logistic")(x).any()


def test_long_thoughts_count_by_their_mean_and_actions_not_at_all():
    x = Experience.from_lengths(
        [4, 2],
        [1, 1],
        [2],
        reward=[1.0, 1.0],
        entropy=torch.tensor([0.5, 0.5, 0.5, 7.0, 0.5, 7.0]),
        span=torch.tensor([THOUGHT] * 3 + [ACT] + [THOUGHT, ACT]),
    )
    part = EntropyRaised(PLAIN)
    assert part.entropy(x).tolist() == pytest.approx([0.5, 0.5])
    assert EntropyRaised(PLAIN, within="response").entropy(x).tolist() == pytest.approx([8.5 / 4, 7.5 / 2])
    only_thoughts = EntropyRaised(PLAIN, on="thoughts")(x)
    assert only_thoughts.tolist() == pytest.approx([1.2, 1.2, 1.2, 1.0, 1.2, 1.0])


def test_without_a_thought_there_is_no_entropy():
    x = rollouts([1.0, 1.0], [2.0, 2.0]).replace(span=torch.tensor([ACT] * 3 + [THOUGHT, THOUGHT, ACT]))
    assert per_rollout(EntropyRaised(PLAIN), x) == pytest.approx([1.0, 1.5])


def test_entropies_below_zero_of_densities_count_as_none():
    assert per_rollout(EntropyRaised(PLAIN), rollouts([1.0], [-3.0])) == [1.0]


def test_tokens_that_may_not_train_are_not_counted_whatever_they_hold():
    x = rollouts([1.0, 1.0], [0.5, 0.5], mask=[True, False, True] * 2)
    entropy = x.entropy.clone()
    entropy[1], entropy[4] = math.nan, math.inf
    found = EntropyRaised(PLAIN)(x.replace(entropy=entropy))
    assert found.tolist() == pytest.approx([1.16, 0.0, 1.16] * 2)


def test_it_raises_what_it_wraps_token_by_token():
    x = rollouts([1.0], [0.5]).replace(token_reward=torch.tensor([0.1, -2.0, 1.0], dtype=torch.float64))
    inner = RewardToGo()(x)
    torch.testing.assert_close(
        EntropyRaised(RewardToGo())(x), inner + torch.minimum(torch.tensor(0.2).double(), inner.abs() / 2)
    )


def test_no_gradient_goes_through_the_entropy():
    from stratagem.recipes import funrl_function_calling

    x = rollouts([1.0, 0.0], [0.5, 2.0])
    leaf = x.entropy.clone().requires_grad_()
    assert not funrl_function_calling().prepare(x.replace(entropy=leaf)).advantage.requires_grad


def test_what_it_reads_and_refuses():
    assert EntropyRaised().needs() == {"entropy", "span"}
    assert EntropyRaised(within="response").needs() == {"entropy"}
    assert EntropyRaised(within="response", on="thoughts").needs() == {"entropy", "span"}
    assert EntropyRaised(GroupStandardized()).least_group() == 2
    x = rollouts([1.0], [0.5])
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        EntropyRaised(PLAIN)(x.replace(entropy=None))
    with pytest.raises(ValueError, match=r"needs x\.span"):
        EntropyRaised(PLAIN)(x.replace(span=None))
    with pytest.raises(ValueError, match=r"x\.entropy of token 1 is nan"):
        EntropyRaised(PLAIN)(x.replace(entropy=torch.tensor([0.1, math.nan, 0.1])))
    for field, value in (("strength", -0.1), ("cap", 0.9), ("bound", 0.0)):
        with pytest.raises(InputError, match=rf"entropy_raised\.{field} = {value}"):
            EntropyRaised(**{field: value})
