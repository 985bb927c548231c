"""Asking who reads text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.helpers import Scripted
from stratagem.preferences import Judge, ask
from stratagem.preferences.judges import INSTRUCTION, verdict, verdicts
from stratagem.readings import Pair

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


# ---- a judge behind a helper ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[[A]]", 1.0),
        ("A is shorter, B is right: [[B]]", 0.0),
        ("[[A]] at first sight. On reflection [[ C ]]", 0.5),
        ("B", 0.0),
        (" **A**.", 1.0),
    ],
)
def test_a_verdict_is_the_last_letter_in_brackets_or_a_letter_alone(said, expected):
    assert verdict(said) == expected


@pytest.mark.parametrize("said", ["", None, "Answer A is better", "[[D]]", "AB", "tie"])
def test_anything_else_is_no_verdict_and_no_tie(said):
    assert math.isnan(verdict(said))


def scripted(says):
    """A helper that is shown the first and the second answer; and what it was shown."""
    shown = []

    def answer(messages, seed):
        content = messages[-1]["content"]
        first, second = content.split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
        shown.append((first, second))
        return says(first, second)

    return Scripted(answer, "test"), shown


def test_in_both_orders_whoever_always_takes_the_first_says_a_tie():
    judge, shown = scripted(lambda first, second: "[[A]]")
    assert verdicts(judge, INSTRUCTION, [Pair("p", "a", "b")]) == [0.5]
    assert shown == [("a", "b"), ("b", "a")]


def test_a_comparison_lost_in_one_order_is_lost():
    judge, _ = scripted(lambda first, second: "[[A]]" if first == "a" else "hm")
    assert math.isnan(verdicts(judge, INSTRUCTION, [Pair("p", "a", "b")])[0])


def test_in_one_order_chance_decides_who_is_first_and_always_the_same():
    judge, shown = scripted(lambda first, second: "[[A]]" if len(first) > len(second) else "[[B]]")
    pairs = [Pair(f"p{number}", "a", "bb") for number in range(40)]
    assert verdicts(judge, INSTRUCTION, pairs, both_orders=False) == [0.0] * 40
    assert 10 < shown.count(("a", "bb")) < 30
    before = list(shown)
    verdicts(judge, INSTRUCTION, pairs, both_orders=False)
    assert shown == before * 2


def test_braces_in_answers_are_shown_as_they_are():
    judge, shown = scripted(lambda first, second: "[[C]]")
    verdicts(judge, INSTRUCTION, [Pair("{p}", "{prompt}", "{0}")])
    assert shown[0] == ("{prompt}", "{0}")


def test_an_instruction_shows_all_there_is_to_compare():
    for wrong in ("{prompt} {first}", "{prompt} {first} {second} {third}", "{prompt} {first} {second} {", "none"):
        with pytest.raises(InputError, match=r"judge\.instruction: must show \{prompt\}, \{first\} and \{second\}"):
            Judge("python:json:dumps", instruction=wrong)
    Judge("python:json:dumps", instruction="{prompt} {first} {second} {{}}")
