"""Failed groups sampled once more: when, which successes take whose place, and what stays comparable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import Resampled, nonsense, regrouped
from stratagem.sampling.nonsense import LATIN, LOREM
from stratagem.sampling.resampling import failed_groups

FAMILIES = ("lorem", "latin", "latin_words", "latin_trigrams", "english_words", "fake_english", "ascii")


def batch(groups: list[list[int]], behavior: float = -1.0) -> Experience:
    """A token for every trajectory, which succeeds or not."""
    success = torch.tensor([value for group in groups for value in group], dtype=torch.bool)
    return Experience.from_lengths(
        [1] * len(success),
        [1] * len(success),
        [len(group) for group in groups],
        behavior_logp=torch.full((len(success),), behavior),
        reward=success.float(),
        success=success,
    )


def swap(successes: int, size: int = 8, drawn: int = 24) -> Experience:
    fresh = batch([[1] * successes + [0] * (drawn - successes)], -2.0)
    return regrouped(batch([[0] * size]), fresh, torch.tensor([0])).x


@pytest.mark.parametrize(("successes", "swapped"), [(3, 3), (7, 7), (12, 7), (24, 7)])
def test_as_many_successes_are_swapped_in_as_leave_one_failure(successes, swapped):
    x = swap(successes)
    learned = x.mask
    assert int(learned.sum()) == 8 and int((learned & x.success).sum()) == swapped
    assert torch.equal(learned & x.success, learned & x.resampled)
    assert x.groups == 1 and x.trajectories == 32
    assert set(x.behavior_logp[learned & x.resampled].tolist()) == {-2.0}
    assert set(x.behavior_logp[learned & ~x.resampled].tolist()) == {-1.0}


def test_credit_is_over_all_rewards_of_a_group_and_does_not_add_up_to_nothing():
    x = swap(3)
    advantage = GroupStandardized(correction=0, eps=0.0)(x)
    # Mean 0.09375, deviation 0.29148.
    torch.testing.assert_close(advantage[x.mask & x.success], torch.full((3,), 3.1091), atol=1e-4, rtol=0)
    torch.testing.assert_close(advantage[x.mask & ~x.success], torch.full((5,), -0.3216), atol=1e-4, rtol=0)
    kept = x.select(x.mask)
    among_kept = GroupStandardized(correction=0, eps=0.0)(kept)
    torch.testing.assert_close(among_kept.unique(), torch.tensor([-0.7746, 1.2910]), atol=1e-4, rtol=0)
    assert float(advantage[x.mask].sum()) > 1


def test_a_group_stays_as_it_was_where_the_new_trajectories_fail_too():
    x = batch([[0, 0], [1, 0], [0, 0]])
    fresh = batch([[0, 0, 0], [0, 1, 0]])
    found = regrouped(x, fresh, torch.tensor([0, 2]))
    assert found.x.group_of_trajectory.size().tolist() == [2, 2, 5]
    assert found.x.mask.tolist() == [True] * 4 + [False, True] + [False, True, False]
    assert found.metrics == {
        "groups/failed": 2,
        "groups/rescued": 1,
        "resampled/trajectories": 6,
        "resampled/swapped": 1,
        "resampled/success": pytest.approx(1 / 6),
    }
    nothing = regrouped(x, batch([[0], [0]]), torch.tensor([0, 2]))
    assert nothing.x is x and nothing.metrics["groups/failed"] == 2


def test_a_group_with_a_success_has_not_failed():
    assert failed_groups(batch([[0, 1], [0, 0]])).tolist() == [False, True]


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(0, 1), min_size=1, max_size=6),
)
def test_every_group_learns_from_as_many_as_it_had_and_from_a_failure(groups, drawn):
    x = batch(groups)
    failed = torch.nonzero(failed_groups(x)).squeeze(1)
    if not len(failed):
        return
    found = regrouped(x, batch([drawn] * len(failed)), failed).x
    learned = found.group_of_trajectory.sum(found.learnable().long())
    assert learned.tolist() == [len(group) for group in groups]
    failures = found.group_of_trajectory.sum((found.learnable() & ~found.success).long())
    assert all(failures[number] >= 1 for number in failed)


def test_importance_weights_make_perturbed_samples_as_good_as_clean_ones():
    clean, perturbed = (torch.tensor(p, dtype=torch.float64) for p in ((0.01, 0.49, 0.5), (0.1, 0.4, 0.5)))
    worth = torch.tensor([1.0, 0.2, -0.3], dtype=torch.float64)
    torch.testing.assert_close((perturbed * (clean / perturbed) * worth).sum(), (clean * worth).sum())


# ---- nonsense -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_nonsense_has_its_words_and_follows_from_its_seed(family):
    texts = [nonsense(family, 120, seed) for seed in (5, 5, 6)]
    assert [len(text.split(" ")) for text in texts] == [120] * 3
    assert texts[0] == texts[1] != texts[2]


def test_lorem_has_seventy_words_each_as_likely_as_another():
    assert len(set(LOREM)) == len(LOREM) == 70
    drawn = nonsense("lorem", 14_000, 1).split(" ")
    counts = [drawn.count(word) for word in LOREM]
    assert sum(counts) == 14_000 and min(counts) > 120 and max(counts) < 280


def test_latin_is_a_passage_and_trigrams_are_of_it():
    ring = [*LATIN, *LATIN, *LATIN]
    words = nonsense("latin", len(LATIN) + 10, 3).split(" ")
    assert any(ring[start : start + len(words)] == words for start in range(len(LATIN)))
    of_passage = set(zip(ring, ring[1:], ring[2:], strict=False))
    chain = nonsense("latin_trigrams", 200, 3).split(" ")
    assert set(zip(chain, chain[1:], chain[2:], strict=False)) <= of_passage


def test_lengths_lie_between_the_bounds_and_use_them():
    sampler = Resampled(fewest=2, most=4)
    lengths = {len(sampler.nonsense(seed).split(" ")) for seed in range(60)}
    assert lengths == {2, 3, 4}
    assert Resampled(words=None).nonsense(1) == ""
    assert sampler.before("lorem ipsum").startswith("lorem ipsum\n\nPlease reason step by step")
    assert Resampled(boundary="").before("lorem") == "lorem\n\n" and sampler.before("") == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fewest": 5, "most": 4}, "fewest = 5: must be at most most = 4"),
        ({"demonstrations": 1}, "demonstrations = 1: must be 0"),
        ({"words": "greek"}, "words"),
        ({"mixture": 1.5}, "mixture"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Resampled(**fields)


def test_an_unknown_family_is_refused():
    with pytest.raises(InputError, match="family of nonsense"):
        nonsense("greek", 3, 0)
