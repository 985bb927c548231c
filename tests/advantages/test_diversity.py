"""A bonus for good answers that lie far from the rest of their group."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import DiversityBonus, GroupCentered, GroupStandardized
from stratagem.advantages.diversity import _APART, _MIX, _SPREAD, group_distance
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import CACHED


def answers(tokens: list[list[int]], returns: list[float], sizes: list[int] | None = None, **fields) -> Experience:
    return Experience.from_lengths(
        [len(answer) for answer in tokens],
        [1] * len(tokens),
        [len(tokens)] if sizes is None else sizes,
        action=torch.tensor([token for answer in tokens for token in answer]),
        reward=torch.tensor(returns, dtype=torch.float64),
        **fields,
    )


def by_answer(x: Experience, values: torch.Tensor) -> list[float]:
    return values[x.trajectory_of_token.first()].tolist()


SAME, OTHER = [1, 2, 3], [40, 50, 60, 70]


def test_distances_are_those_of_the_angle_to_the_middle_of_the_group():
    """Three equal answers and one without a common word: v = e1 (three times) and e2, so the middle is (3, 1)."""
    distance = group_distance(answers([SAME, SAME, SAME, OTHER], [0.0] * 4), width=2**20)
    near, far = 1 - 3 / 10**0.5, 1 - 1 / 10**0.5
    torch.testing.assert_close(distance, torch.tensor([near, near, near, far], dtype=torch.float64), atol=1e-9, rtol=0)


def test_only_answers_that_are_not_below_the_mean_are_paid_for_being_different():
    x = answers([SAME, OTHER, SAME, OTHER[::-1]], [1.0, 1.0, 0.0, 0.0])
    distance = group_distance(x)
    credit = DiversityBonus(GroupCentered(), strength=0.5)(x)
    extra = 0.5 * (distance - distance.mean())
    torch.testing.assert_close(by_answer(x, credit), [0.5 + float(extra[0]), 0.5 + float(extra[1]), -0.5, -0.5])
    assert float(extra[1]) > 0 > float(extra[0])


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_the_worst_answer_never_comes_to_a_positive_advantage(seed):
    source = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 9, (6, 4), generator=source).tolist()
    returns = torch.randint(0, 3, (6,), generator=source).double().tolist()
    x = answers(tokens, returns, [3, 3])
    credit = DiversityBonus(strength=100.0)(x).view(6, 4)[:, 0]
    worst = x.group_of_trajectory.spread(x.group_of_trajectory.min(x.returns)) == x.returns
    assert float(credit[worst].max()) <= 0


def test_a_group_of_equal_returns_keeps_its_credit():
    x = answers([SAME, OTHER, SAME], [0.1, 0.1, 0.1])
    assert DiversityBonus(strength=3.0)(x).abs().max() == 0


@pytest.mark.parametrize("base", [GroupCentered(), GroupStandardized()])
def test_at_strength_zero_it_is_what_it_wraps(base):
    x = answers([SAME, OTHER, SAME], [1.0, 0.5, 0.0])
    assert torch.equal(DiversityBonus(base, 0.0)(x), base(x))


def test_tokens_that_may_not_train_say_nothing_of_an_answer():
    mask = torch.tensor([True] * 3 + [True] * 3 + [False] + [True] * 3)
    x = answers([SAME, [*SAME, 99], OTHER[:3]], [1.0, 1.0, 0.0], mask=mask)
    distance = group_distance(x)
    assert float(distance[0]) == float(distance[1])
    credit = DiversityBonus()(x)
    assert float(credit[6]) == 0 and credit.isfinite().all()
    huge = x.replace(action=x.action.where(mask, -(2**62)))
    assert torch.equal(DiversityBonus()(huge), credit)


def test_neighbours_count_so_the_same_tokens_in_another_order_differ():
    assert float(group_distance(answers([[1, 2, 3], [3, 1, 2], [1, 2, 3]], [0.0] * 3)).max()) > 0.05


def test_words_of_one_answer_do_not_reach_over_to_the_next():
    alone = group_distance(answers([SAME, OTHER], [0.0] * 2))
    beside = group_distance(answers([[9], SAME, OTHER, [8]], [0.0] * 4, [1, 2, 1]))
    assert torch.equal(alone, beside[1:3]) and float(beside[0].abs()) < 1e-12


def test_a_weight_below_zero_is_refused_and_actions_are_needed():
    with pytest.raises(InputError, match="strength"):
        DiversityBonus(strength=-1.0)
    with pytest.raises(ValueError, match="action"):
        DiversityBonus()(answers([SAME, OTHER], [0.0, 1.0]).replace(action=None))
    with pytest.raises(ValueError, match="numbers of tokens"):
        DiversityBonus()(answers([SAME, OTHER], [0.0, 1.0]).replace(action=torch.rand(7, 2)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [3, 64])
def test_counting_in_blocks_is_counting_all_tokens_at_once(masked, width):
    random = torch.Generator().manual_seed(1000)
    sizes, tokens = [CACHED - 1, 2, 5, CACHED + 30, 1, 7], 2 * CACHED + 44
    action = torch.randint(9, (tokens,), generator=random)
    mask = torch.rand(tokens, generator=random) < 0.8 if masked else None
    x = Experience.from_lengths(sizes, [1] * 6, [6], action=action, reward=torch.zeros(6), mask=mask)

    trajectory, kept, cells = x.trajectory_of_token.labels, x.learnable(), 2 * width
    word = action * _SPREAD + _APART
    pair = word[:-1] * _MIX + word[1:]
    together = (trajectory[1:] == trajectory[:-1]) & kept[1:] & kept[:-1]
    counts = torch.zeros(6 * cells, dtype=torch.int64)
    for hashes, present, row in ((word, kept, trajectory), (pair, together, trajectory[1:])):
        place = ((((hashes >> 32) & (2**32 - 1)) * cells) >> 32) + row * cells
        counts += torch.bincount(place[present], minlength=6 * cells)
    signed = counts.view(6, width, 2)
    unit = torch.nn.functional.normalize((signed[..., 0] - signed[..., 1]).double(), dim=1)
    expected = 1 - torch.nn.functional.cosine_similarity(unit, unit.sum(0, keepdim=True), dim=1)
    torch.testing.assert_close(group_distance(x, width), expected, rtol=0, atol=1e-12)
