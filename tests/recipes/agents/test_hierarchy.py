"""Recipes with credit at more than one level, as a trainer uses them."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.objectives.ratios import ProductRatio
from stratagem.study.experiments import learn


def test_both_are_in_the_catalogue_with_their_papers():
    cards = {name: catalogue.card(name) for name in ("poad", "hiper")}
    assert {name: card.arxiv for name, card in cards.items()} == {"poad": "2405.15821", "hiper": "2602.16165"}
    assert all(card.family == "agents" and card.base == "ppo" for card in cards.values())


# ---- poad ------------------------------------------------------------------------------------------------------------


def actions(lengths: list[int], values: list[float], rewards: list[float]) -> Experience:
    """One episode with an action of so many tokens in each turn."""
    x = Experience.from_lengths(lengths, [len(lengths)], [1], turn_reward=rewards, value=torch.tensor(values))
    return x.replace(reward=x.returns)


def unwhitened(**arguments: float) -> recipes.Recipe:
    recipe = recipes.poad(**arguments)
    return recipe.replace(advantage=recipe.advantage.of)


def test_credit_and_targets_are_discounted_between_actions_alone():
    x = unwhitened(discount=0.9, trace=1.0).prepare(actions([2, 1], [0.5, 0.25, 0.75], [0.0, 2.0]))
    assert x.advantage.tolist() == pytest.approx([0.9 * 2 - 0.5, 0.9 * 2 - 0.25, 2 - 0.75])
    assert x.value_target.tolist() == pytest.approx([1.8, 1.8, 2.0])
    assert x.critic_mask is None


def test_naive_flattening_is_one_choice_away():
    recipe = recipes.poad(discount=0.9, trace=1.0).with_values({"advantage.of.step": "token"})
    assert [change.path for change in recipe.diff(recipes.poad(discount=0.9, trace=1.0))] == ["advantage.of.step"]
    found = recipe.replace(advantage=recipe.advantage.of).prepare(actions([2, 1], [0.0] * 3, [0.0, 1.0]))
    assert found.advantage.tolist() == pytest.approx([0.81, 0.9, 1.0])


def test_with_one_token_for_each_action_it_is_action_level_ppo():
    plain = recipes.poad()
    whole = plain.with_values({"advantage.of.step": "turn", "objective.ratio": ProductRatio("turn")})
    x = actions([1, 1, 1], [0.3, -0.2, 0.1], [1.0, 0.0, 2.0])
    x = x.replace(old_logp=torch.tensor([-1.0, -2.0, -0.5]))
    out = PolicyOutput(torch.tensor([-0.9, -2.3, -0.6]), torch.tensor([0.5, 0.7, 0.2]), torch.tensor([0.2, 0.0, 0.3]))
    ours, theirs = [recipe.objective(out, recipe.prepare(x)).loss for recipe in (plain, whole)]
    torch.testing.assert_close(ours, theirs)


def test_published_defaults():
    flat = recipes.poad().flat()
    assert (flat["advantage.of.discount"], flat["advantage.of.trace"], flat["advantage.of.step"]) == (
        0.95,
        0.95,
        "decomposed",
    )
    assert flat["optimization.minibatches"] == 4 and flat["optimization.epochs"] == 1
    assert flat["optimization.max_grad_norm"] == 0.5
    assert recipes.poad(entropy_weight=0.0).objective.regularizer is None


# ---- hiper -----------------------------------------------------------------------------------------------------------


def plans() -> Experience:
    """Two episodes of two turns (switch, sub-goal, action); the first keeps its sub-goal, the second switches."""
    x = Experience.from_lengths(
        [3] * 4,
        [2, 2],
        [2],
        action=torch.tensor([9, 1, 0] * 4),
        span=[2, 1, 0] * 4,
        segment_start=[True, False, True, True],
        turn_reward=[0.0, 1.0, 0.0, 0.0],
        value=torch.full((12,), 0.5),
        old_logp=torch.full((12,), -1.0),
        ref_logp=torch.full((12,), -1.0),
    )
    return x.replace(reward=x.returns)


def test_rewards_are_charged_before_credit_is_given():
    x = recipes.hiper(whiten=False).prepare(plans())
    # Half of the first episode's turns keep, which costs 0.15 where they do.
    assert x.turn_reward.tolist() == pytest.approx([0.0, 0.85, 0.0, 0.0])
    assert x.returns.tolist() == pytest.approx([0.85, 0.0])
    assert x.advantage[3:6].tolist() == pytest.approx([0.35, 0.0, 0.35])


def test_the_critic_learns_where_it_is_read_and_nowhere_else():
    recipe = recipes.hiper(whiten=False)
    x = recipe.prepare(plans())
    assert x.critic_mask.view(4, 3).tolist() == [[True] * 3, [True, False, True], [True] * 3, [True] * 3]
    value = torch.full((12,), 0.5, requires_grad=True)
    recipe.objective(PolicyOutput(torch.full((12,), -1.0), value=value), x).loss.backward()
    assert value.grad[4] == 0 and bool((value.grad[x.critic_mask] != 0).any())
    expected = 0.5 * (0.5 - x.value_target) / 11
    torch.testing.assert_close(value.grad[x.critic_mask], expected[x.critic_mask])


def test_a_token_that_may_not_train_teaches_the_critic_nothing():
    masked = torch.arange(12) != 3
    x = recipes.hiper().prepare(plans().replace(mask=masked))
    assert not x.critic_mask[3] and int(x.critic_mask.sum()) == 10


def test_without_charges_and_kl_nothing_of_them_is_left():
    recipe = recipes.hiper(keep=0, inconsistent=0, invalid=0, kl_coefficient=0)
    assert recipe.rewards == () and recipe.objective.regularizer is None
    assert "ref_logp" not in recipe.needs()


def test_a_batch_without_parts_is_refused_by_name():
    x = plans().replace(span=None, segment_start=None)
    with pytest.raises(ValueError, match="recipe hiper reads segment_start, span"):
        recipes.hiper().prepare(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"segment_trace": 1.5}, "hierarchical_gae.segment_trace"), ({"keep": -1.0}, "plan_penalty.keep")],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        recipes.hiper(**arguments)


@pytest.mark.parametrize(("name", "game"), [("poad", "wordy_corridor"), ("hiper", "errands")])
def test_in_a_game_of_the_lab_they_learn(name, game):
    arguments = {"kl_coefficient": 0.0} if name == "hiper" else {}
    recipe = catalogue.card(name).recipe(**arguments)
    run = learn(recipe, LabTask(find_game(game)), 1005, 8)
    assert run.last.success > run.policies[0].success + 0.02
