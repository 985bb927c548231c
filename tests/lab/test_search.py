"""Searching at a price: the best policy worked by hand, what is told and remembered, and costs by kind."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import GAMES, Exact, SearchRules, Tree, find_game, search_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.search import Sought

ASK, LOOK = 2, 3


def values(rules: SearchRules) -> list[float]:
    """What each first token is worth to who goes on in the best way, costs charged."""
    tree = Tree.enumerate(search_game(rules, 1.0))
    return optimal_values(tree)[0].tolist()


def test_two_candidates_at_two_and_six_metres_are_indifferent_at_a_tenth():
    rules = SearchRules((2.0, 6.0), walk=0.05, ask=0.1)
    assert rules.cost_of_walking == pytest.approx(0.05 * (2 + 0.5 * 8)) == pytest.approx(0.30)
    assert rules.cost_of_asking == pytest.approx(0.30)
    near, far, ask = values(rules)
    assert near == pytest.approx(0.7) and ask == pytest.approx(0.7) and far < 0.6


@pytest.mark.parametrize(("price", "asks"), [(0.0, True), (0.08, True), (0.12, False), (5.0, False)])
def test_asking_is_best_below_that_price_and_not_above(price, asks):
    near, far, ask = values(SearchRules((2.0, 6.0), ask=price, fatigue=0.0))
    assert (ask > max(near, far)) == asks
    assert ask == pytest.approx(1 - price - 0.05 * 4)


def test_closed_forms_are_what_the_best_policies_pay():
    rules = SearchRules((2.0, 4.0, 6.0))
    near, *_, ask = values(rules)
    assert rules.cost_of_walking == pytest.approx(0.05 * (2 + 8 + 18) / 3)
    assert 1 - ask == pytest.approx(rules.cost_of_asking)
    # After a first miss it is worth asking which of the other two it is.
    assert 1 - near < rules.cost_of_walking


def test_the_third_question_costs_twice_the_fatigue_more():
    rules = SearchRules(ask=0.1, fatigue=0.5, turns=5)
    state, costs = Sought(), []
    for _ in range(3):
        outcome = rules.act(state, (ASK,))[0]
        costs.append(outcome.components["asking"])
        state = outcome.state
    assert costs == pytest.approx([0.1, 0.15, 0.2])
    assert state.told == 0 and len(rules.act(state, (ASK,))) == 1


def test_walking_between_candidates_goes_by_the_start():
    rules = SearchRules((2.0, 6.0), walk=0.05, turns=4)
    found, missed = rules.act(Sought(), (0,))
    assert found.success and found.reward == 1 and found.components == pytest.approx({"cost": 0.1, "walking": 0.1})
    [there] = rules.act(missed.state, (1,))
    assert there.success and there.components["walking"] == pytest.approx(0.4)
    [again] = rules.act(missed.state, (0,))
    assert again.components["walking"] == 0 and not again.success


def test_a_memory_is_right_as_often_as_it_is_not_stale():
    rules = SearchRules((2.0, 4.0, 6.0), staleness=0.2, turns=4)
    look = rules.candidates + 1
    named = rules.act(Sought(), (look,))
    assert [outcome.probability for outcome in named] == pytest.approx([1 / 3] * 3)
    assert named[0].components == {"cost": 0.01, "remembering": 0.01}
    remembers = named[1].state
    assert rules.act(remembers, (1,))[0].probability == pytest.approx(0.8)
    assert [len(rules.act(remembers, (look,))), rules.act(remembers, (look,))[0].state.recalled] == [1, 1]
    # Where it was wrong, the others are as likely as each other.
    missed = rules.act(remembers, (1,))[1].state
    assert rules.act(missed, (0,))[0].probability == pytest.approx(0.5)
    # The user knows better.
    told = {outcome.state.told: outcome.probability for outcome in rules.act(remembers, (rules.candidates,))}
    assert told == pytest.approx({0: 0.1, 1: 0.8, 2: 0.1})


def test_a_cheap_memory_that_never_errs_replaces_the_question():
    *_, ask, look = values(SearchRules(staleness=0.0, turns=3))
    assert look == pytest.approx(1 - 0.01 - 0.2) and look > ask
    *_, near, _, ask, look = values(SearchRules(staleness=0.5, turns=3))
    assert look < max(near, ask)


def test_every_search_ends_and_all_chances_are_accounted_for():
    rules = SearchRules((2.0, 4.0), staleness=0.3, turns=3)
    tree = Tree.enumerate(search_game(rules))
    policy = Exact(tree, tree.normal_logits(0))
    assert float(policy.leaf_probability.sum()) == pytest.approx(1, abs=1e-12)
    assert int(tree.leaves.trajectory_of_turn.size().max()) == 3
    kinds = [tree.leaves.named_reward(name) for name in ("walking", "asking", "remembering")]
    assert torch.allclose(sum(kinds), tree.leaves.named_reward("cost"))
    cut = tree.leaves.truncated
    assert bool((tree.leaves.named_reward("reward") == (~cut).float()).all())


def test_a_single_candidate_is_just_walked_to():
    assert values(SearchRules((2.0,), staleness=1.0, turns=2)) == pytest.approx([0.9, 0.8, 0.89])


def test_the_game_is_a_special_one_whose_costs_count_nothing_by_themselves():
    game = find_game("search")
    assert game.name not in GAMES and game.reward_weights == (1, 0, 0, 0, 0)
    assert str(Sought(1, (1,), told=0, recalled=1, turn=2)) == "turn 2; at 1; not [1]; told 0; remembers 1"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"distances": ()}, "distances"),
        ({"distances": (2.0, 0.0)}, "distances"),
        ({"distances": (2.0, float("inf"))}, "distances"),
        ({"walk": -0.1}, "walk"),
        ({"ask": -0.1}, "ask"),
        ({"fatigue": -1.0}, "fatigue"),
        ({"recall": float("nan")}, "recall"),
        ({"staleness": 1.5}, "staleness"),
        ({"turns": 0}, "turns"),
    ],
)
def test_rules_out_of_range_are_refused(arguments, name):
    with pytest.raises(InputError, match=rf"search_rules\.{name}"):
        SearchRules(**arguments)
