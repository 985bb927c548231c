"""Rewards put on one scale, through the recipes: what each is against GRPO, and that it learns."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.advantages import GroupStandardized, PerReward, SpreadWeighted
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
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
