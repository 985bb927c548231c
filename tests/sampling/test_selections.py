"""Which trajectories reach the learner."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.experience import Experience
from stratagem.sampling import AboveReturn, Masked, Untruncated


def test_trajectories_at_or_above_the_threshold_are_selected():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=[0.5, 1.0, 2.0])
    assert AboveReturn(1.0)(x).tolist() == [False, True, True]


def cut() -> Experience:
    """A group of one, two and three tokens, the last cut by a limit, and of returns 1, 0 and 0."""
    return Experience.from_lengths([1, 2, 3], [1] * 3, [3], reward=[1.0, 0, 0], truncated=[False, False, True])


def test_what_a_limit_cut_is_left_out():
    assert Untruncated()(cut()).tolist() == [True, True, False]
    assert Untruncated().apply(cut()).returns.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"needs x\.truncated"):
        Untruncated()(cut().replace(truncated=None))


def test_what_is_masked_keeps_its_place_and_its_tokens_train_nothing():
    x = cut()
    masked = Masked(Untruncated()).apply(x)
    assert Masked(Untruncated())(x).tolist() == [True, True, False]
    assert masked.returns.tolist() == [1, 0, 0]
    assert masked.mask.tolist() == [True] * 3 + [False] * 3
    assert x.mask is None
    already = Masked(Untruncated()).apply(x.replace(mask=torch.tensor([False, True, True, True, True, True])))
    assert already.mask.tolist() == [False, True, True, False, False, False]
    assert Masked(Untruncated()).needs() == {"truncated"}


def test_a_masked_reward_counts_in_the_baseline_and_a_dropped_one_does_not():
    recipe = recipes.dr_grpo().with_values({"objective.aggregation": "token_mean"})
    masked = recipe.replace(selections=(Masked(Untruncated()),)).credit(cut())
    dropped = recipe.replace(selections=(Untruncated(),)).credit(cut())
    third = 1 / 3
    assert masked.advantage.tolist() == pytest.approx([2 * third] + [-third] * 5)
    assert dropped.advantage.tolist() == pytest.approx([0.5, -0.5, -0.5])
    # Neither counts the cut tokens: three are left for the mean.
    assert recipe.objective.aggregation.weights(masked).tolist() == pytest.approx([third] * 3 + [0.0] * 3)
    assert recipe.objective.aggregation.weights(dropped).tolist() == pytest.approx([third] * 3)


def test_a_recipe_with_a_masked_selection_is_read_back_equal_and_set_by_path():
    selections = [{"part": "masked", "of": "untruncated"}]
    recipe = recipes.grpo().with_values({"selections": selections})
    assert recipe.selections == (Masked(Untruncated()),)
    assert type(recipe).from_yaml(recipe.to_yaml()) == recipe
