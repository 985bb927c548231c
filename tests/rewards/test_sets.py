"""What a set of candidates is worth under random weights."""

from __future__ import annotations

import itertools

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import BestCandidate
from stratagem.rewards.sets import dirichlet


def sets(*candidates: list[list[float]], seed: int = 7, group: int | None = None) -> Experience:
    """Trajectories of one token, each with its candidates' rewards; one group, or several of ``group``."""
    rewards = torch.tensor(candidates, dtype=torch.float64)
    rows, count, dims = rewards.shape
    names = ["first", *(f"r{j}@{k + 1}" for k in range(count) for j in range(dims))]
    reward = torch.cat([torch.zeros(rows, 1, dtype=torch.float64), rewards.reshape(rows, -1)], 1)
    size = rows if group is None else group
    return Experience.from_lengths(
        [1] * rows,
        [1] * rows,
        [size] * (rows // size),
        reward=reward,
        reward_names=tuple(names),
        reward_weights=(1.0, *(0.0 for _ in names[1:])),
        seed=torch.arange(seed, seed + rows),
    )


def score(*candidates: list[list[float]], draws: int = 20_000, **fields: object) -> list[float]:
    return BestCandidate(draws, **fields)(sets(*candidates)).returns.tolist()


def test_specialised_candidates_are_worth_more_than_balanced_ones():
    balanced, specialised = [[0.6, 0.6]] * 2, [[0.8, 0.4], [0.4, 0.8]]
    found = score([[1, 0], [0, 1]], [[1, 0], [1, 0]], balanced, specialised)
    assert found == pytest.approx([0.75, 0.5, 0.6, 0.7], abs=0.01)
    assert found[2] == pytest.approx(0.6, abs=1e-9), "weights add up to 1"


@pytest.mark.parametrize(("dims", "expected"), [(2, 0.75), (3, 0.61111), (4, 0.52083)])
def test_one_candidate_for_each_reward_is_worth_the_mean_greatest_weight(dims, expected):
    """``E max_j w_j = H_d / d``."""
    assert score(torch.eye(dims).tolist())[0] == pytest.approx(expected, abs=0.01)


def test_a_single_candidate_is_worth_the_mean_of_its_rewards():
    assert score([[0.9, 0.3, 0.0]])[0] == pytest.approx(0.4, abs=0.01)


def test_one_more_candidate_never_lowers_the_score_and_order_does_not_matter():
    source = torch.Generator().manual_seed(3)
    for _ in range(20):
        three = torch.rand(3, 4, generator=source).tolist()
        lower = [value / 2 for value in three[0]]
        found = score(three, [*three[:2], [0.0] * 4], [*three[:2], lower], [*three[:2], three[0]], three[::-1], draws=8)
        assert found[0] >= found[1]
        assert found[1] == found[2] == found[3], "a candidate that is dominated, or there already, adds nothing"
        assert found[0] == pytest.approx(found[4], abs=1e-12)


@pytest.mark.parametrize("draws", [1, 3, 8])
def test_weights_are_shared_by_a_group_and_differ_between_groups(draws):
    same = [[0.9, 0.1, 0.3], [0.2, 0.7, 0.5]]
    found = BestCandidate(draws)(sets(*[same] * 8, group=4)).returns.reshape(2, 4)
    assert bool((found == found[:, :1]).all())
    assert found[0, 0] != found[1, 0]


def test_weights_follow_from_the_seeds_of_a_group_in_whatever_order_it_comes():
    x = sets([[0.9, 0.1]], [[0.2, 0.7]], [[0.5, 0.5]])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(BestCandidate()(x).returns[order], BestCandidate()(x.select(order)).returns)
    others = BestCandidate()(x.replace(seed=x.seed + 100)).returns
    assert not torch.equal(others, BestCandidate()(x).returns)


def test_a_large_concentration_weighs_all_rewards_alike():
    found = score([[0.9, 0.3, 0.0], [0.2, 0.7, 0.6]], draws=8, concentration=1e9)
    assert found[0] == pytest.approx(0.5, abs=1e-3)


def test_fixed_weights_take_the_best_candidate_under_them_and_need_no_seed():
    x = sets([[1, 0], [0, 1]], [[0.6, 0.6], [0, 0]]).replace(seed=None)
    part = BestCandidate(weights=(0.7, 0.3))
    assert part(x).returns.tolist() == pytest.approx([0.7, 0.6])
    assert "seed" not in part.needs() and "seed" in BestCandidate().needs()
    with pytest.raises(InputError, match=r"weights = \(1\.0,\): must be one for each of the rewards r0, r1"):
        BestCandidate(weights=(1.0,))(x)


def test_with_one_reward_it_is_the_best_of_the_set_whatever_the_weights():
    assert score([[0.2], [0.9]], [[0.1], [0.0]], draws=3) == pytest.approx([0.9, 0.1], abs=1e-12)


def test_a_task_without_sets_is_a_set_of_one_of_what_it_pays_for():
    reward = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]])
    x = Experience.from_lengths(
        [1, 1],
        [1, 1],
        [2],
        reward=reward,
        reward_names=("right", "brief", "noted"),
        reward_weights=(1.0, 0.5, 0.0),
        seed=torch.tensor([1, 2]),
    )
    shaped = BestCandidate(20_000)(x)
    assert shaped.returns.tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert shaped.reward_weights == (1.0, 0.0, 0.0) and shaped.named_reward("brief").tolist() == [0.0, 1.0]
    bare = Experience.from_lengths([1], [1], [1], turn_reward=[0.5], seed=torch.tensor([1]))
    assert BestCandidate()(bare).returns.tolist() == [0.5]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([[1.0, 0.0], [0.0, float("nan")]], r"candidate 2 of trajectory 0 has r1 nan: must be finite and at least 0"),
        ([[1.0, 0.0], [-0.5, 0.0]], r"candidate 2 of trajectory 0 has r0 -0\.5: must be finite and at least 0"),
    ],
)
def test_what_cannot_be_compared_with_a_missing_candidate_is_refused(candidates, message):
    with pytest.raises(InputError, match=message):
        BestCandidate()(sets(candidates))


def test_a_reward_below_0_is_fine_where_no_candidate_can_be_missing():
    assert score([[-0.5]]) == [-0.5]


def test_candidates_need_the_same_rewards_and_seeds():
    x = sets([[1.0, 0.0], [0.0, 1.0]])
    names = tuple(name.replace("r1@2", "other@2") for name in x.reward_names)
    with pytest.raises(InputError, match="there is no reward 'other@1'; every candidate needs the same rewards"):
        BestCandidate()(x.replace(reward_names=names))
    with pytest.raises(ValueError, match=r"needs x\.seed"):
        BestCandidate()(x.replace(seed=None))
    with pytest.raises(InputError, match="concentration"):
        BestCandidate(concentration=0)


def test_a_reward_of_negative_weight_and_rewards_that_do_not_count_are_refused():
    x = Experience.from_lengths([1], [1], [1], reward=torch.tensor([[1.0, 1.0]]), seed=torch.tensor([1]))
    with pytest.raises(InputError, match=r"weight of reward 'reward_1' = -1\.0: must be at least 0"):
        BestCandidate()(x.replace(reward_weights=(1.0, -1.0)))
    with pytest.raises(InputError, match="none of the rewards reward_0, reward_1 counts"):
        BestCandidate()(x.replace(reward_weights=(0.0, 0.0)))


@pytest.mark.parametrize("concentration", [0.02, 0.5, 1.0, 6.0])
def test_weights_have_the_moments_of_their_distribution(concentration):
    """``E w = 1/d``, ``Var w = (1/d)(1 - 1/d) / (d c + 1)``, ``Cov = -1/d^2 / (d c + 1)``."""
    drawn = dirichlet(torch.arange(40_000), 1, 3, concentration)[:, 0]
    assert drawn.sum(1).tolist() == pytest.approx([1.0] * len(drawn), abs=1e-12)
    assert drawn.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    scale = 3 * concentration + 1
    covariance = torch.cov(drawn.T)
    assert covariance.diagonal().tolist() == pytest.approx([2 / 9 / scale] * 3, rel=0.04)
    for i, j in itertools.combinations(range(3), 2):
        assert float(covariance[i, j]) == pytest.approx(-1 / 9 / scale, rel=0.06)
