"""Model-task alignment from counts: pass@k, which groups can teach, the zone, and the example to train on."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.study.alignment import Alignment, pass_at_k

COUNTS = st.integers(1, 40).flatmap(
    lambda samples: st.tuples(st.just(samples), st.integers(0, samples), st.integers(1, samples))
)

# ---- pass@k ---------------------------------------------------------------------------------------------------------


def test_pass_at_k_worked_by_hand():
    assert pass_at_k(8, 2, 4) == pytest.approx(1 - 15 / 70)
    assert pass_at_k(8, 2, 4) == pytest.approx(0.785714, abs=1e-6)


@given(COUNTS)
def test_pass_at_k_is_the_quotient_of_binomials(counts):
    samples, correct, k = counts
    exact = 1 - math.comb(samples - correct, k) / math.comb(samples, k)
    assert pass_at_k(samples, correct, k) == pytest.approx(exact, abs=1e-12)


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one():
    for samples, correct, k in [(5, 1, 2), (6, 3, 2), (7, 2, 5)]:
        subsets = list(itertools.combinations(range(samples), k))
        hits = sum(min(subset) < correct for subset in subsets)
        assert pass_at_k(samples, correct, k) == pytest.approx(hits / len(subsets))


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_one_is_the_share_of_right_samples(counts):
    samples, correct = counts
    assert pass_at_k(samples, correct, 1) == pytest.approx(correct / samples)


def test_pass_at_k_is_exact_at_the_ends():
    assert pass_at_k(64, 0, 8) == 0.0 and math.copysign(1, pass_at_k(64, 0, 8)) == 1
    assert pass_at_k(64, 64, 64) == pass_at_k(64, 57, 8) == 1.0
    assert pass_at_k(64, 56, 8) < 1.0


def test_pass_at_k_keeps_its_digits_for_a_million_samples():
    """One right sample in a million among a thousand drawn: exactly k / n."""
    assert pass_at_k(1_000_000, 1, 1_000) == pytest.approx(1e-3, rel=1e-12)
    assert pass_at_k(1_000_000, 500_000, 64) == 1.0
    assert pass_at_k(10**9, 3, 2) == pytest.approx(6e-9, rel=1e-8)


@pytest.mark.parametrize("wrong", [(8, 2, 9), (8, 2, 0), (8, 9, 1), (8, -1, 1), (0, 0, 1)])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="pass@"):
        pass_at_k(*wrong)


# ---- a report -------------------------------------------------------------------------------------------------------


def test_a_report_is_the_mean_over_prompts():
    found = Alignment(samples=(8, 8, 4), correct=(2, 0, 4))
    assert found.pass_at(4) == pytest.approx((1 - 15 / 70 + 0 + 1) / 3)
    assert (found.none_correct, found.mixed, found.all_correct) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    with pytest.raises(InputError, match="k = 5: must be from 1 to the number of samples, 4"):
        found.pass_at(5)


def test_the_interval_is_over_prompts_and_within_the_possible():
    found = Alignment((4,) * 4, (0, 0, 2, 4))
    estimate = found.estimate(1)
    assert estimate.value == pytest.approx(0.375)
    assert estimate.low == 0.0 and estimate.value < estimate.high <= 1.0
    alone = Alignment((4,), (2,)).estimate(1)
    assert (alone.low, alone.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("correct", "contamination", "zone"),
    [
        # Of 40 prompts, so many are always right: pass@8 is .9, .9, .9, .05 and, at the threshold, .5.
        (36, 0.5, "red"),
        (36, 0.0, "green"),
        (36, None, "aligned"),
        (2, 0.5, "gray"),
        (2, None, "gray"),
        (20, 0.2, "red"),
        (19, 0.2, "gray"),
        (20, 0.19, "green"),
    ],
)
def test_the_zone_is_of_pass_at_eight_and_contamination(correct, contamination, zone):
    found = Alignment((8,) * 40, (8,) * correct + (0,) * (40 - correct), contamination=contamination)
    assert found.pass_at(8) == pytest.approx(correct / 40)
    assert found.zone == zone
    weak = "weak at this task" in found.reading
    assert weak == (zone == "gray") and ("random reward" in found.reading) == (zone != "gray")


def test_the_thresholds_are_the_users_own_and_few_samples_do():
    counts = {"samples": (4,) * 10, "correct": (4,) * 3 + (0,) * 7}
    assert Alignment(**counts).zone == "gray"
    assert Alignment(**counts, aligned_from=0.3).zone == "aligned"
    assert Alignment(**counts).zone_pass_k == 4 and Alignment(**counts, zone_k=2).zone_pass_k == 2
    assert Alignment(**counts, aligned_from=0.3, contamination=0.1, contaminated_from=0.05).zone == "red"


def test_the_most_varied_prompts_are_those_nearest_to_even_odds():
    found = Alignment((8,) * 5, (0, 6, 4, 8, 2), prompts=(10, 11, 12, 13, 14))
    assert found.reward_variances == pytest.approx((0, 3 / 16, 1 / 4, 0, 3 / 16))
    assert found.most_varied() == (12,)
    assert found.most_varied(3) == (12, 11, 14)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": (), "correct": ()}, "at least one"),
        ({"samples": (8, 8), "correct": (1,)}, "2 numbers of samples, 1 of correct ones"),
        ({"samples": (8,), "correct": (9,)}, "9 of 8 samples correct"),
        ({"samples": (0,), "correct": (0,)}, "0 of 0 samples correct"),
        ({"samples": (8,), "correct": (1,), "prompts": (1, 2)}, "2 prompts"),
        ({"samples": (8,), "correct": (1,), "contamination": 1.5}, "contamination = 1.5"),
        ({"samples": (8,), "correct": (1,), "aligned_from": -1}, "aligned_from = -1"),
        ({"samples": (8,), "correct": (1,), "zone_k": 0}, "zone_k = 0"),
    ],
)
def test_a_report_of_nothing_or_of_the_impossible_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        Alignment(**fields)


def test_it_is_a_technique_of_the_catalogue_and_no_recipe():
    card = catalogue.card("model_task_alignment")
    assert card.build is Alignment and card.arxiv == "2508.21188"
    with pytest.raises(InputError, match="not a recipe"):
        card.recipe()
