"""Games whose turns have several tokens or parts: their rules, their labels, and what discounting does to them."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import GAE
from stratagem.errors import InputError
from stratagem.lab import GAMES, SPECIAL_GAMES, Exact, TokenGame, Tree, diagnose, find_game, over
from stratagem.lab.exact import optimal_values
from stratagem.recipes import hiper


def test_games_are_found_by_name():
    names = {"one_word", "wordy_corridor", "errands"}
    assert names <= SPECIAL_GAMES.keys() and not names & GAMES.keys()
    assert all(find_game(name) is SPECIAL_GAMES[name] for name in names)


def discounted_choice(step: str) -> int:
    """The first token a greedy player takes in ``one_word`` who values it as an estimator does, at discount 0.9."""
    tree = Tree.enumerate(find_game("one_word"))
    x = tree.leaves.replace(value=torch.zeros(tree.leaves.tokens))
    worth = GAE(discount=0.9, trace=1.0, step=step)(x)
    first = tree.node == 0
    return int(tree.action[first][worth[first].argmax()])


def test_naive_flattening_takes_the_shorter_word_and_decomposed_actions_the_better_one():
    tree = Tree.enumerate(find_game("one_word"))
    assert int(optimal_values(tree)[0].argmax()) == 1
    assert discounted_choice("decomposed") == discounted_choice("turn") == 1
    # 0.9 * 1.05 = 0.945 is less than 1.
    assert discounted_choice("token") == 0


def test_words_of_the_corridor_lead_where_their_steps_do():
    act = find_game("wordy_corridor").act
    assert act((0, 1), (1, 1)) is None
    assert act((0, 1), (0,))[0].state == (1, 0) and act((0, 0), (0,))[0].state == (1, 0)
    assert act((0, 1), (1, 0))[0].state == (1, 1) == act((0, 1), (1, 1, 0))[0].state
    assert act((0, 1), (1, 1, 1))[0].success
    assert act((4, 0), (1, 1, 1))[0].truncated


def test_errands_are_done_under_their_own_sub_goal_only():
    act = find_game("errands").act
    assert act((0, 0, 0), (0, 0)) is None
    assert act((0, 0, 0), (0, 0, 1))[0].state == (1, 1, 0)
    assert act((0, 0, 0), (1, 1, 1))[0].state == (1, 0, 1)
    assert act((1, 1, 0), (0, 1))[0].state == (2, 1, 0)
    assert act((1, 1, 0), (1, 1, 1))[0].state == (2, 2, 1)
    assert act((2, 2, 1), (1, 0, 1))[0].success
    assert not act((4, 0, 0), (0, 0))[0].success


def test_leaves_are_labelled_by_the_parts_of_their_turns():
    x = Tree.enumerate(find_game("errands")).leaves
    by = x.turn_of_token
    assert x.span is not None and x.segment_start is not None
    assert torch.equal(by.size() == 3, x.segment_start)
    assert bool((x.span[by.first()] == 2).all()) and bool((x.span[by.last()] == 0).all())
    assert torch.equal(by.sum((x.span == 1).long()).bool(), x.segment_start)
    assert bool(x.segment_start[x.trajectory_of_turn.first()].all())


def test_a_structure_that_does_not_name_every_token_is_refused():
    def structure(state, tokens):
        return [0], True

    broken = TokenGame("broken", "two tokens", 2, ((1.0, 0),), lambda s, t: over(1.0) if len(t) == 2 else None,
                       structure=structure)  # fmt: skip
    with pytest.raises(InputError, match=r"names 1 spans of \(0, 0\)"):
        Tree.enumerate(broken)


def test_a_game_without_structure_cannot_judge_a_recipe_that_reads_it():
    with pytest.raises(InputError, match="reads segment_start, span, which a tree does not have"):
        diagnose(hiper(), "corridor", groups=128)


def test_unwhitened_and_uncharged_the_hierarchical_update_points_along_the_gradient():
    recipe = hiper(whiten=False, keep=0, inconsistent=0, invalid=0, kl_coefficient=0)
    tree = Tree.enumerate(find_game("errands"))
    policy = Exact(tree, tree.normal_logits(1001))
    x = tree.leaves.replace(value=policy.value[tree.node])
    credit = recipe.advantage(x)
    expected = policy.through_softmax(tree.total(x.to_tokens(trajectory=policy.leaf_probability) * credit))
    torch.testing.assert_close(expected, policy.gradient, atol=1e-6, rtol=0)
