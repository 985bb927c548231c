"""Advantages scaled by semantic entropy: numbers worked by hand, identities, and what counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupStandardized, SemanticEntropyScaled
from stratagem.errors import InputError
from stratagem.experience import Experience

FORMS = ("reciprocal", "linear", "exponential", "focal")


def group(*answers: int, rewards: list[float] | None = None, **fields) -> Experience:
    """One group of one-token answers."""
    ones = [1] * len(answers)
    reward = torch.tensor(rewards or [0.0] * len(answers), dtype=torch.float64)
    return Experience.from_lengths(ones, ones, [len(answers)], reward=reward, answer=torch.tensor(answers), **fields)


def factor(x: Experience, **options) -> float:
    return float(SemanticEntropyScaled(**options).factor(x)[0])


def disagreement(x: Experience, **options) -> float:
    return float(SemanticEntropyScaled(**options).disagreement(x)[0])


ALIKE, HALVES, APART = [3] * 8, [3, 3, 3, 3, 5, 5, 5, 5], list(range(8))


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answers", "expected"), [(ALIKE, 0.0), (HALVES, 1 / 3), (APART, 1.0)])
def test_disagreement_of_eight_answers(answers, expected):
    assert disagreement(group(*answers)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("answers", "expected"), [(ALIKE, 1.0), (HALVES, 0.98629), (APART, 0.95997)])
def test_published_factors_are_at_most_four_percent(answers, expected):
    assert factor(group(*answers)) == pytest.approx(expected, abs=1e-5)


def test_two_halves_lose_a_third_under_the_linear_form():
    x = group(*HALVES, rewards=[1, 1, 1, 1, 0, 0, 0, 0])
    found = SemanticEntropyScaled(form="linear", strength=1.0)(x)
    assert found.tolist() == pytest.approx([1 / 3] * 4 + [-1 / 3] * 4)


def test_the_other_forms_of_two_halves():
    x = group(*HALVES)
    assert factor(x, form="exponential", strength=2.0) == pytest.approx(math.exp(-2 / 3))
    assert factor(x, form="focal", strength=2.0) == pytest.approx(4 / 9)
    assert factor(x, form="reciprocal", strength=2.0) == pytest.approx(3 / 5)


def test_likelihood_weighs_clusters_by_the_geometric_mean_of_their_tokens():
    # Masses 0.5 + 0.1 and 0.2, the last over two tokens: shares 3/4 and 1/4.
    logp = torch.tensor([0.5, 0.1, 0.4, 0.1], dtype=torch.float64).log()
    x = Experience.from_lengths(
        [1, 1, 2], [1] * 3, [3], reward=[1.0, 0.0, 0.0], answer=torch.tensor([4, 4, 6]), behavior_logp=logp
    )
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2 / math.log(3)
    assert disagreement(x, estimator="likelihood") == pytest.approx(expected)


def test_likelihood_beyond_the_greatest_entropy_counts_as_one():
    x = group(1, 2, behavior_logp=torch.tensor([0.0, -500.0], dtype=torch.float64))
    assert disagreement(x, estimator="likelihood") == 1.0
    assert disagreement(group(1, 1, behavior_logp=torch.tensor([0.0, -500.0])), estimator="likelihood") == 0.0


# ---- identities -----------------------------------------------------------------------------------------------------

ANSWERS = st.lists(st.integers(-1, 4), min_size=2, max_size=9)


@settings(deadline=None)
@given(ANSWERS, st.sampled_from(FORMS), st.sampled_from(["counts", "likelihood"]))
def test_without_strength_nothing_changes(answers, form, estimator):
    rewards = [float(answer == 0) for answer in answers]
    x = group(*answers, rewards=rewards, behavior_logp=-torch.arange(1.0, len(answers) + 1))
    for of in (GroupCentered(), GroupStandardized()):
        assert torch.equal(SemanticEntropyScaled(of, form, 0.0, estimator)(x), of(x))


@settings(deadline=None)
@given(ANSWERS, st.sampled_from(FORMS), st.floats(0, 1), st.sampled_from(["counts", "likelihood"]))
def test_a_group_shares_one_factor_between_nothing_and_one(answers, form, strength, estimator):
    rewards = [float(answer == 0) for answer in answers]
    x = group(*answers, rewards=rewards, behavior_logp=-torch.arange(1.0, len(answers) + 1))
    part = SemanticEntropyScaled(form=form, strength=strength, estimator=estimator)
    shared = factor(x, form=form, strength=strength, estimator=estimator)
    assert 0 <= shared <= 1
    torch.testing.assert_close(part(x), shared * GroupCentered()(x))
    if len(set(answers)) == 1:
        assert shared == 1


@settings(deadline=None)
@given(ANSWERS, st.sampled_from(FORMS))
def test_merging_two_meanings_never_makes_the_step_smaller(answers, form):
    merged = [0 if answer == 1 else answer for answer in answers]
    options = {"form": form, "strength": 1.0}
    assert factor(group(*merged), **options) >= factor(group(*answers), **options) - 1e-12


@settings(deadline=None, max_examples=30)
@given(ANSWERS, st.permutations(range(-1, 5)), st.integers(0, 99))
def test_names_and_order_of_answers_mean_nothing(answers, names, seed):
    order = torch.randperm(len(answers), generator=torch.Generator().manual_seed(seed)).tolist()
    other = [names[answers[place] + 1] for place in order]
    assert factor(group(*other), strength=1.0) == pytest.approx(factor(group(*answers), strength=1.0))


def test_groups_are_judged_apart():
    x = Experience.from_lengths(
        [1] * 6, [1] * 6, [2, 4], reward=[1.0, 0, 1, 0, 0, 0], answer=torch.tensor([1, 1, 1, 2, 3, 4])
    )
    assert SemanticEntropyScaled().disagreement(x).tolist() == pytest.approx([0, 1])


# ---- what counts ----------------------------------------------------------------------------------------------------


def test_answers_that_cannot_be_read_are_alike_unless_told_apart():
    x = group(-1, -1, -1, -1)
    assert disagreement(x) == 0
    assert disagreement(x, unreadable="apart") == pytest.approx(1)
    mixed = group(7, 7, -1, -1)
    assert disagreement(mixed) == pytest.approx(1 / 2)
    # Shares 1/2, 1/4, 1/4.
    assert disagreement(mixed, unreadable="apart") == pytest.approx(3 / 4)


@pytest.mark.parametrize("estimator", ["counts", "likelihood"])
def test_one_answer_alone_neither_agrees_nor_disagrees(estimator):
    assert disagreement(group(3, behavior_logp=-torch.ones(1)), estimator=estimator) == 0


@pytest.mark.parametrize("estimator", ["counts", "likelihood"])
def test_demonstrations_do_not_count(estimator):
    said = -torch.ones(4)
    x = group(1, 2, 3, 3, behavior_logp=said, demonstrated=[False, False, True, True])
    alone = group(1, 2, behavior_logp=said[:2])
    assert disagreement(x, estimator=estimator) == pytest.approx(disagreement(alone, estimator=estimator)) == 1


def test_tokens_that_may_not_train_do_not_count_whatever_they_hold():
    def mixed(lengths: list[int], logp: list[float], mask: list[bool]) -> Experience:
        return Experience.from_lengths(
            lengths, [1] * 3, [3], reward=[1.0, 0, 0], answer=torch.tensor([1, 1, 2]), behavior_logp=torch.tensor(logp),
            mask=mask,
        )  # fmt: skip

    wide = mixed([2, 1, 2], [-1, math.nan, -2, -math.inf, -0.5], [True, False, True, False, True])
    plain = mixed([1, 1, 1], [-1, -2, -0.5], [True] * 3)
    assert disagreement(wide, estimator="likelihood") == pytest.approx(disagreement(plain, estimator="likelihood"))
    # The last answer has no token left: two that agree remain.
    without = mixed([1, 1, 1], [-1, -2, -0.5], [True, True, False])
    assert disagreement(without, estimator="likelihood") == 0


def test_meanings_may_be_told_in_another_way():
    @dataclass(frozen=True)
    class _SameParity(SemanticEntropyScaled):
        def meaning(self, x: Experience) -> torch.Tensor:
            return x.answer % 2

    assert float(_SameParity().disagreement(group(0, 2, 1, 3))[0]) == pytest.approx(1 / 2)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_is_missing_or_no_number_is_named():
    x = group(1, 2, behavior_logp=torch.tensor([-1.0, math.nan]))
    with pytest.raises(ValueError, match=r"semantic_entropy_scaled: x\.behavior_logp of token 1 is nan"):
        SemanticEntropyScaled(estimator="likelihood")(x)
    with pytest.raises(ValueError, match=r"needs x\.behavior_logp"):
        SemanticEntropyScaled(estimator="likelihood")(x.replace(behavior_logp=None))
    with pytest.raises(ValueError, match=r"needs x\.answer"):
        SemanticEntropyScaled()(x.replace(answer=None))


def test_settings_out_of_range_are_refused():
    with pytest.raises(
        InputError, match=r"semantic_entropy_scaled\.strength = 1\.5: must be at most 1 for form = linear"
    ):
        SemanticEntropyScaled(form="linear", strength=1.5)
    with pytest.raises(InputError, match=r"semantic_entropy_scaled\.strength = -1"):
        SemanticEntropyScaled(strength=-1)
    with pytest.raises(InputError, match=r"semantic_entropy_scaled\.form = 'cubic'"):
        SemanticEntropyScaled(form="cubic")


def test_it_reads_probabilities_only_for_the_estimator_that_needs_them():
    assert SemanticEntropyScaled().needs() == {"answer"}
    assert SemanticEntropyScaled(estimator="likelihood").needs() == {"answer", "behavior_logp"}
    assert SemanticEntropyScaled().least_group() == 2
