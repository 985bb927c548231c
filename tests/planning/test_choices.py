"""Labels of steps, pooled scores and chosen answers, by hand."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.planning import HardLabels, SoftLabels, chosen_answer, pooled


def test_a_dip_that_recovers_is_held_against_the_step_after_it():
    assert SoftLabels(0.5)([1, 0.6, 0.4, 0.8, 1]) == pytest.approx([1, 0.6, 0.5, 0.95, 1])


def test_with_one_side_a_dip_is_held_against_the_step_before_it():
    # 0.4 - 0.5 * (0.6 - 0.4) = 0.3, then 0.8 - 0.5 * (0.3 - 0.8) = 1.05, clipped.
    assert SoftLabels(0.5, "one")([1, 0.6, 0.4, 0.8, 1]) == pytest.approx([1, 0.6, 0.3, 1, 1])


def test_a_drop_is_pushed_down_and_the_next_step_sees_the_label():
    assert SoftLabels(0.5)([1, 0.8, 0.4, 0.2, 0]) == pytest.approx([1, 0.8, 0.2, 0.2, 0])


def test_labels_stay_within_bounds():
    assert SoftLabels(5.0)([1, 1, 0.4, 0.2, 0]) == pytest.approx([1, 1, 0, 1, 0])


@pytest.mark.parametrize("values", [[], [0.3], [0.9, 0.2], [0.5] * 5])
@pytest.mark.parametrize("sides", ["one", "both"])
def test_short_and_level_paths_keep_their_values(values, sides):
    assert SoftLabels(0.5, sides)(values) == values


def test_without_looking_back_labels_are_the_values():
    values = [0.1, 0.9, 0.3, 0.7, 0.0]
    assert SoftLabels(0.0)(values) == values


def test_hard_labels_have_a_threshold_and_may_forbid_drops():
    assert HardLabels(0.5)([0.4, 0.9, 0.6, 0.5]) == [0, 1, 1, 1]
    assert HardLabels(0.5, rising=True)([0.4, 0.9, 0.6, 0.6]) == [0, 1, 0, 1]
    assert HardLabels()([]) == []


@pytest.mark.parametrize(
    ("by", "score"), [("min", 0.2), ("mean", 0.5), ("gmean", 0.16 ** (1 / 2)), ("prod", 0.16), ("last", 0.8)]
)
def test_scores_are_pooled_without_the_first_step(by, score):
    assert pooled([0.1, 0.2, 0.8], by) == pytest.approx(score)


def test_a_single_step_counts_by_itself():
    assert pooled([0.7], "min") == 0.7 and pooled([0.7], "gmean") == pytest.approx(0.7)


@pytest.mark.parametrize(("by", "answer"), [("best", "B"), ("vote_sum", "A"), ("vote_mean", "B"), ("majority", "A")])
def test_an_answer_is_chosen_by_its_best_score_sum_mean_or_number(by, answer):
    assert chosen_answer(["A", "B", "A"], [0.2, 0.6, 0.5], by) == answer


def test_solutions_without_an_answer_are_never_chosen():
    assert chosen_answer([None, "B", None], [1.0, 0.1, 1.0], "vote_sum") == "B"
    assert chosen_answer([None], [1.0], "majority") is None and chosen_answer([], [], "best") is None


def test_wrong_choices_are_named():
    with pytest.raises(InputError, match="unknown pooling 'mini'; did you mean 'min'"):
        pooled([0.1], "mini")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one step"):
        pooled([])
    with pytest.raises(InputError, match=r"at least 0, got -0\.5"):
        pooled([0.0, -0.5], "gmean")
    with pytest.raises(InputError, match="unknown choice"):
        chosen_answer(["A"], [1.0], "votes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 answers, but 2 scores"):
        chosen_answer(["A"], [1.0, 2.0])
