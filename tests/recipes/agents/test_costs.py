"""ESearch-R1 through its recipe: returns and advantages by hand, what it reduces to, and a policy that learns costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stratagem import recipes
from stratagem.claims.agents.costs import PAIR, asking, traces
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import SearchRules, Tree, search_game
from stratagem.lab.world import LabTask
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.objectives import SequenceMean, TokenMean
from stratagem.study.experiments import learn
from stratagem.tasks.house import HouseEnvironment, HouseTask
from stratagem.tasks.house_plan import ENTRANCE, House, Thing

HOUSE = House(
    ((ENTRANCE, "kitchen", 1.0), ("kitchen", "kitchen shelf", 1.0), ("kitchen", "kitchen box", 3.0)),
    (Thing("mug", "red", "small", "kitchen shelf"), Thing("mug", "blue", "small", "kitchen box")),
    1,
)

TALKS = (
    ["memory: mug", "ask: colour", "ask: size", "navigate: kitchen box", "select: mug"],
    ["navigate: kitchen box", "hm", "select: mug"],
    ["navigate: kitchen shelf", "select: mug"],
)


def batch(talks=TALKS, seen=(1, 2, 3)) -> Experience:
    """A group of episodes in one house, two tokens for each turn, at a log-probability of -1."""
    group = []
    for number, actions in enumerate(talks):
        environment, episode = HouseEnvironment(HOUSE), Episode(0, number, 0)
        observation = environment.reset()
        for action in actions:
            episode.turns.append(Turn(observation, list(seen), [4, 5], [-1.0, -1.0], action))
            step = environment.step(action)
            episode.record(step)
            observation = step.observation
        group.append(episode)
    task = HouseTask()
    x = to_experience([group], task.reward_names, len(talks), task.reward_weights)
    return x.replace(ref_logp=torch.full((x.tokens,), -1.0))


# ---- rewards and advantages -----------------------------------------------------------------------------------------


def test_success_less_what_it_cost_and_less_a_broken_format():
    x = batch()
    assert x.returns.tolist() == [1, 1, 0]
    # Memory, two questions and four metres; four metres and a command nobody understands; two metres for nothing.
    assert recipes.esearch_r1().shape(x).returns.tolist() == pytest.approx([0.54, 0.8 - 0.2, -0.1])
    assert recipes.esearch_r1(format_penalty=0.5).shape(x).returns.tolist() == pytest.approx([0.54, 0.3, -0.1])
    assert recipes.esearch_r1(cost_weight=2.0).shape(x).returns.tolist() == pytest.approx([0.08, 0.4, -0.2])


def test_failures_may_be_free():
    waived = recipes.esearch_r1(cost_on_failure=False).shape(batch())
    assert waived.returns.tolist() == pytest.approx([0.54, 0.6, 0.0])


def test_advantages_of_a_group_by_hand():
    returns = [0.54, 0.9, -0.2, 0.9]
    x = Experience.from_lengths([1] * 4, [1] * 4, [4], reward=returns, success=[True, True, False, True])
    credited = recipes.esearch_r1().credit(x)
    assert credited.advantage.tolist() == pytest.approx([0.009642, 0.703878, -1.417398, 0.703878], abs=1e-5)


def test_a_group_that_succeeds_at_equal_cost_teaches_nothing():
    x = batch([TALKS[0]] * 3)
    assert recipes.esearch_r1().prepare(x).advantage.abs().max() == 0


def test_a_penalty_for_failures_is_another_weight_of_the_cost():
    """``2 success - 1 - c`` and ``success - c / 2`` have the same advantages."""
    x = batch()
    minus_one = recipes.esearch_r1(format_penalty=0.0).shape(x)
    minus_one = minus_one.replace(reward=(minus_one.reward + (x.reward - 1) * torch.eye(8)[0]))
    half = recipes.esearch_r1(cost_weight=0.5, format_penalty=0.0).shape(x)
    ours, theirs = (recipes.esearch_r1().credit(one).advantage for one in (minus_one, half))
    assert torch.allclose(ours, theirs, atol=1e-4) and ours.abs().max() > 0.5


def test_a_task_without_costs_and_format_pays_success_alone():
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 0.0], success=[True, False])
    assert recipes.esearch_r1(kl_coefficient=0.0).shape(x).returns.tolist() == [1, 0]


def test_a_negative_cost_is_refused():
    x = batch()
    x = x.replace(reward=x.reward * (1 - 2 * torch.eye(8)[2]))
    with pytest.raises(InputError, match=r"trajectory 0 has cost -0\.46"):
        recipes.esearch_r1().shape(x)


@pytest.mark.parametrize("argument", ["cost_weight", "format_penalty"])
def test_arguments_out_of_range_are_refused(argument):
    with pytest.raises(InputError, match="greater than or equal to 0"):
        recipes.esearch_r1(**{argument: -1.0})
    with pytest.raises(InputError, match="average of esearch_r1"):
        recipes.esearch_r1(average="turns")


def test_what_the_house_says_has_no_rows():
    """The tokens that train are those of the commands, whatever the user, the memory and the rooms say."""
    x = batch(seen=[7, 8, 9] * 100)
    assert x.tokens == 2 * sum(map(len, TALKS)) and bool(x.learnable().all())
    prepared = [recipes.esearch_r1().prepare(batch(seen=seen)).advantage for seen in ([1], [7, 8, 9] * 100)]
    assert prepared[0].equal(prepared[1])


# ---- what it reduces to ---------------------------------------------------------------------------------------------


def test_without_weights_it_is_grpo_on_success_alone_to_the_bit():
    game = search_game(SearchRules())
    free = recipes.esearch_r1(0.0, format_penalty=0.0, average="trajectories", kl_coefficient=0.0)
    runs = [learn(recipe, LabTask(game), 1000, 4).last.logits for recipe in (free, recipes.grpo())]
    assert runs[0].equal(runs[1])
    token = replace(recipes.grpo(), objective=replace(recipes.grpo().objective, aggregation=TokenMean()))
    free = recipes.esearch_r1(0.0, format_penalty=0.0, kl_coefficient=0.0)
    runs = [learn(recipe, LabTask(game), 1000, 4).last.logits for recipe in (free, token)]
    assert runs[0].equal(runs[1])
    charged = learn(recipes.esearch_r1(format_penalty=0.0, kl_coefficient=0.0), LabTask(game), 1000, 4).last.logits
    assert not charged.equal(runs[0])


def test_averages_are_over_tokens_or_over_trajectories():
    assert isinstance(recipes.esearch_r1().objective.aggregation, TokenMean)
    assert isinstance(recipes.esearch_r1(average="trajectories").objective.aggregation, SequenceMean)
    assert recipes.esearch_r1(kl_coefficient=0.0).objective.regularizer is None


# ---- learning the price ---------------------------------------------------------------------------------------------


def test_a_trained_table_asks_when_questions_are_cheap_and_walks_when_they_are_dear():
    assert PAIR.cost_of_asking == pytest.approx(PAIR.cost_of_walking)
    asks = []
    for price in (0.0, 0.5):
        game = search_game(replace(PAIR, ask=price, fatigue=0.0))
        run = learn(recipes.esearch_r1(), LabTask(game), 1000, 30, traces(Tree.enumerate(game)))
        asks.append((asking(run), float(run.policies[0].logp[0, -1].exp())))
    (free, start), (dear, _) = asks
    assert free > 0.6 > start > 0.2 > dear
