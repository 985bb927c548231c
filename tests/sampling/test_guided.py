"""Which groups are led, how far a problem has to be led, and in what order that is tried."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.sampling import Guided, Prefix, minimal_prefixes, prefix_lengths


def test_lengths_grow_to_a_quarter_in_whole_steps():
    assert prefix_lengths(100) == [5, 10, 15, 20, 25]
    assert prefix_lengths(20) == [1, 2, 3, 4, 5]
    assert prefix_lengths(10) == [1, 2, 3]
    assert prefix_lengths(2) == [1]
    assert prefix_lengths(1) == prefix_lengths(0) == []
    assert prefix_lengths(10, share=1.0, increment=0.25) == [3, 5, 8, 9]


@given(st.integers(2, 500), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_solution_of_two_steps_has_a_length_and_never_all_of_it(steps, share, increment):
    lengths = prefix_lengths(steps, share, increment)
    assert lengths and lengths == sorted(set(lengths))
    assert lengths[0] >= 1 and lengths[-1] < steps
    assert lengths[-1] <= max(share * steps + 1, 1)


@pytest.mark.parametrize("search", ["scan", "bisection"])
def test_the_first_length_above_the_threshold_is_found(search):
    # No success below 40 % of the steps that may be shown, and success from there on.
    lengths = prefix_lengths(100)
    found = minimal_prefixes(lambda asked: [length >= 0.4 * 25 for _, length in asked], {7: lengths}, search)
    assert found == {7: Prefix(10, True)}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.lists(st.integers(1, 30), min_size=1, unique=True))
def test_both_searches_agree_where_more_never_helps_less(thresholds, lengths):
    lengths = sorted(lengths)
    asked: dict[str, Counter[int]] = {}

    def run(search: str) -> dict[int, Prefix]:
        asked[search] = Counter()

        def solves(problems: list[tuple[int, int]]) -> list[bool]:
            asked[search].update(number for number, _ in problems)
            return [length >= thresholds[number] for number, length in problems]

        return minimal_prefixes(solves, dict.fromkeys(range(len(thresholds)), lengths), search)

    scanned = run("scan")
    assert scanned == run("bisection")
    for number, threshold in enumerate(thresholds):
        expected = next((n for n in [0, *lengths] if n >= threshold), lengths[-1])
        assert scanned[number] == Prefix(expected, threshold <= lengths[-1])
        assert asked["bisection"][number] <= 2 + len(lengths).bit_length()


def test_what_is_solved_or_cannot_be_led_is_told_apart():
    found = minimal_prefixes(lambda asked: [number == 0 for number, _ in asked], {0: [1], 1: [], 2: [1, 2]})
    assert found == {0: Prefix(0, True), 1: Prefix(0, False), 2: Prefix(2, False)}


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [(0, True), (0, False), (1, True), (1, False), (2, True), (2, False)]),
        (2, [(0, True), (1, True), (0, False), (2, True), (3, True), (2, False)]),
        (0, [(0, True), (1, True), (2, True), (3, True), (4, True), (5, True)]),
    ],
)
def test_copies_come_together(every, expected):
    sampler = Guided(prompts_per_step=6, unguided_every=every)
    assert [sampler.copy(group) for group in range(6)] == expected
    assert [sampler.start_state(group) for group in range(6)] == [2 * p + (not led) for p, led in expected]


def test_named_problems_are_led_over_and_over():
    sampler = Guided(prompts_per_step=6, start_states=(5, 9))
    assert [sampler.start_state(group) for group in range(6)] == [10, 11, 18, 19, 10, 11]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts_per_step": 3}, "must be a multiple of 2"),
        ({"prompts_per_step": 4, "unguided_every": 2}, "must be a multiple of 3"),
        ({"choices": ()}, "choices"),
        ({"choices": (-1,)}, "choices"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Guided(**fields)


def test_shares_out_of_range_are_refused():
    with pytest.raises(InputError, match="share = 0"):
        prefix_lengths(10, share=0)


def test_worlds_without_solutions_refuse_to_lead():
    with pytest.raises(InputError, match="cannot begin with part of a solution"):
        Guided().check_asked("a control policy")
