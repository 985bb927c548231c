"""Asking who reads text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.preferences import ask

Texts = Sequence[str]


def longer(prompts: Texts, first: Texts, second: Texts) -> list[float | None]:
    """Prefers the longer one, and the first it is shown a little."""
    return [
        None if not prompt else 0.1 + 0.8 * (len(a) > len(b))
        for prompt, a, b in zip(prompts, first, second, strict=True)
    ]


def test_shown_in_both_orders_the_first_gains_nothing():
    assert ask(longer, ["p", "p"], ["aaa", "a"], ["a", "aaa"]).tolist() == pytest.approx([0.9, 0.1])
    first = lambda prompts, a, b: [0.7] * len(a)  # noqa: E731
    assert ask(first, ["p"], ["a"], ["b"]).tolist() == [0.5]
    assert ask(first, ["p"], ["a"], ["b"], both_orders=False).tolist() == pytest.approx([0.7])


def test_equal_answers_are_not_shown_and_tie():
    def refuses(prompts: Texts, first: Texts, second: Texts) -> list[float | None]:
        raise AssertionError("must not be asked")

    assert ask(refuses, ["p"], ["a"], ["a"]).tolist() == [0.5]


def test_an_undecided_judge_says_a_tie():
    assert ask(longer, ["", "p"], ["a", "aa"], ["b", "a"]).tolist() == pytest.approx([0.5, 0.9])


def test_a_judge_that_is_down_is_no_tie():
    def down(prompts: Texts, first: Texts, second: Texts) -> list[float | None]:
        raise ConnectionError("refused\nby 127.0.0.1")

    with pytest.raises(BrokenRunError, match=r"the judge did not answer: ConnectionError: refused by 127\.0\.0\.1"):
        ask(down, ["p"], ["a"], ["b"])


@pytest.mark.parametrize(
    ("said", "message"),
    [([0.5], "1 answers to 2 comparisons"), ([0.5, 1.5], "said 1.5"), ([float("nan"), 0.5], "said nan")],
)
def test_what_a_judge_may_say(said, message):
    with pytest.raises(BrokenRunError, match=message):
        ask(lambda prompts, first, second: said, ["p"], ["a"], ["b"])


def test_lists_must_be_as_long_as_each_other():
    with pytest.raises(InputError, match="not 2, 1 and 1"):
        ask(longer, ["p", "q"], ["a"], ["b"])
