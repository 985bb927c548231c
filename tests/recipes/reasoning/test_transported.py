"""Rewards put on one scale, through the recipes: what each is against GRPO, and that it learns."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.advantages import GaussianRanks, GroupStandardized, PerReward, SpreadWeighted
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.objectives import EntropyRange
from stratagem.study.experiments import learn


def group(first: list[float], second: list[float]) -> Experience:
    """One group of answers of two tokens, with two rewards."""
    rows = len(first)
    reward = torch.tensor([first, second]).T.contiguous()
    names = ("accuracy", "brevity")
    return Experience.from_lengths(
        [2] * rows, [1] * rows, [rows], reward=reward, reward_names=names, reward_weights=(1.0, 1.0)
    )


# ---- dvao -----------------------------------------------------------------------------------------------------------


def test_dvao_is_grpo_over_the_sum_of_deviations():
    recipe = recipes.dvao()
    x = recipe.prepare(group([1, 0, 1, 0], [1, 1, 0, 1]))
    assert x.advantage is not None
    expected = [value for value in (0.80385, -0.26795, -0.26795, -0.26795) for _ in range(2)]
    assert x.advantage.tolist() == pytest.approx(expected, abs=2e-5)
    assert recipe.objective == recipes.grpo().objective and recipe.sampler.group_size == 16
    assert catalogue.card("dvao").base == "grpo"


def test_dvao_takes_weights_of_its_own_and_only_their_proportions_matter():
    x = group([1, 0, 1, 0], [1, 1, 0, 1])
    ours, twice = (recipes.dvao(weights).prepare(x).advantage for weights in ((0.8, 0.2), (4.0, 1.0)))
    torch.testing.assert_close(ours, twice, atol=1e-6, rtol=0)
    right_but_long = [recipes.dvao(weights).prepare(x).advantage[4] for weights in ((0.5, 0.5), (0.8, 0.2))]
    assert right_but_long[0] < 0 < right_but_long[1]
    with pytest.raises(InputError, match=r"weight of reward 'brevity' = -1\.0: must be at least 0"):
        recipes.dvao((1.0, -1.0)).prepare(x)


def test_what_dvao_is_compared_with_is_one_part_away():
    found = [recipes.dvao().with_values({"advantage": name}).advantage for name in ("group_standardized", "per_reward")]
    assert found == [GroupStandardized(), PerReward()]
    assert recipes.dvao().advantage == SpreadWeighted(GroupStandardized(0, 0.0))


def test_dvao_learns_both_rewards_of_a_game():
    run = learn(recipes.dvao((0.8, 0.2)), LabTask(find_game("styles")), 1000, 40)
    brief_and_right = [float(policy.logp[0, 0].exp()) for policy in (run.policies[0], run.last)]
    assert brief_and_right[0] < 0.1 and brief_and_right[1] > 0.5


# ---- g2rpo_openvlthinkerv2 ------------------------------------------------------------------------------------------


def graded(rewards: list[float], lengths: list[int]) -> Experience:
    """Groups of four answers of these lengths."""
    rows = len(rewards)
    return Experience.from_lengths(lengths, [1] * rows, [4] * (rows // 4), reward=rewards)


def test_g2rpo_ranks_and_leaves_out_groups_of_equal_returns():
    recipe = recipes.g2rpo_openvlthinkerv2()
    x = recipe.prepare(graded([0, 0, 0, 5] + [1] * 4, [1] * 8))
    assert x.groups == 1
    torch.testing.assert_close(x.advantage, GaussianRanks()(graded([0, 0, 0, 1], [1] * 4)))
    assert recipe.objective == recipes.grpo().objective and recipe.sampler == recipes.grpo().sampler
    assert recipes.g2rpo_openvlthinkerv2(over="domain").advantage == GaussianRanks("domain")


def test_g2rpo_pays_for_length_before_it_ranks():
    rewards, lengths = [0.0, 0.0, 1.0, 1.0], [10, 2, 10, 2]
    plain, shaped = (
        recipes.g2rpo_openvlthinkerv2(length=length).prepare(graded(rewards, lengths)).advantage[[0, 10, 12, 22]]
        for length in (None, (4, 8, 16, 32))
    )
    assert plain[0] == plain[1] < plain[2] == plain[3]
    assert shaped[1] < shaped[0] < shaped[3] < shaped[2]


def test_g2rpo_bounds_the_entropy_only_where_edges_are_given():
    assert recipes.g2rpo_openvlthinkerv2().objective.regularizer is None
    bounded = recipes.g2rpo_openvlthinkerv2(entropy=(0.5, 1.0), entropy_weight=0.2).objective
    assert bounded.regularizer == 0.2 * EntropyRange(0.5, 1.0)


def test_g2rpo_with_both_shapings_keeps_a_policy_undecided():
    task = LabTask(find_game("length"))
    free, bounded = (
        learn(recipes.g2rpo_openvlthinkerv2(length=(1, 3, 4, 6), entropy=edges, entropy_weight=5.0), task, 1000, 30)
        for edges in ((0.0, 2.0), (1.0, 1.1))
    )
    assert bounded.last.entropy > free.last.entropy + 0.1
