"""Rewards for unsure thoughts: numbers worked by hand, what counts as a thought, and what is remembered."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import WindowEntropyReward
from stratagem.rewards.windows import graded_entropy, window_means


def graded(bucket: int, success: bool, counts: list[float], target: float = 10.0, alpha: float = 0.5) -> list[float]:
    n = torch.tensor(counts, dtype=torch.float64)

    def all_of(value):
        return torch.full(n.shape, value)

    return graded_entropy(n, all_of(target), all_of(alpha), all_of(bucket), all_of(success)).tolist()


@pytest.mark.parametrize(
    ("bucket", "success", "count", "total"),
    [
        (0, True, 10, 1.0),
        (0, True, 15, 0.6429),
        (0, False, 10, 0.15),
        (1, True, 16, 0.8182),
        (1, True, 4, 0.8182),
        (1, False, 10, 0.2),
        (2, True, 10, 1.4575),
        (2, True, 2, 0.9),
        (2, False, 10, 0.3),
    ],
)
def test_rewards_are_those_worked_by_hand(bucket, success, count, total):
    assert success + graded(bucket, success, [count])[0] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("target", [0.0, 3.0, 10.0])
def test_rewards_go_the_right_way_and_stay_within_their_caps(target):
    counts = list(range(100))
    for bucket, cap in ((0, 0.5), (1, 0.5), (2, 0.6)):
        for success in (True, False):
            earned = graded(bucket, success, counts, target)
            assert max(map(abs, earned)) <= cap + 1e-6
            steps = [b - a for a, b in pairwise(earned)]
            if success and bucket == 0:
                assert max(steps) <= 0 > min(steps)
            if bucket == 2 or not success:
                assert min(steps) >= 0 < max(steps)


def answers(entropies: list[list[float]], success: list[bool], groups: list[int], **fields) -> Experience:
    return Experience.from_lengths(
        [len(e) for e in entropies],
        [1] * len(entropies),
        groups,
        entropy=torch.tensor(list(chain(*entropies))),
        success=success,
        reward=torch.tensor(success).float(),
        **fields,
    )


def test_a_window_is_of_the_tokens_after_its_own_and_of_its_own_answer():
    x = answers([[9.0, 1, 1, 1, 1, 5], [7.0, 2, 2, 2, 3], [4.0, 4]], [True] * 3, [3])
    rows, mean = window_means(x, 4)
    assert rows.tolist() == list(range(13))
    assert mean[[0, 1, 6]].tolist() == [1, 2, 2.25]
    assert mean[[2, 3, 4, 5, 7, 8, 9, 10, 11, 12]].isnan().all()
    assert window_means(x, 50)[1].isnan().all()


def test_windows_pass_over_what_may_not_train_and_refuse_what_is_no_number():
    x = answers([[9.0, 1, math.nan, 3]], [True], [1], mask=[True, True, False, True])
    rows, mean = window_means(x, 2)
    assert (rows.tolist(), mean[0].item()) == ([0, 1, 3], 2)
    with pytest.raises(ValueError, match="not finite"):
        window_means(x.replace(mask=None), 2)


def test_a_thought_begins_with_a_trigger_before_an_unsure_window():
    # Both answers have 8 as their second and fourth token; what follows is unsure in the first alone.
    x = answers(
        [[0.0, 0, 1, 0, 1, 0], [1.0, 0, 0, 0, 0, 0]], [True, True], [2], action=torch.tensor([7, 8, 7, 8, 7, 7] * 2)
    )
    part = WindowEntropyReward(triggers=(8,), width=1, alpha_rate=0.0)
    part.memory()["theta"].fill_(0.5)
    # Counts are 2 and 0, their mean 1, so the easy bucket's target is 1 and neither is beyond the margin of 1.
    assert part(x).returns.tolist() == [1.0, 1.0]
    # With four without a thought the mean is 0.4, the target 0: the first is beyond the margin by 1.
    sure = [[1.0, 0, 0, 0, 0, 0]] * 4
    actions = torch.tensor([7, 8, 7, 8, 7, 7] * 5)
    more = answers([[0.0, 0, 1, 0, 1, 0], *sure], [True] * 5, [5], action=actions)
    assert part(more).returns.tolist() == pytest.approx([1 - 0.25 / 3 * 0.5, 1, 1, 1, 1])
    # Without triggers any token may begin one: there the zeroth entropy of the second answer is still none's window.
    any_token = WindowEntropyReward(width=1, alpha_rate=0.0)
    any_token.memory()["theta"].fill_(0.5)
    assert torch.equal(any_token(more).returns, part(more).returns)


def test_the_threshold_begins_with_the_first_batch_and_follows_the_median():
    x = answers([[0.0, 1, 2, 3], [0.0, 0, 0, 0], [5.0]], [True, False, False], [3])
    part = WindowEntropyReward(width=1, quantile=1.0, smoothing=0.75)
    part(x)
    # The last has no window and counts with its own entropy: 3, 0 and 5, mean 8 / 3, median 3.
    assert float(part.memory()["theta"]) == pytest.approx(0.75 * 8 / 3 + 0.25 * 3)
    part(x)
    assert float(part.memory()["theta"]) == pytest.approx(0.75 * (0.75 * 8 / 3 + 0.75) + 0.75)


def test_weights_follow_the_mean_that_the_target_rounds_and_stay_where_there_is_no_group():
    # Two easy answers with 1 and 0 thoughts, then one more without: means 1/2 (to even: 0) and 1/3.
    part = WindowEntropyReward(width=1, alpha_rate=0.1)
    part.memory()["theta"].fill_(0.5)
    part(answers([[0.0, 1], [0.0, 0]], [True, True], [2]))
    assert part.memory()["alpha"].tolist() == pytest.approx([0.55, 0.5, 0.5])
    hard = WindowEntropyReward(width=1, alpha_rate=0.1)
    hard.memory()["theta"].fill_(0.5)
    hard(answers([[0.0, 1], [0.0, 0]], [False, False], [2]))
    assert hard.memory()["alpha"].tolist() == pytest.approx([0.5, 0.5, 0.45])


def test_no_weight_changes_no_reward_and_the_memory_is_restored():
    x = answers([[0.0, 1, 2, 3], [0.0, 0, 0, 1]], [True, False], [2])
    part = WindowEntropyReward(width=1, alpha=0.0, alpha_rate=0.0)
    assert torch.equal(part(x).returns, x.returns)
    fresh = WindowEntropyReward(width=1)
    fresh.load_state_dict(part.state_dict())
    assert torch.equal(fresh.memory()["theta"], part.memory()["theta"])
    assert fresh.memory()["alpha"].tolist() == [0, 0, 0]


def test_no_triggers_at_all_and_missing_figures_are_refused():
    with pytest.raises(InputError, match=r"window_entropy_reward\.triggers"):
        WindowEntropyReward(triggers=())
    x = answers([[0.0, 1.0]], [True], [1])
    with pytest.raises(ValueError, match=r"x\.action"):
        WindowEntropyReward(triggers=(3,), width=1)(x)
    with pytest.raises(ValueError, match=r"x\.success"):
        WindowEntropyReward()(x.replace(success=None))
    with pytest.raises(ValueError, match=r"x\.entropy"):
        WindowEntropyReward()(x.replace(entropy=None))


@pytest.mark.parametrize("width", [1, 4, 9])
def test_the_first_threshold_is_the_mean_quantile_of_windows_looked_up_one_by_one(width):
    random = torch.Generator().manual_seed(1000)
    sizes = [1, 12, 3, 30, 5, 10, 2, 25]
    entropies = [torch.rand(size, generator=random).tolist() for size in sizes]
    mask = torch.rand(sum(sizes), generator=random) < 0.8
    mask[0] = False  # So that the first answer has no token that may train.
    x = answers(entropies, [True, False] * 4, [4, 4], mask=mask)
    expected, begun = [], []
    for values, kept in zip(x.entropy.double().split(sizes), mask.split(sizes), strict=True):
        own = values[kept]
        means = [own[i + 1 : i + 1 + width].mean() for i in range(len(own) - width)]
        begun.append(means)
        if len(own):
            expected.append(torch.quantile(torch.stack(means) if means else own, 0.95))
    reward = WindowEntropyReward(width=width, smoothing=1.0)
    reward(x)
    theta = float(reward.memory()["theta"])
    assert theta == pytest.approx(float(torch.stack(expected).mean()), abs=1e-12)
    rows, window = window_means(x, width)
    found = torch.bincount(x.trajectory_of_token.labels[rows[window >= theta]], minlength=8)
    assert found.tolist() == [sum(bool(mean >= theta) for mean in means) for means in begun]
