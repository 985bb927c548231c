"""What sampling more is worth."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.study.alignment import pass_at_k
from stratagem.study.scaling import best_of_n, cloned, majority_at_k, searched

POLICY = torch.tensor([0.2, 0.3, 0.5])
RIGHT = torch.tensor([True, False, False])


def test_pass_at_k_of_one_right_in_four():
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)


def test_a_majority_of_three_with_odds_of_six_in_ten():
    assert majority_at_k([0.6, 0.4], 3) == pytest.approx(0.648)


@pytest.mark.parametrize("odds", [(0.5, 0.3, 0.2), (0.2, 0.2, 0.3, 0.3), (1.0,), (0.0, 1.0)])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_majority_agrees_with_all_votes_counted(odds, k):
    expected = 0.0
    for votes in product(range(len(odds)), repeat=k):
        counts = [votes.count(answer) for answer in range(len(odds))]
        chance = 1.0
        for vote in votes:
            chance *= odds[vote]
        expected += chance * (counts[0] == max(counts)) / counts.count(max(counts))
    assert majority_at_k(odds, k) == pytest.approx(expected)


def test_a_large_majority_follows_the_likeliest_answer_and_not_the_right_one():
    assert majority_at_k([0.4, 0.6], 65) < 0.1
    assert majority_at_k([0.4, 0.3, 0.3], 65) > 0.7


@given(right=st.floats(0, 1), n=st.integers(1, 100))
def test_an_oracle_makes_the_best_of_n_pass_at_n(right, n):
    assert best_of_n(right, n) == pytest.approx(1 - (1 - right) ** n, abs=1e-12)


@given(right=st.floats(0, 1), accuracy=st.floats(0, 1))
def test_the_best_of_one_is_the_one_whoever_verifies(right, accuracy):
    assert best_of_n(right, 1, accuracy) == pytest.approx(right, abs=1e-12)


def test_under_a_verifier_that_errs_the_best_of_many_is_not_always_right():
    limit = 0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.2)
    assert limit == pytest.approx(0.63158, abs=1e-5)
    assert best_of_n(0.3, 10_000, 0.8) == pytest.approx(limit)
    values = [best_of_n(0.3, n, 0.8) for n in range(1, 40)]
    assert values == sorted(values) and values[-1] < limit + 1e-9


def test_a_verifier_worse_than_chance_makes_search_harmful():
    assert best_of_n(0.3, 16, 0.2) < 0.3


def test_the_best_of_n_agrees_with_every_way_it_may_go():
    right, accuracy, n = 0.3, 0.8, 3
    expected = 0.0
    for truth in product([True, False], repeat=n):
        for says in product([True, False], repeat=n):
            chance = 1.0
            for true, accepted in zip(truth, says, strict=True):
                chance *= (right if true else 1 - right) * (accuracy if accepted == true else 1 - accuracy)
            kept = [t for t, accepted in zip(truth, says, strict=True) if accepted] or list(truth)
            expected += chance * sum(kept) / len(kept)
    assert best_of_n(right, n, accuracy) == pytest.approx(expected)


def test_cloning_with_infinite_samples_is_right_at_once_and_search_alone_is_not():
    torch.testing.assert_close(cloned(POLICY, RIGHT), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    found = searched(POLICY, RIGHT, 2)
    assert float(found[0]) == pytest.approx(0.36) and float(found.sum()) == pytest.approx(1.0)


def test_searching_before_cloning_changes_nothing_without_sampling_error():
    odds, right = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([True, True, False, False])
    torch.testing.assert_close(cloned(searched(odds, right, 8), right), cloned(odds, right))


def test_where_nothing_is_right_there_is_nothing_to_clone():
    odds = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    right = torch.tensor([[False, False], [False, True]])
    torch.testing.assert_close(cloned(odds, right), odds.double())
    torch.testing.assert_close(searched(odds, right, 4), odds.double())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: majority_at_k([0.5, 0.4], 3), r"majority@k: odds \[0\.5, 0\.4\]: must be at least 0 and add up to 1"),
        (lambda: majority_at_k([], 3), "odds"),
        (lambda: majority_at_k([0.5, 0.5], 0), "majority@k: k = 0: must be at least 1"),
        (lambda: best_of_n(1.2, 2), r"best of n: right = 1\.2: must be in \[0, 1\]"),
        (lambda: best_of_n(0.5, 2, -0.1), r"accuracy = -0\.1"),
        (lambda: best_of_n(0.5, 0), "n = 0"),
        (lambda: searched(POLICY, RIGHT, 0), "search: n = 0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, error):
    with pytest.raises(InputError, match=error):
        call()
