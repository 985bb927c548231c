"""SALT and MAPO through their recipes: numbers worked by hand and identities."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GroupStandardized, LeaveOneOut, SharedSteps
from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Tree, find_game
from stratagem.lab.policy import NodeInputs
from stratagem.partition import Partition
from stratagem.recipe import Recipe


def credited(recipe: Recipe, x: Experience) -> torch.Tensor:
    advantage = recipe.prepare(x).advantage
    assert advantage is not None
    return advantage


def dialogues(*rewards: list[float], groups: list[int] | None = None) -> Experience:
    """One trajectory for each list of turn rewards, all in one group unless sizes of groups are given."""
    flat = [reward for each in rewards for reward in each]
    sizes = [len(rewards)] if groups is None else groups
    return Experience.from_lengths(
        [1] * len(flat),
        [len(each) for each in rewards],
        sizes,
        turn_reward=torch.tensor(flat),
        ref_logp=[-1.0] * len(flat),
    )


# ---- mapo -----------------------------------------------------------------------------------------------------------

TWO = ([1.0, 0, 1], [0.0, 0, 1])
BY_TURN = [0.707107, 0, 0, -0.707107, 0, 0]
BY_BATCH = [2.041241] + [-0.408248] * 5


@pytest.mark.parametrize("mix", [0.0, 0.25, 0.5, 1.0])
def test_mapos_credit_is_the_mixture_worked_by_hand(mix):
    expected = [mix * turn + (1 - mix) * batch for turn, batch in zip(BY_TURN, BY_BATCH, strict=True)]
    assert credited(recipes.mapo(mix), dialogues(*TWO)).tolist() == pytest.approx(expected, abs=1e-5)


def test_mapos_default_is_half_of_each():
    expected = [1.374174, -0.204124, -0.204124, -0.557678, -0.204124, -0.204124]
    assert credited(recipes.mapo(), dialogues(*TWO)).tolist() == pytest.approx(expected, abs=1e-5)


def test_with_turns_alone_and_the_outcome_alone_mapo_is_grpo():
    x = dialogues([0.0, 0, 1], [0.0, 0, 0], [0.0, 0, 0.5], [0.0, 0, 2], groups=[2, 2])
    torch.testing.assert_close(credited(recipes.mapo(1.0), x), credited(recipes.grpo(), x))


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_a_turn_that_one_dialogue_reached_is_compared_with_the_batch_at_any_mix(mix):
    x = dialogues([0.0, 6.0], [1.0], [5.0, 2.0], [1.0, 2.0], groups=[2, 2])
    returns = [6.0, 6.0, 1.0, 7.0, 2.0, 3.0, 2.0]
    expected = (6.0 - fmean(returns)) / stdev(returns)
    assert credited(recipes.mapo(mix), x)[1].item() == pytest.approx(expected, rel=1e-5)


def test_mapo_needs_no_group():
    x = dialogues([1.0, 0.0], [0.0, 0.0, 2.0], groups=[1, 1])
    alone = recipes.mapo(group_size=1)
    torch.testing.assert_close(credited(alone, x), credited(recipes.mapo(0.0, group_size=1), x))
    with pytest.raises(InputError, match="group_size"):
        recipes.grpo(group_size=1)


def test_a_reward_for_every_turn_leaves_mapo_half_of_the_bias_by_place():
    x = dialogues(*[[1.0] * 5] * 2)
    half, whole = credited(recipes.mapo(), x), credited(recipes.mapo(0.0), x)
    torch.testing.assert_close(half, whole / 2)
    assert whole[0] > 0 > whole[4]


def test_mapos_discount_reaches_both_levels():
    x = dialogues([0.0, 1.0], [0.0, 0.0])
    assert not torch.allclose(credited(recipes.mapo(0.0, discount=0.5), x), credited(recipes.mapo(0.0), x))
    # By turn index, what is standardised forgets the factor.
    torch.testing.assert_close(credited(recipes.mapo(1.0, 0.5), x), credited(recipes.mapo(1.0), x), rtol=1e-4, atol=0)


@pytest.mark.parametrize("mix", [-0.1, 1.1])
def test_mapos_mix_outside_its_range_is_named(mix):
    with pytest.raises(InputError, match=f"mapo: mix = {mix}"):
        recipes.mapo(mix)


def test_without_kl_mapo_keeps_no_reference():
    assert "ref_logp" in recipes.mapo().needs()
    assert "ref_logp" not in recipes.mapo(kl_coefficient=0.0).needs()


# ---- salt -----------------------------------------------------------------------------------------------------------


def doors(reward: list[float]) -> Experience:
    """Both open the same door; then the first goes left and the second right."""
    return Experience.from_lengths(
        [1] * 4, [2, 2], [2], action=[0, 1, 0, 2], turn_state=[100, 200, 100, 200], reward=torch.tensor(reward)
    )


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("history", [0, 1, None])
def test_salts_shared_step_is_neutral_and_the_distinct_ones_are_as_they_were(leave_one_out, history):
    x = doors([1.0, -1.0])
    plain = (LeaveOneOut() if leave_one_out else GroupStandardized())(x)
    found = credited(recipes.salt(history, leave_one_out=leave_one_out), x)
    assert found[[0, 2]].tolist() == [0.0, 0.0]
    assert torch.equal(found[[1, 3]], plain[[1, 3]])
    if leave_one_out:
        assert found.tolist() == [0, 2, 0, -2]


def test_salt_takes_any_other_advantage_by_name():
    changed = recipes.salt().with_values({"advantage.of": "group_centered", "advantage.history": None})
    assert changed.advantage.history is None
    assert credited(changed, doors([1.0, -1.0])).tolist() == [0, 1, 0, -1]
    assert Recipe.from_yaml(changed.to_yaml()) == changed


def test_the_gradient_of_a_shared_step_is_its_members_mean_times_their_number():
    """At one state's logits: no two members pull in opposite directions any more."""
    tree = Tree.enumerate(find_game("windy"))
    chosen = torch.arange(0, tree.leaves.trajectories, 37)
    x = tree.leaves.select(chosen)
    x = x.replace(group_of_trajectory=Partition.whole(x.trajectories), task_id=torch.zeros(1, dtype=torch.int64))
    recipe = recipes.salt(history=None).with_values({"objective.aggregation": "token_mean"})
    prepared = recipe.prepare(x)
    logits = tree.normal_logits(1000).requires_grad_()
    assert isinstance(x.inputs, NodeInputs) and x.action is not None
    logp = torch.log_softmax(logits, -1)[x.inputs.node, x.action]
    recipe.objective(PolicyOutput(logp), prepared.replace(old_logp=logp.detach())).loss.backward()
    expected = torch.zeros_like(logits)
    plain = GroupStandardized()(x).double()
    going = torch.stack([x.inputs.node, x.action], 1)
    for node, action in going.unique(dim=0).tolist():
        # In the tree of histories a node and a token may lead to two next states, by chance; a sum over both is theirs.
        members = (x.inputs.node == node) & (x.action == action)
        score = torch.nn.functional.one_hot(torch.tensor(action), 2) - torch.softmax(logits[node].detach(), -1)
        expected[node] -= plain[members].mean() * members.sum() * score / x.tokens
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-8)


def test_in_the_lab_a_table_of_histories_learns_the_same_in_sum_from_the_prefix_tree():
    """What a prefix tree averages is done at one node of the table, so the update is GRPO's to the last digits."""
    tree = Tree.enumerate(find_game("corridor"))
    x = tree.leaves.select(torch.arange(0, tree.leaves.trajectories, 5))
    x = x.replace(group_of_trajectory=Partition.whole(x.trajectories), task_id=torch.zeros(1, dtype=torch.int64))
    assert isinstance(x.inputs, NodeInputs) and x.action is not None
    place = Partition.by(x.inputs.node, x.action)
    plain, shared = GroupStandardized()(x), SharedSteps(history=None)(x)
    assert not torch.allclose(plain, shared)
    torch.testing.assert_close(place.sum(shared), place.sum(plain), rtol=1e-4, atol=1e-5)


def test_both_are_in_the_catalogue_as_differences_from_grpo():
    for name, number in (("salt", "2510.20022"), ("mapo", "2603.06194")):
        entry = card(name)
        assert (entry.arxiv, entry.family, entry.base) == (number, "agents", "grpo")
