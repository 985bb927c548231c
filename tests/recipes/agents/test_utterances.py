"""ArCHer through its recipe: the loss inside an utterance, its options, and what it learns."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import Exponential, TurnCriticAdvantage
from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Tree, find_game
from stratagem.lab.exact import Exact
from stratagem.lab.updates import sample_updates


def utterances(sizes: list[int], credit: list[float], **fields: object) -> Experience:
    """Trajectories of one turn each; V is 0, Q the credit."""
    count = len(sizes)
    return Experience.from_lengths(
        sizes,
        [1] * count,
        [1] * count,
        reward=[0.0] * count,
        finished=[True] * count,
        turn_value=torch.zeros(count, 2),
        turn_action_value=torch.tensor(credit).unsqueeze(1).expand(-1, 2),
        **fields,
    )


def loss(recipe, x: Experience, logp: list[float], **said: torch.Tensor) -> float:
    out = PolicyOutput(torch.tensor(logp), **said)
    return float(recipe.objective(out, recipe.credit(x)).loss)


def test_the_loss_is_the_mean_over_utterances_of_credit_times_log_likelihood():
    recipe = recipes.archer(replayed=0)
    found = loss(recipe, utterances([2, 1], [2.0, -1.0]), [-0.5, -0.25, -3.0])
    assert found == pytest.approx(-(2.0 * -0.75 + -1.0 * -3.0) / 2)


def test_tokens_that_were_forced_change_nothing():
    recipe = recipes.archer(replayed=0)
    once = loss(recipe, utterances([1, 1], [2.0, -1.0]), [-0.5, -3.0])
    split = loss(recipe, utterances([3, 1], [2.0, -1.0]), [-0.5, 0.0, 0.0, -3.0])
    assert once == pytest.approx(split)


def test_an_utterance_without_a_token_that_may_train_is_skipped():
    x = utterances([1, 1], [2.0, -1.0], mask=torch.tensor([True, False]))
    assert loss(recipes.archer(replayed=0), x, [-0.5, -3.0]) == pytest.approx(1.0)


def test_an_old_utterance_counts_by_the_ratio_of_all_its_tokens_up_to_two():
    x = utterances([2, 1], [1.0, 1.0], behavior_logp=torch.tensor([-1.0, -1.0, -9.0]))
    x = x.replace(old_logp=torch.tensor([-1.25, -1.25, -1.0]))
    found = loss(recipes.archer(), x, [-1.25, -1.25, -1.0])
    assert found == pytest.approx(-(math.exp(-0.5) * -2.5 + 2.0 * -1.0) / 2)


def test_the_token_baseline_is_the_policys_value_fitted_to_the_credit():
    recipe = recipes.archer(token_baseline=True, replayed=0)
    x = utterances([2], [1.0], value=torch.tensor([0.25, 0.75]))
    prepared = recipe.prepare(x)
    assert prepared.advantage.tolist() == [0.75, 0.25] and prepared.value_target.tolist() == [1.0, 1.0]
    said = torch.tensor([0.25, 0.75])
    expected = -(0.75 * -0.5 + 0.25 * -1.0) + 0.5 * 0.5 * (0.75**2 + 0.25**2) / 2
    assert loss(recipe, x, [-0.5, -1.0], value=said) == pytest.approx(expected)


def test_weighted_regression_imitates_by_the_exponential_of_the_credit():
    recipe = recipes.archer(actor="awr", temperature=2.0, expectile=0.9)
    x = utterances([1, 1], [2.0, 90.0], behavior_logp=torch.tensor([-1.0, -1.0]))
    assert loss(recipe, x, [-0.5, -1.0]) == pytest.approx((math.e * 0.5 + 20.0) / 2)
    assert recipe.estimator.actions == "as_sampled" and recipe.objective.correction is None
    assert Exponential(TurnCriticAdvantage())(x).tolist() == pytest.approx([math.exp(2.0), 20.0])


def test_ppo_inside_the_utterance_is_clipped():
    recipe = recipes.archer(actor="ppo", replayed=0)
    assert recipe.optimization.epochs == 2
    x = utterances([1, 1], [1.0, 1.0], old_logp=torch.tensor([-1.0, -1.0]))
    assert loss(recipe, x, [-1.0, 0.0]) == pytest.approx(-(1.0 + 1.2) / 2)


def test_phases_replay_and_bad_choices():
    warm = recipes.archer(warmup=4)
    assert [s(step, {})["advantage.factor"] for s, step in zip(warm.schedules, (0, 4), strict=True)] == [0.0, 1.0]
    silent = warm.with_values({"advantage.factor": 0.0})
    assert not silent.objective.has_signal(silent.credit(utterances([1], [3.0])))
    assert recipes.archer(warmup=0).schedules == () and recipes.archer(replayed=0).replay is None
    with pytest.raises(InputError, match="archer: token_baseline = True with actor = awr"):
        recipes.archer(actor="awr", token_baseline=True)
    with pytest.raises(InputError, match=r"recent_batches.share = 0.95"):
        recipes.archer(replayed=0.95)
    built = card("archer").recipe()
    assert type(built).from_yaml(built.to_yaml()) == built


def test_with_exact_critics_the_expected_update_is_the_policy_gradient_of_turns():
    """``mean_u`` over turns scales REINFORCE's update and leaves its direction, up to the varying number of turns."""
    tree = Tree.enumerate(find_game("windy"))
    exact = Exact(tree, tree.normal_logits(0))
    recipe = recipes.archer(replayed=0).with_values({"sampler.group_size": 8})
    updates = sample_updates(recipe, exact, exact, 8192, 64, 0)
    # Every episode has four turns, so the mean over turns is a quarter of the sum.
    torch.testing.assert_close(4 * updates.mean, exact.gradient, atol=2e-2, rtol=0)
    cosine = (updates.mean * exact.gradient).sum() / updates.mean.norm() / exact.gradient.norm()
    assert float(cosine) > 0.98
