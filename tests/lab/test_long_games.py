"""Games of many turns: what they pay, worked by hand."""

from __future__ import annotations

import pytest
import torch

from stratagem.lab import GAMES, SPECIAL_GAMES, Exact, Tree, find_game
from stratagem.lab.exact import optimal_values


def uniform(name: str) -> Exact:
    tree = Tree.enumerate(find_game(name))
    return Exact(tree, torch.zeros(tree.nodes, tree.game.vocabulary))


def best(name: str) -> Exact:
    tree = Tree.enumerate(find_game(name))
    return Exact.greedy(tree, optimal_values(tree))


def test_they_can_be_found_and_are_not_among_those_every_technique_is_judged_in():
    assert {"errand", "chain"} <= SPECIAL_GAMES.keys() - GAMES.keys()


def test_an_errand_takes_three_right_decisions_and_three_steps_of_routine():
    assert uniform("errand").expected_return == pytest.approx(3**-6)
    assert best("errand").expected_return == best("errand").success == 1
    assert best("errand").turns == 6
    # Of three episodes one goes on after each of the two routine steps on the way.
    assert uniform("errand").turns == pytest.approx(2 + 2 / 3 + 2 / 9)


def test_a_chain_pays_for_its_end_and_a_little_for_giving_up():
    assert best("chain").turns == 30
    assert best("chain").expected_return == best("chain").success == 1
    policy = uniform("chain")
    assert policy.success == pytest.approx(3.0**-30)
    given_up = sum(3.0**-turn for turn in range(1, 31))
    assert policy.expected_return == pytest.approx(0.1 * given_up + 3.0**-30)
