"""The talk with a simulated user: its rules, and what the best policy earns, worked by hand."""

from __future__ import annotations

import pytest
import torch

from stratagem.lab import GAMES, SPECIAL_GAMES, Exact, Outcome, Tree, find_game
from stratagem.lab.dialogue import ADVICE, CALM, CHAT, COMFORT, GLAD, UPSET, mood_game
from stratagem.lab.exact import optimal_values

MOODS = {
    (UPSET, COMFORT): {CALM: 1.0},
    (CALM, COMFORT): {CALM: 1.0},
    (GLAD, COMFORT): {GLAD: 1.0},
    (UPSET, ADVICE): {UPSET: 1.0},
    (CALM, ADVICE): {GLAD: 0.5, UPSET: 0.5},
    (GLAD, ADVICE): {CALM: 1.0},
    (CALM, CHAT): {UPSET: 1.0},
    (GLAD, CHAT): {CALM: 1.0},
}


@pytest.mark.parametrize(("mood", "said"), MOODS)
def test_moods_follow_from_what_is_said_and_every_change_is_paid(mood, said):
    after = MOODS[mood, said]
    going_on = mood_game(4).act((0, mood), (said,))
    assert {one.state[1]: one.probability for one in going_on} == after
    assert all(one.reward == one.state[1] - mood and one.state[0] == 1 for one in going_on)
    last = mood_game(4).act((3, mood), (said,))
    assert [(one.state, one.reward, one.success) for one in last] == [
        (None, float(new - mood), new == GLAD) for new in after
    ]


def test_who_chats_with_an_upset_user_is_left():
    assert mood_game(4).act((1, UPSET), (CHAT,)) == [Outcome(reward=-1.0)]


def test_it_is_found_by_name_and_not_among_the_games_of_judgement():
    assert find_game("mood") is SPECIAL_GAMES["mood"] and "mood" not in GAMES
    x = Tree.enumerate(find_game("mood")).leaves
    assert sorted(x.trajectory_of_turn.size().unique().tolist()) == list(range(1, 9))


def test_the_return_is_the_change_of_mood_over_the_talk():
    tree = Tree.enumerate(mood_game(4))
    x = tree.leaves
    first = torch.tensor([mood for _, (_, mood) in tree.game.starts])[x.group_of_trajectory.labels]
    success = x.success.long()
    # A glad user at the end is 2; one who left is worse by 1 than upset.
    assert torch.equal(x.returns[x.success], (2 * success - first)[x.success].float())
    assert bool((x.returns >= -1 - first).all()) and bool((x.returns < 2 - first)[~x.success].all())


@pytest.mark.parametrize(("turns", "best"), [(1, 0.5), (2, 0.75)])
def test_the_best_policy_worked_by_hand(turns, best):
    """One turn: comfort earns 1 from upset, and nothing earns more than 0 on average from calm.

    Two: from upset comfort and then comfort, 1. From calm advice and, when it upset the user, comfort: 1/2 of 1 and
    1/2 of 0, so 1/2.
    """
    tree = Tree.enumerate(mood_game(turns))
    assert Exact.greedy(tree, optimal_values(tree)).expected_return == pytest.approx(best)
