"""Drawn groups: as likely as they should be, of one start each, replaced when rejected."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import GAMES, Exact, Tree
from stratagem.lab.draw import collect, draw
from stratagem.sampling import Demonstrations, DynamicSampling, Rollouts
from stratagem.seeding import generator


def test_leaves_come_as_often_as_they_are_likely(arms):
    leaves = arms.tree.leaves.replace(episode=torch.arange(6))
    x = draw(leaves, arms.leaf_probability, 20_000, 2, generator(0))
    seen = torch.bincount(x.episode, minlength=6) / x.trajectories
    # The share of a leaf varies by at most sqrt(1/4 / 20000) from group to group; 5 of those.
    torch.testing.assert_close(seen.double(), arms.leaf_probability, atol=0.018, rtol=0)
    assert seen[2] == 0


def test_a_group_has_one_start_and_says_which(arms):
    x = draw(arms.tree.leaves, arms.leaf_probability, 50, 4, generator(0))
    assert x.group_of_trajectory.size().tolist() == [4] * 50
    assert x.groups == 50 and set(x.task_id.tolist()) == {0, 1}
    in_second = x.inputs.node == 1
    assert torch.equal(in_second, x.group_of_token.spread(x.task_id) == 1)


def test_a_rejected_group_is_replaced_until_rounds_are_up(both):
    sampler = DynamicSampling(prompts_per_step=32, group_size=2, refill_rounds=50)
    drawn = collect(both.tree.leaves, both.leaf_probability, sampler, partial(generator, 0))
    assert drawn.kept.groups == 32 and drawn.groups > 32
    spread = drawn.kept.group_of_trajectory.max(drawn.kept.returns) - drawn.kept.group_of_trajectory.min(
        drawn.kept.returns
    )
    assert spread.tolist() == [1.0] * 32
    hopeless = Exact.greedy(both.tree, both.logits)
    drawn = collect(both.tree.leaves, hopeless.leaf_probability, sampler, partial(generator, 0))
    assert drawn.kept.groups == drawn.kept.trajectories == 0 and drawn.groups == 51 * 32


@pytest.mark.parametrize(
    "sampler",
    [
        Demonstrations(),
        Rollouts(top_p=0.9),
        Rollouts(top_k=2),
        Rollouts(similar_states=0.9),
        Rollouts(similar_answers=0.9),
        Rollouts(phrases="grams.json"),
    ],
)
def test_other_samplers_are_refused(sampler):
    tree = Tree.enumerate(GAMES["graded"])
    with pytest.raises(InputError, match=f"sampler {sampler.part_name()}: .*the lab"):
        collect(tree.leaves, tree.chance, sampler, partial(generator, 0))
