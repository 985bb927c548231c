"""Enumeration: every history a node, every complete trajectory a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import GAMES, SPECIAL_GAMES, Exact, Outcome, TokenGame, Tree, find_game, over
from stratagem.lab.exact import optimal_values


def test_a_leaf_is_a_trajectory_and_a_node_a_history(both):
    tree = both.tree
    assert tree.nodes == 3 and tree.leaves.trajectories == 4
    assert tree.action.tolist() == [0, 0, 0, 1, 1, 0, 1, 1]
    assert tree.node.tolist() == [0, 1, 0, 1, 0, 2, 0, 2]
    assert tree.leaves.returns.tolist() == [0, 0, 0, 1]
    assert tree.leaves.success.tolist() == [False, False, False, True]
    assert tree.chance.tolist() == [1, 1, 1, 1]


def test_chance_outcomes_are_leaves_of_their_own_within_their_start(arms):
    tree = arms.tree
    assert tree.leaves.group_of_trajectory.labels.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(tree.chance, torch.tensor([0.5, 0.5, 0.0, 0.5, 0.05, 0.45], dtype=torch.float64))
    assert tree.leaves.task_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "leaves", "longest"),
    [("four_by_four", 256, 4), ("graded", 27, 3), ("prompts", 81, 3), ("length", 63, 5), ("windy", 256, 4)],
)
def test_leaves_are_counted_by_hand(name, leaves, longest):
    """``length``: 2^t unfinished answers of t bits are ended by the third token, t = 0..4, and 2^5 are cut."""
    tree = Tree.enumerate(GAMES[name])
    assert tree.leaves.trajectories == leaves
    assert int(tree.leaves.trajectory_of_token.size().max()) == longest


def test_one_place_reached_by_several_histories_is_one_state_and_several_nodes():
    tree = Tree.enumerate(GAMES["corridor"])
    keys = tree.leaves.turn_of_token.spread(tree.leaves.turn_state)
    in_first_place = keys == keys[tree.node == tree.states.index((2, 0))][0]
    assert len(tree.node[in_first_place].unique()) > 3
    assert len(set(tree.states)) < tree.nodes


def test_states_that_look_alike_have_one_key_and_nodes_of_their_own():
    tree = Tree.enumerate(find_game("cue"))
    keys = tree.leaves.turn_of_token.spread(tree.leaves.turn_state)
    by_state = {state: keys[tree.node == node][0].item() for node, state in enumerate(tree.states)}
    assert by_state["junction", 0] == by_state["junction", 1] != by_state["corridor", 0]
    assert by_state["sign", 0] != by_state["sign", 1]
    assert (tree.leaves.trajectories, len(set(by_state.values()))) == (24, 5)
    assert Exact.greedy(tree, optimal_values(tree)).expected_return == 1


def test_time_is_not_shown_where_a_circle_ends_in_the_state_it_began_in():
    tree = Tree.enumerate(find_game("fetch"))
    x, longest = tree.leaves, int(tree.leaves.trajectory_of_turn.size().max())
    assert (longest, int(x.trajectory_of_turn.size().min())) == (8, 4)
    first = x.turn_state[x.trajectory_of_turn.first()]
    again = (x.turn_state == x.trajectory_of_turn.spread(first)) & (x.trajectory_of_turn.position() > 0)
    assert again.any() and torch.equal(x.success, x.finished)
    assert Exact.greedy(tree, optimal_values(tree)).expected_return == 1


def test_games_of_look_alikes_are_found_and_not_among_those_all_are_judged_in():
    assert {"cue", "fetch"} <= SPECIAL_GAMES.keys() and not SPECIAL_GAMES.keys() & GAMES.keys()
    with pytest.raises(InputError, match="did you mean 'fetch'"):
        find_game("fetchs")


def test_an_episode_cut_by_the_game_is_truncated_and_one_that_ends_is_not():
    x = Tree.enumerate(GAMES["corridor"]).leaves
    assert torch.equal(x.truncated, ~x.finished) and torch.equal(x.success, x.finished)
    assert torch.equal(x.turn_done, x.trajectory_of_turn.is_last())


def test_turns_that_the_game_could_not_carry_out_are_marked():
    def act(turn: int, tokens: tuple[int, ...]) -> list[Outcome]:
        legal = tokens[0] == 1
        return [Outcome(None if turn else 1, executed=legal)]

    tree = Tree.enumerate(TokenGame("legal", "Two turns; token 1 is legal.", 2, ((1.0, 0),), act))
    assert tree.leaves.turn_executed.tolist() == [bool(token) for token in tree.action.tolist()]


def test_turn_rewards_add_up_to_the_return():
    x = Tree.enumerate(GAMES["stopping"]).leaves
    assert torch.equal(x.trajectory_of_turn.sum(x.turn_reward), x.returns)
    assert len(x.trajectory_of_turn.size().unique()) == 4


def test_columns_of_the_reward_count_by_their_weights():
    def act(state: int, tokens: tuple[int, ...]) -> list[Outcome]:
        told, done = float(tokens[0]), {"done": 0.5}
        return [Outcome(1, reward=told, components=done)] if state == 0 else over(told, success=True, **done)

    game = TokenGame("two", "", 2, ((1.0, 0),), act, ("told", "done"), (2.0, -1.0))
    x = Tree.enumerate(game).leaves
    assert x.reward.tolist() == [[0, 1], [1, 1], [1, 1], [2, 1]]
    assert (x.reward_names, x.reward_weights) == (("told", "done"), (2.0, -1.0))
    assert x.returns.tolist() == [-1, 1, 1, 3]
    assert torch.equal(x.trajectory_of_turn.sum(x.turn_rewards()), x.returns)
    assert Tree.enumerate(replace(game, reward_weights=None)).leaves.returns.tolist() == [1, 2, 2, 3]


def wrong(act: object, starts: Sequence[tuple[float, object]] = ((1.0, 0),), vocabulary: int = 2) -> TokenGame:
    return TokenGame("wrong", "", vocabulary, tuple(starts), act)


@pytest.mark.parametrize(
    ("game", "problem"),
    [
        (wrong(lambda state, tokens: over(1.0), [(0.5, 0)]), "its starts are"),
        (wrong(lambda state, tokens: [Outcome(probability=0.5)]), "the outcomes of"),
        (wrong(lambda state, tokens: None), "does not end"),
        (wrong(lambda state, tokens: [Outcome(components={"style": 1.0})]), "'style' is not among its reward_names"),
        (wrong(lambda state, tokens: over(1.0), vocabulary=1), "vocabulary = 1"),
        (wrong(lambda state, tokens: over(1.0) if len(tokens) == 6 else None, vocabulary=8), "too many"),
        (wrong(lambda state, tokens: over(1.0, style=2.0)), "reward component 'style' is not among its reward_names"),
        (replace(wrong(lambda state, tokens: over(1.0)), reward_weights=(1.0, 2.0)), "reward_weights"),
    ],
)
def test_a_game_that_cannot_be_enumerated_is_refused_in_one_line(game, problem):
    with pytest.raises(InputError, match=problem) as caught:
        Tree.enumerate(game)
    assert "\n" not in str(caught.value)


def test_further_rewards_add_up_over_the_turns_in_columns_of_their_own():
    def act(turn: int, tokens: tuple[int, ...]) -> list[Outcome]:
        """Two turns; token 1 earns half a point of style, and the last turn a reward."""
        style = {"style": 0.5} if tokens == (1,) else {}
        if turn == 0:
            return [Outcome(1, components=style)]
        return [Outcome(reward=float(tokens[0]), components=style)]

    game = TokenGame("styled", "", 2, ((1.0, 0),), act, ("reward", "style"))
    leaves = Tree.enumerate(game).leaves
    assert leaves.reward_names == ("reward", "style")
    assert leaves.reward.tolist() == [[0, 0], [1, 0.5], [0, 0.5], [1, 1]]
    assert leaves.returns.tolist() == [0, 1.5, 0.5, 2]
    assert leaves.token_rewards().tolist() == [0, 0, 0, 1.5, 0, 0.5, 0, 2]


def test_a_game_says_who_acts_and_what_a_turn_earns_once_the_next_one_is_known():
    def act(state: int, tokens: tuple[int, ...]) -> list[Outcome]:
        if state == 2:
            return [Outcome(reward=0.5, earlier=float(tokens[0]))]
        return [Outcome(state + 1, reward=1.0)]

    game = TokenGame("later", "", 2, ((1.0, 0),), act, seat=lambda state: (state % 2, 0))
    x = Tree.enumerate(game).leaves
    assert x.turn_role.tolist() == [0, 1, 0] * 8
    assert x.turn_reward.view(8, 3).tolist() == [[1.0, 1.0, 0.5], [1.0, 2.0, 0.5]] * 4
    assert x.returns.tolist() == [2.5, 3.5] * 4
    assert set(Tree.enumerate(find_game("corridor")).leaves.turn_role.tolist()) == {0}
    first = TokenGame("first", "", 2, ((1.0, 0),), lambda state, tokens: [Outcome(earlier=1.0)])
    with pytest.raises(InputError, match="the first turn has none before it"):
        Tree.enumerate(first)


def test_a_game_says_what_became_of_the_call_of_a_turn():
    def act(state: int, tokens: tuple[int, ...]) -> list[Outcome]:
        return [Outcome(1, ran=bool(tokens[0]))] if state == 0 else over(1.0)

    x = Tree.enumerate(TokenGame("called", "", 2, ((1.0, 0),), act)).leaves
    assert x.turn_call.tolist() == [0, -1, 0, -1, 1, -1, 1, -1]
