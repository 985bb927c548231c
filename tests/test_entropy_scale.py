"""Entropies on a scale from -1 to 1: where its ends and its middle lie, and of which tokens it is."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.entropy_scale import EntropyScale, scaled_entropy
from stratagem.experience import Experience


def scaled(*entropies: float, quantile: float = 0.8, below: str = "negative") -> list[float]:
    values = torch.tensor(entropies)
    return EntropyScale.of(values, quantile)(values, below).tolist()


def test_the_ends_are_exactly_one_and_what_lies_below_the_pivot_is_negative():
    # The middle of four, 1.5, is rounded to the third.
    lowest, low, pivot, highest = scaled(0.01, 0.1, 1.0, 2.0, quantile=0.5)
    assert (lowest, pivot, highest) == (-1, 0, 1)
    assert low == pytest.approx(-0.5)


def test_the_released_sign_is_the_size():
    assert scaled(0.01, 0.1, 1.0, 2.0, quantile=0.5, below="positive") == pytest.approx([1, 0.5, 0, 1])


@given(st.lists(st.floats(0.0, 5.0, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_it_fills_the_range_in_the_order_of_entropies_and_no_more(entropies, quantile):
    found = scaled(*entropies, quantile=quantile)
    assert min(found) >= -1 and max(found) <= 1 and 0 in found
    order = sorted(range(len(found)), key=entropies.__getitem__)
    assert all(found[a] <= found[b] for a, b in pairwise(order))


def test_four_fifths_of_many_tokens_are_at_or_below_the_pivot():
    entropy = torch.rand(1001, generator=torch.Generator().manual_seed(0))
    assert int((EntropyScale.of(entropy, 0.8)(entropy) <= 0).sum()) == 801


def test_equal_entropies_are_all_in_the_middle_and_none_at_all_counts_as_very_little():
    assert scaled(0.7, 0.7, 0.7) == [0, 0, 0]
    assert scaled(0.0, 0.0) == [0, 0]
    scale = EntropyScale.of(torch.tensor([0.0, 1.0]), 1.0)
    assert scale.edges() == pytest.approx((math.log(1e-8), 0, 0))


def test_differences_that_may_be_rounding_are_not_made_large():
    # Logarithms 1e-6 apart, where a side of the scale is at least 1e-4 wide.
    entropy = torch.tensor([1.0, math.exp(1e-6)], dtype=torch.float64)
    assert EntropyScale.of(entropy, 0.0)(entropy).tolist() == pytest.approx([0, 0.01])


def test_what_lies_beyond_counts_as_the_ends():
    scale = EntropyScale.of(torch.tensor([0.5, 1.0, 2.0]), 0.5)
    assert scale(torch.tensor([0.1, 9.0])).tolist() == [-1, 1]


def test_an_entropy_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="an entropy is not finite: nan"):
        EntropyScale.of(torch.tensor([1.0, math.nan]), 0.8)
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        scaled_entropy(Experience.from_lengths([1], [1], [1]), 0.8, "negative")


def test_it_is_of_the_whole_batch_and_of_the_tokens_that_may_train():
    entropy = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).exp()
    x = Experience.from_lengths(
        [3, 3],
        [1, 1],
        [2],
        entropy=torch.cat([entropy, torch.tensor([math.nan])]),
        mask=torch.tensor([True] * 5 + [False]),
    )
    found = scaled_entropy(x, 0.5, "negative")
    assert found[:5].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])
    for rows in ([0], [1]):
        piece = x.microbatch(torch.tensor(rows))
        assert torch.equal(scaled_entropy(piece, 0.5, "negative"), piece.piece_of(found))
    nothing = x.replace(mask=torch.zeros(6, dtype=torch.bool))
    assert scaled_entropy(nothing, 0.5, "negative").tolist() == [0] * 6
