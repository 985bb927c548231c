"""Reading step by step: what each step shows and earns, and what the best policy is worth, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import GAMES, Exact, PageRules, Tree, find_game, page_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.pages import Reading, reading_features

RULES = PageRules(choices=3, top=0.6)


def outcomes(state: Reading, token: int) -> list[tuple[object, float, dict[str, float]]]:
    return [(one.state, one.probability, dict(one.components)) for one in RULES.act(state, (token,))]


def test_the_right_query_lists_the_page_and_others_do_not():
    found = outcomes(Reading("search", 1), 1)
    assert [(state.rank, odds) for state, odds, _ in found] == [(0, 0.6), (1, 0.2), (2, 0.2)]
    assert [noted["retrieval"] for *_, noted in found] == pytest.approx([1, 1 / math.log2(3), 0.5])
    [(state, odds, noted)] = outcomes(Reading("search", 1), 0)
    assert (state.rank, odds, noted) == (3, 1.0, {"retrieval": 0.0})


def test_the_right_page_shows_the_region_and_the_first_counts_where_it_is_not_listed():
    shown = outcomes(Reading("select", 0, rank=2), 2)
    assert [(state.region, noted) for state, _, noted in shown] == [(k, {"selection": 1.0}) for k in range(3)]
    [(state, _, noted)] = outcomes(Reading("select", 0, rank=2), 0)
    assert state.region is None and noted == {"selection": 0.0}
    hits = [outcomes(Reading("select", 0, rank=3), token)[0][2]["selection"] for token in range(3)]
    assert hits == [1.0, 0.0, 0.0]


def test_the_region_shows_the_answer_and_what_was_not_read_is_guessed():
    read = outcomes(Reading("crop", 0, rank=0, region=1), 1)
    assert [(state.value, noted) for state, _, noted in read] == [(k, {"region": 1.0}) for k in range(3)]
    [(state, _, noted)] = outcomes(Reading("crop", 0, rank=0, region=1), 2)
    assert state.value is None and noted == {}
    right, wrong = RULES.act(state, (0,))
    assert (right.reward, right.probability, wrong.probability) == (1.0, pytest.approx(1 / 3), pytest.approx(2 / 3))
    [certain] = RULES.act(read[2][0], (2,))
    assert certain.success
    [no] = RULES.act(read[2][0], (1,))
    assert not no.success


def test_the_best_policy_reads_and_earns_all_but_what_the_retriever_costs():
    tree = Tree.enumerate(page_game(RULES))
    best = Exact.greedy(tree, optimal_values(tree))
    retrieval = 0.6 + 0.2 / math.log2(3) + 0.2 * 0.5
    assert best.success == pytest.approx(1)
    assert best.expected_return == pytest.approx(0.6 + 0.1 * (retrieval + 1 + 1))
    alone = Tree.enumerate(page_game(RULES, (1.0, 0.0, 0.0, 0.0)))
    assert Exact.greedy(alone, optimal_values(alone)).expected_return == pytest.approx(1)


def test_nodes_that_show_the_same_have_the_same_features():
    tree = Tree.enumerate(page_game(RULES))
    features = reading_features(tree, 3)
    assert features.shape == (tree.nodes, 16) and bool((features.sum(1) == 1).all())
    column = features.argmax(1)
    seen = [(state.stage, state.seen()) for state in tree.states]
    same = torch.tensor([[one == other for other in seen] for one in seen[:60]])
    assert (column[:60, None] == column).equal(same)


def test_the_game_is_a_special_one_and_its_rules_are_checked():
    assert find_game("pages").name not in GAMES
    with pytest.raises(InputError, match=r"page_rules\.choices = 1"):
        PageRules(choices=1)
    with pytest.raises(InputError, match=r"page_rules\.top = 1\.5"):
        PageRules(top=1.5)
