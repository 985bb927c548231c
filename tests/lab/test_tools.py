"""Bounded tool use: its rules, its rewards, and what the best policy earns, worked by hand."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import Exact, ToolRules, Tree, find_game, tool_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.tools import REWARDS, Conversation


def conversations(tree: Tree) -> list[Conversation]:
    """The state of every turn of every leaf."""
    first = tree.leaves.turn_of_token.first()
    return [tree.states[node] for node in tree.node[first].tolist()]


def best(rules: ToolRules, weights: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> float:
    tree = Tree.enumerate(tool_game(rules, weights))
    return Exact.greedy(tree, optimal_values(tree)).expected_return


def outcomes(rules: ToolRules, state: Conversation, token: int) -> list[tuple[object, float, object]]:
    """Next state, odds, and accuracy, format and executability."""
    return [
        (one.state, one.probability, (one.reward, *(one.components.get(name, 0.0) for name in REWARDS[1:])))
        for one in rules.act(state, (token,))
    ]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_episode_has_more_results_than_the_depth(depth):
    """Over all episodes there are, those with turns to spare included."""
    tree = Tree.enumerate(tool_game(ToolRules(needs=(1,), success=(0.8, 0.8), depth=depth, horizon=depth + 2)))
    seen = conversations(tree)
    assert max(len(state.results) for state in seen) == depth
    assert max(state.refused for state in seen) == 1
    assert int(tree.leaves.trajectory_of_turn.size().max()) == depth + 2


def test_every_episode_ends_within_the_horizon_and_all_chances_are_accounted_for():
    tree = Tree.enumerate(find_game("tools"))
    assert float(Exact(tree, tree.normal_logits(0)).leaf_probability.sum()) == pytest.approx(1, abs=1e-12)
    assert int(tree.leaves.trajectory_of_turn.size().max()) == 3


def test_without_depth_it_is_one_turn_of_a_plain_bandit():
    tree = Tree.enumerate(tool_game(ToolRules(needs=(0, 0), depth=0)))
    assert bool((tree.leaves.trajectory_of_turn.size() == 1).all())
    assert tree.nodes == 2 and tree.leaves.trajectories == 2 * 6
    # Refused calls, then a wrong and a right answer, and text that cannot be read.
    first = tree.leaves.reward[:6].tolist()
    assert first == [[0, 0, 0]] * 3 + [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_a_tool_tells_its_value_and_then_knows_it():
    rules = ToolRules(needs=(1,), success=(0.8, 0.5))
    told = outcomes(rules, Conversation(0), 0)
    assert [(state.results, odds) for state, odds, _ in told] == [
        (((0, None),), pytest.approx(0.2)),
        (((0, 0),), pytest.approx(0.4)),
        (((0, 1),), pytest.approx(0.4)),
    ]
    silent = outcomes(rules, Conversation(0), 1)
    assert [(state.results, odds) for state, odds, _ in silent] == [(((1, None),), 0.5), (((1, -1),), 0.5)]
    again = outcomes(rules, Conversation(0, ((0, 1),)), 0)
    assert [state.results[1] for state, _, _ in again] == [(0, None), (0, 1)]


def test_an_answer_is_right_as_often_as_the_results_say():
    rules = ToolRules(needs=(1,), answers=3, noise=0.2)
    # The tool says 1: hidden 1 with 0.8, 0 and 2 with 0.1 each.
    informed = Conversation(0, ((0, 1),))
    assert outcomes(rules, informed, 3 + 1)[0][1] == pytest.approx(0.8)
    assert outcomes(rules, informed, 3 + 2)[0][1] == pytest.approx(0.1)
    # It says so twice: 0.64 to 0.01 to 0.01.
    assert outcomes(rules, Conversation(0, ((0, 1), (0, 1))), 3 + 1)[0][1] == pytest.approx(0.64 / 0.66)
    assert outcomes(rules, Conversation(0), 3 + 1)[0][1] == pytest.approx(1 / 3)


def test_the_answer_adds_up_what_several_tools_tell():
    rules = ToolRules(needs=(0, 2, 0), answers=3)
    known = Conversation(1, ((1, 2), (2, 2)))
    assert outcomes(rules, known, 3 + rules.answer(1, (2, 2)))[0] == (None, 1.0, (1.0, 1.0, 1.0))
    assert rules.answer(1, (2, 2)) == 2
    half_known = Conversation(1, ((1, 2),))
    assert [outcomes(rules, half_known, token)[0][1] for token in (3, 4, 5)] == [pytest.approx(1 / 3)] * 3


def test_executability_is_the_share_of_calls_that_ran():
    rules = ToolRules(needs=(0,), horizon=4)
    asked = Conversation(0, ((0, None), (1, -1)))
    assert outcomes(rules, asked, 3)[0][2] == (1.0, 1.0, 0.5)
    assert outcomes(rules, asked._replace(refused=1), 3)[0][2] == (1.0, 1.0, pytest.approx(1 / 3))
    assert outcomes(rules, Conversation(0), 3)[0][2] == (1.0, 1.0, 1.0)
    assert outcomes(ToolRules(needs=(0,), without_calls=0.0), Conversation(0), 3)[0][2] == (1.0, 1.0, 0.0)


def test_a_call_too_many_is_refused_and_the_last_turn_ends_the_episode():
    rules = ToolRules(needs=(0,), depth=1, horizon=3)
    full = Conversation(0, ((0, -1),))
    assert outcomes(rules, full, 0) == [(full._replace(refused=1), 1.0, (0.0, 0.0, 0.0))]
    last = full._replace(refused=1)
    assert outcomes(rules, last, 0) == [(None, 1.0, (0.0, 0.0, pytest.approx(1 / 3)))]
    assert rules.act(last, (0,))[0].truncated


def test_what_the_best_policy_earns_by_hand():
    """Of a prompt that needs one call of two: 3 when the first runs, 2.5 when the second does, 1.5 when none does.

    Of one that needs none: everything. With tools that never fail nothing is in the way of anything.
    """
    assert best(ToolRules(needs=(1,))) == pytest.approx(0.8 * 3 + 0.2 * (0.8 * 2.5 + 0.2 * 1.5))
    assert best(ToolRules(needs=(0,))) == pytest.approx(3)
    assert best(ToolRules(success=(1.0, 1.0, 1.0))) == pytest.approx(3)
    # Where calls must not fail and answers count for nothing, none is best.
    assert best(ToolRules(needs=(2,)), (0.0, 0.0, 1.0)) == pytest.approx(1)


def test_a_state_reads_as_what_happened():
    assert str(Conversation(1)) == "prompt 1"
    said = "prompt 1; tool 1 failed; tool 0 says 1; tool 2 is silent; a call is refused"
    assert str(Conversation(1, ((1, None), (0, 1), (2, -1)), 1)) == said


def test_equal_rules_are_one_game():
    assert tool_game(ToolRules()) is tool_game(ToolRules())
    assert tool_game(ToolRules()).reward_names == REWARDS
    assert torch.equal(Tree.enumerate(find_game("tools")).chance, Tree.enumerate(tool_game(ToolRules())).chance)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"needs": (4,)}, r"tool_rules\.needs = \(4,\): must be from 0 to 3"),
        ({"needs": ()}, "needs"),
        ({"success": (1.2,)}, r"success = \(1.2,\)"),
        ({"success": ()}, "success"),
        ({"depth": -1}, "depth = -1: must be at least 0"),
        ({"horizon": 0}, "horizon = 0: must be at least 1"),
        ({"answers": 1}, "answers = 1: must be at least 2"),
        ({"noise": 1.5}, r"noise = 1.5: must be in \[0, 1\]"),
        ({"without_calls": -0.5}, "without_calls = -0.5"),
    ],
)
def test_rules_out_of_range_are_refused_in_one_line(wrong, problem):
    with pytest.raises(InputError, match=problem) as caught:
        ToolRules(**wrong)
    assert "\n" not in str(caught.value)
