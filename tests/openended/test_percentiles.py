"""Normalised scores, percentiles and dominance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.errors import InputError
from stratagem.openended import ScoreBook, dominates, normalized, participation, percentiles, undominated

SIX = np.array([0, 0.2, 0.4, 0.6, 0.8, 1])

CURVES = arrays(np.float64, (4, 3), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def test_percentiles_are_scores_that_were_seen_the_lower_of_two():
    assert percentiles(SIX, (0, 20, 40, 50)).tolist() == [0, 0.2, 0.4, 0.4]
    assert len(percentiles(SIX)) == 51
    assert participation(SIX) == pytest.approx(5 / 6)


def test_curves_that_cross_are_incomparable_and_both_survive():
    one, other = np.array([0, 0.5]), np.array([0.1, 0.4])
    assert not dominates(one, other) and not dominates(other, one)
    assert undominated([one, other]) == [0, 1]
    assert undominated([one, other, np.array([0.1, 0.5])]) == [2]


@given(CURVES)
def test_dominance_is_a_strict_partial_order(curves):
    for one in curves:
        assert not dominates(one, one)
        for other in curves:
            assert not (dominates(one, other) and dominates(other, one))
            for third in curves:
                if dominates(one, other) and dominates(other, third):
                    assert dominates(one, third)
    assert undominated(list(curves))


def test_scores_are_of_the_best_known_and_tasks_nobody_solves_are_dropped():
    assert normalized(np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.0, 2.0])).tolist() == [0.5, 1.0]
    book = ScoreBook(3)
    book.enter("first", np.array([1.0, 0.0, 2.0]))
    assert book.normalized("first").tolist() == [1, 1]
    book.enter("second", np.array([4.0, 0.0, 1.0]))
    assert book.normalized("first").tolist() == [0.25, 1], "a better agent changes what the others are worth"
    book.enter("third", np.array([0.0, 1.0, 0.0]))
    assert book.normalized("first").tolist() == [0.25, 0, 1] and book.kept.all()


def test_wrong_scores_are_refused():
    book = ScoreBook(2)
    for values in ([1.0], [1.0, np.nan], [1.0, -1.0]):
        with pytest.raises(InputError, match="2 finite values"):
            book.enter("x", np.array(values))
    book.enter("x", np.zeros(2))
    with pytest.raises(InputError, match="nothing is known of 'y'"):
        book.normalized("y")
    for measure in (percentiles, participation):
        with pytest.raises(InputError, match="the best is 0"):
            measure(book.normalized("x"))
