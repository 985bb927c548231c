"""The best answer of a group, and the weights at which it is another one: by hand, and by trying weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import PolicyCliff, answer_cliffs


def answers(reward: list[list[float]], sizes: list[int], weights: tuple[float, ...] = (1.0, 0.1)) -> Experience:
    rows = len(reward)
    names = ("accuracy", "brevity", "style")[: len(weights)]
    given = torch.tensor(reward, dtype=torch.float64)
    return Experience.from_lengths(
        [1] * rows, [1] * rows, sizes, reward=given, reward_names=names, reward_weights=weights
    )


def test_a_group_by_hand():
    """Returns 1.02, 1.08, 0.1. Lines in the weight of brevity: 1 + 0.2 w, 1 + 0.8 w, 0 + w."""
    report = answer_cliffs(answers([[1, 0.2], [1, 0.8], [0, 1]], [3]))
    assert (report.best.tolist(), report.ties.tolist()) == ([1], [1])
    assert report.gap.tolist() == pytest.approx([0.06]) and report.radius.tolist() == pytest.approx([0.03])
    accuracy, brevity = report.flips
    assert brevity.weight.tolist() == pytest.approx([0, 5])
    assert (brevity.before.tolist(), brevity.after.tolist()) == ([0, 1], [1, 2])
    # In the weight of accuracy: 0.02 + w, 0.08 + w, 0.1.
    assert accuracy.weight.tolist() == pytest.approx([0.02])
    assert (accuracy.before.tolist(), accuracy.after.tolist()) == ([2], [1])
    assert report.low.tolist() == [pytest.approx([0.02, 0])]
    assert report.high.tolist() == [pytest.approx([math.inf, 5])]
    # Without accuracy the third answer is best, without brevity the first two tie.
    assert report.hinges.tolist() == [[True, True]]


def test_answers_that_tie_stand_on_the_cliff():
    report = answer_cliffs(answers([[1, 0], [1, 1], [0, 0]], [3], weights=(1.0, 0.0)))
    assert (report.ties.tolist(), report.gap.tolist(), report.margin.tolist()) == ([2], [0], [1])
    assert report.low[0].tolist() == [0, 0] and report.high[0].tolist() == [math.inf, 0]
    assert report.hinges.tolist() == [[True, False]]
    assert report.summary() == {
        "cliff/tied": 1,
        "cliff/median_gap": 0,
        "cliff/hinges/accuracy": 1,
        "cliff/hinges/brevity": 0,
    }


def test_answers_alike_in_everything_tie_and_have_nothing_to_flip():
    report = answer_cliffs(answers([[1, 0.5]] * 3, [3]))
    assert (report.best.tolist(), report.ties.tolist(), report.gap.tolist()) == ([0], [3], [0])
    assert report.margin.tolist() == [math.inf]
    assert report.low.tolist() == [[-math.inf] * 2] and report.high.tolist() == [[math.inf] * 2]
    assert [len(flips.weight) for flips in report.flips] == [0, 0]


def test_an_answer_alone_is_the_best_whatever_counts():
    report = answer_cliffs(answers([[0, 0.5], [1, 0], [0, 1]], [1, 2]))
    assert report.gap.tolist() == pytest.approx([math.inf, 0.9])
    assert report.low[0].tolist() == [-math.inf] * 2 and report.high[0].tolist() == [math.inf] * 2
    assert report.best.tolist() == [0, 1]


def test_three_lines_through_one_point_are_one_flip_to_the_steepest():
    flips = answer_cliffs(answers([[1, 0], [0.5, 0.5], [0, 1]], [3])).flips[1]
    assert (flips.weight.tolist(), flips.before.tolist(), flips.after.tolist()) == ([1], [0], [2])


GRID = torch.linspace(-3, 3, 241, dtype=torch.float64) + 1e-4


@settings(max_examples=60, deadline=None)
@given(
    rewards=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=2, max_size=14),
    split=st.integers(1, 13),
    weights=st.tuples(*[st.sampled_from([-1.0, 0.0, 0.01, 0.5, 1.0])] * 3),
)
def test_between_flips_no_other_answer_is_best(rewards, split, weights):
    sizes = [split, len(rewards) - split] if split < len(rewards) else [len(rewards)]
    x = answers([[value / 4 for value in row] for row in rewards], sizes, weights)
    report = answer_cliffs(x)
    for column, flips in enumerate(report.flips):
        assert bool((flips.group.diff() >= 0).all())
        for group, rows in enumerate(x.reward.split(sizes)):
            mine = flips.group == group
            turns = flips.weight[mine]
            assert bool((turns.diff() > 0).all())
            others = rows @ torch.tensor(weights, dtype=torch.float64) - rows[:, column] * weights[column]
            lines = others + GRID.unsqueeze(1) * rows[:, column]
            chain = [*flips.before[mine].tolist(), *flips.after[mine][-1:].tolist()] or [int(report.best[group])]
            named = torch.tensor(chain)[(GRID.unsqueeze(1) > turns).sum(1)] - sum(sizes[:group])
            chosen = lines.gather(1, named.unsqueeze(1)).squeeze(1)
            torch.testing.assert_close(chosen, lines.amax(1), atol=1e-9, rtol=0)
            at = weights[column]
            below, above = turns[turns <= at + 1e-9], turns[turns >= at - 1e-9]
            assert float(report.low[group, column]) == pytest.approx(float(below[-1]) if len(below) else -math.inf)
            assert float(report.high[group, column]) == pytest.approx(float(above[0]) if len(above) else math.inf)


def test_rows_of_a_group_need_not_be_neighbours():
    x = answers([[1, 0.2], [0, 1], [1, 0.8], [0, 0.5]], [2, 2])
    mixed = x.select(torch.tensor([0, 2, 1, 3]))
    one, other = answer_cliffs(x), answer_cliffs(mixed)
    torch.testing.assert_close(one.gap, other.gap)
    torch.testing.assert_close(one.low, other.low)
    assert one.best.tolist() == [0, 2] and other.best.tolist() == [0, 1]


def test_what_rounding_tells_apart_is_a_tie():
    reward = torch.tensor([[0.1 + 0.2, 0.0], [0.3, 0.0]])
    x = answers([[0, 0]] * 2, [2]).replace(reward=torch.tensor([[0.1], [0.3]]).double().repeat(1, 2))
    assert answer_cliffs(x).ties.tolist() == [1]
    assert answer_cliffs(x.replace(reward=reward)).ties.tolist() == [2]
    thirds = torch.tensor([[0.1, 0.2], [0.3, 0.0]])
    assert answer_cliffs(x.replace(reward=thirds, reward_weights=(1.0, 1.0))).ties.tolist() == [2]


def test_a_single_reward_flips_where_its_sign_does():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=[1.0, 0.0, 0.0])
    report = answer_cliffs(x)
    assert report.names == ("reward",) and report.flips[0].weight.tolist() == [0]
    turns = Experience.from_lengths([1] * 3, [1] * 3, [3], turn_reward=[1.0, 0.0, 0.0])
    assert answer_cliffs(turns).gap.tolist() == report.gap.tolist() == [1]


def test_the_diagnostic_asks_the_same_with_its_own_tolerance():
    x = answers([[1, 0], [0.995, 0]], [2])
    assert PolicyCliff().of_answers(x).ties.tolist() == [1]
    assert PolicyCliff(tie=0.01).of_answers(x).ties.tolist() == [2]


def test_an_empty_batch_has_nothing_to_say():
    x = answers([[1.0, 0.0]], [1])
    report = answer_cliffs(x.select(torch.tensor([], dtype=torch.int64)))
    assert len(report.best) == 0 and report.summary() == {}


def test_a_reward_that_is_not_finite_is_named():
    with pytest.raises(InputError, match=r"^trajectory 1 has reward \[nan, 0.0\]: must be finite$"):
        answer_cliffs(answers([[1, 0], [math.nan, 0]], [2]))
