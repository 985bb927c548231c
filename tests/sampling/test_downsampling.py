"""The most varied credit and the most decisive tokens: numbers worked by hand, and against trying every set."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupStandardized, TotalReturn
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.sampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.downsampling import most_varied

SIX = (1.5, 0.2, 0.2, -0.5, -0.6, -0.8)


def answers(returns, groups=None, lengths=None, **fields) -> Experience:
    """Answers of one turn, in one group unless sizes are given."""
    lengths = [1] * len(returns) if lengths is None else lengths
    return Experience.from_lengths(
        lengths,
        [1] * len(returns),
        [len(returns)] if groups is None else groups,
        reward=torch.tensor(returns, dtype=torch.float64),
        **fields,
    )


def variance(values: torch.Tensor) -> float:
    return float(values.var(correction=0))


# ---- answers --------------------------------------------------------------------------------------------------------


def test_one_large_and_three_small_vary_more_than_two_of_each_end():
    kept = MostVariedCredit(TotalReturn(), share=4 / 6)(answers(SIX))
    values = torch.tensor(SIX, dtype=torch.float64)
    assert values[kept].tolist() == [1.5, -0.5, -0.6, -0.8]
    assert variance(values[kept]) == pytest.approx(0.865)
    assert variance(values) == pytest.approx(0.59667, abs=1e-5)
    assert variance(values[[0, 1, 4, 5]]) == pytest.approx(0.81687, abs=1e-5)


@given(
    st.lists(st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-3, 3)), min_size=2, max_size=9),
    st.floats(0.01, 1),
)
def test_no_set_of_that_size_varies_more(values, share):
    values = torch.tensor(values, dtype=torch.float64)
    kept = most_varied(values, Partition.whole(len(values)), share)
    count = int(kept.sum())
    assert count == max(2, round(share * len(values)))
    best = max(variance(values[list(rows)]) for rows in combinations(range(len(values)), count))
    assert variance(values[kept]) == pytest.approx(best, abs=1e-11)


def test_a_set_of_variance_one_has_a_part_of_any_size_that_varies_at_least_as_much():
    source = torch.Generator().manual_seed(0)
    for size in (3, 10, 100):
        values = torch.randn(size, generator=source, dtype=torch.float64).exp()
        values = (values - values.mean()) / values.std(correction=0)
        for count in range(2, size + 1):
            kept = most_varied(values, Partition.whole(size), count / size)
            assert int(kept.sum()) == count
            assert variance(values[kept]) >= 1 - 1e-9


def test_every_group_by_itself_is_what_it_would_be_alone():
    source = torch.Generator().manual_seed(1)
    values, sizes = torch.randn(16, generator=source, dtype=torch.float64), [5, 2, 1, 8]
    together = most_varied(values, Partition.from_sizes(sizes), 0.5)
    alone = [most_varied(part, Partition.whole(len(part)), 0.5) for part in values.split(sizes)]
    assert together.tolist() == torch.cat(alone).tolist()
    x = answers(values.tolist(), sizes)
    assert MostVariedCredit(TotalReturn(), 0.5, "group")(x).tolist() == together.tolist()


def test_groups_that_were_all_right_or_all_wrong_are_passed_by():
    x = answers([1.0] * 4 + [1.0, 1, 0, 0] + [0.0] * 4, [4, 4, 4])
    assert MostVariedCredit(share=1 / 3)(x).tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_what_is_kept_keeps_its_advantage_to_the_bit_and_its_group_its_rewards():
    x = answers([1.0, 0, 0, 0, 1, 1, 0, 1], [4, 4], lengths=[1, 2, 3, 1, 2, 1, 1, 2])
    kept = MostVariedCredit(share=0.5).apply(x)
    assert kept.returns.tolist() == x.returns.tolist()
    assert 0 < int(kept.mask.sum()) < x.tokens
    assert torch.equal(GroupStandardized()(kept)[kept.mask], GroupStandardized()(x)[kept.mask])


def test_an_answer_without_a_token_that_may_train_is_no_candidate():
    x = answers(SIX, mask=torch.tensor([False, True, True, True, True, True]))
    kept = MostVariedCredit(TotalReturn(), share=0.4)(x)
    assert torch.nonzero(kept).squeeze(1).tolist() == [1, 5]
    nothing = x.replace(mask=torch.zeros(6, dtype=torch.bool))
    assert not MostVariedCredit(TotalReturn())(nothing).any()


def test_at_least_two_answers_are_kept_and_a_share_of_one_keeps_all():
    x = answers(SIX)
    assert MostVariedCredit(TotalReturn(), share=0.01)(x).tolist() == [True] + [False] * 4 + [True]
    assert MostVariedCredit(TotalReturn(), share=1)(x).all()
    with pytest.raises(InputError, match=r"most_varied_credit\.share = 0"):
        MostVariedCredit(share=0)


def test_large_values_close_to_each_other_are_told_apart():
    values = 1e8 + torch.tensor(SIX, dtype=torch.float64)
    assert most_varied(values, Partition.whole(6), 4 / 6).tolist() == [True, False, False, True, True, True]


# ---- tokens ---------------------------------------------------------------------------------------------------------


def two(**fields) -> Experience:
    """Returns 1 and -2; the keys of their tokens are 0.5, 0.1 and 0.4, 0.6."""
    entropy = torch.tensor([0.5, 0.1, 0.2, 0.3], dtype=torch.float64)
    return answers([1.0, -2.0], lengths=[2, 2], entropy=entropy, **fields)


def test_tokens_with_large_advantage_and_entropy_are_kept():
    assert DecisiveTokens(TotalReturn(), 0.5).apply(two()).mask.tolist() == [True, False, False, True]
    assert DecisiveTokens(TotalReturn(), 0.25).apply(two()).mask.tolist() == [False, False, False, True]
    assert DecisiveTokens(TotalReturn(), 0.25)(two()).tolist() == [False, True]


def test_a_share_of_the_tokens_is_rounded_up_unless_it_is_a_whole_number():
    x = answers([1.0] * 10, entropy=torch.linspace(1, 0.1, 10))
    for share, count in ((0.01, 1), (0.2, 2), (0.21, 3), (0.3, 3), (0.6, 6), (0.7, 7), (1.0, 10)):
        kept = DecisiveTokens(TotalReturn(), share).apply(x).mask
        assert kept.tolist() == [True] * count + [False] * (10 - count)


def test_of_equal_tokens_the_first_are_kept():
    x = answers([1.0] * 5, entropy=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]))
    assert DecisiveTokens(TotalReturn(), 0.6).apply(x).mask.tolist() == [True, True, True, False, False]


def test_tokens_that_may_not_train_do_not_compete_whatever_they_hold():
    mask = torch.tensor([False, True, True, True])
    x = two(mask=mask).replace(entropy=torch.tensor([float("nan"), 0.1, 0.2, 0.3], dtype=torch.float64))
    assert DecisiveTokens(TotalReturn(), 0.5).apply(x).mask.tolist() == [False, False, True, True]
    nothing = x.replace(mask=torch.zeros(4, dtype=torch.bool))
    assert not DecisiveTokens(TotalReturn(), 0.5).apply(nothing).mask.any()


def test_tokens_compete_in_what_another_selection_left():
    x = two()
    first = MostVariedCredit(TotalReturn(), 0.5)
    alone = DecisiveTokens(TotalReturn(), 0.5).apply(x.replace(mask=torch.tensor([True, True, False, False])))
    assert alone.mask.tolist() == [True, False, False, False]
    assert first.apply(alone).mask.tolist() == alone.mask.tolist()


def test_entropies_must_be_there_and_be_numbers():
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        DecisiveTokens(TotalReturn())(two().replace(entropy=None))
    x = two(mask=torch.tensor([False, True, True, True]))
    bad = x.replace(entropy=torch.tensor([0.1, 0.1, float("nan"), 0.1], dtype=torch.float64))
    with pytest.raises(ValueError, match="token 2 is NaN"):
        DecisiveTokens(TotalReturn())(bad)
    assert DecisiveTokens().needs() == {"entropy"}
