"""Beliefs in words: what is a bullet, which label it has, and what can be said of it by rule."""

from __future__ import annotations

import math

import pytest

from stratagem.beliefs import PROBABILITY, Claim, claims, diversity, format_gate, nearest_label, written


def belief(count: int, labelled: int | None = None, label: str = "certain") -> list[Claim]:
    labelled = count if labelled is None else labelled
    return claims("\n".join(f"- fact {k}: {label}" if k < labelled else f"- fact {k}" for k in range(count)))


def test_eight_labelled_bullets_of_two_labels_have_gate_1_and_their_entropy():
    bullets = belief(4) + claims("\n".join(f"- other {k}: probable" for k in range(4)))
    assert format_gate(bullets) == 1.0
    assert diversity(bullets) == pytest.approx(math.log(2) / math.log(7)) == pytest.approx(0.356207, abs=1e-6)


def test_the_gate_wants_neither_few_bullets_nor_many_nor_the_same_twice_nor_bare_ones():
    assert format_gate(belief(4)) == 0.5
    assert format_gate(belief(25)) == pytest.approx(0.8)
    assert format_gate(belief(20)) == format_gate(belief(8)) == 1.0
    assert format_gate([*belief(7), belief(1)[0]]) == pytest.approx(0.875)
    assert format_gate(belief(8, labelled=6)) == pytest.approx(0.75)
    assert format_gate(belief(8, labelled=0)) == 0.0


@pytest.mark.parametrize("text", ["", "   \n", "the key is in the den: certain", "-no space: certain"])
def test_what_has_no_bullets_has_gate_0(text):
    assert claims(text) == [] and format_gate(claims(text)) == 0.0 and diversity(claims(text)) == 0.0


def test_one_label_for_all_has_no_diversity_and_seven_have_all_of_it():
    assert diversity(belief(8)) == 0.0
    assert diversity(belief(1)) == 0.0
    assert diversity(claims(written((f"fact {label}", label) for label in PROBABILITY))) == pytest.approx(1.0)
    assert diversity(claims("- a: certain\n- b: doubtful\n- c")) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("written_label", "label"),
    [
        ("almost certain", "almost certain"),
        ("Ruled Out", "ruled out"),
        ("confirmed", "certain"),
        ("**certain**", "certain"),
        ("probable (seen twice)", "probable"),
        ("certain.", "certain"),
        ("uncertain", None),
        ("certainly", None),
        ("improbable", None),
        ("not certain", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_labels_are_whole_words_after_the_last_colon_and_the_longest_counts(written_label, label):
    assert claims(f"- at 10:30: key is in the den: {written_label}")[0].label == label


def test_a_claim_says_its_text_and_its_probability():
    claim = claims("  *  The key   is in the Den: almost certain")[0]
    assert claim == Claim("the key is in the den", "almost certain") and claim.probability == 0.95
    assert claims("- certain is nothing")[0].probability is None


def test_labels_and_probabilities_lead_to_each_other():
    assert [nearest_label(p) for p in PROBABILITY.values()] == list(PROBABILITY)
    assert nearest_label(1 / 6) == "doubtful" and nearest_label(0.2) == "unlikely"
