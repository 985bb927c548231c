"""Games as flat arrays: values, best responses and exploitability, against enumeration and Kuhn's own solution."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.errors import InputError
from stratagem.games import Chance, Decision, FlatGame, Terminal, flatten, matrix_game, tree_game


def drawn(game: FlatGame, seed: int, *many: int) -> tuple[np.ndarray, ...]:
    """Random strategies."""
    draw = np.random.default_rng(seed)
    return tuple(player.normalized(draw.exponential(size=(*many, player.sequences))) for player in game.players)


def pure(player) -> list[np.ndarray]:
    """All pure strategies of a player."""
    found = []
    for chosen in product(*(range(low, high) for low, high in zip(player.first, player.first[1:], strict=False))):
        strategy = np.zeros(player.sequences)
        strategy[[0, *chosen]] = 1.0
        found.append(strategy)
    return found


# ---- what a game becomes --------------------------------------------------------------------------------------------


def test_kuhn_has_six_states_of_two_actions_for_each_player_and_thirty_endings(kuhn):
    assert kuhn.histories == 1 + 6 * 9 and len(kuhn.chance) == 30 and kuhn.zero_sum
    for player in kuhn.players:
        assert len(player.states) == 6 and player.sequences == 13
        assert set(player.actions) == {("pass", "bet")}
    first, second = kuhn.players
    assert first.levels.tolist() == [0, 3, 6] and second.levels.tolist() == [0, 6]


def test_states_come_after_those_they_follow(kuhn):
    first = kuhn.players[0]
    place = {state: n for n, state in enumerate(first.states)}
    for card in "012":
        # The state after a pass and a bet follows the sequence that passed.
        assert first.parent[place[f"{card}pb"]] == first.first[place[card]]
        assert first.parent[place[card]] == 0


def test_a_plan_is_the_product_along_each_sequence(kuhn):
    player, strategy = kuhn.players[0], drawn(kuhn, 0)[0]
    plan = player.plan(strategy)
    place = {state: player.first[n] for n, state in enumerate(player.states)}
    assert plan[0] == 1.0
    assert plan[place["1"] + 1] == strategy[place["1"] + 1]
    assert plan[place["1pb"]] == pytest.approx(strategy[place["1"]] * strategy[place["1pb"]])


@given(weights=arrays(np.float64, 13, elements=st.floats(0, 10)))
def test_normalized_weights_are_distributions_and_uniform_where_all_are_zero(kuhn, weights):
    strategy = kuhn.players[0].normalized(weights)
    pairs = strategy[1:].reshape(6, 2)
    assert strategy[0] == 1.0 and np.allclose(pairs.sum(1), 1.0) and (pairs >= 0).all()
    assert (pairs[weights[1:].reshape(6, 2).sum(1) == 0] == 0.5).all()


# ---- values ---------------------------------------------------------------------------------------------------------


def test_uniform_play_of_kuhn_earns_the_first_player_an_eighth_and_is_exploitable_by_eleven_24ths(kuhn):
    assert kuhn.values(kuhn.uniform()) == pytest.approx([1 / 8, -1 / 8])
    assert kuhn.exploitability(kuhn.uniform()) == pytest.approx(11 / 24)
    assert kuhn.nash_conv(kuhn.uniform()) == pytest.approx(11 / 12)


@given(a=st.floats(0, 1 / 3))
def test_kuhns_family_is_worth_minus_an_eighteenth_and_cannot_be_exploited(kuhn, kuhn_equilibrium, a):
    strategies = kuhn_equilibrium(a)
    assert kuhn.values(strategies) == pytest.approx([-1 / 18, 1 / 18])
    assert kuhn.exploitability(strategies) < 1e-12


def test_the_first_player_who_bluffs_in_another_proportion_can_be_exploited(kuhn, kuhn_equilibrium):
    first, second = kuhn_equilibrium(0.2)
    bluffs = kuhn.players[0].first[kuhn.players[0].states.index("0")]
    first[bluffs : bluffs + 2] = 0.7, 0.3
    assert kuhn.exploitability((first, second)) > 1e-3


@given(seed=st.integers(0, 2**32 - 1))
def test_a_best_response_earns_what_the_best_pure_strategy_earns(kuhn, seed):
    strategies = drawn(kuhn, seed)
    for player in range(2):
        best, response = kuhn.best_response(player, strategies)
        tried = []
        for strategy in (response, *pure(kuhn.players[player])):
            played = [*strategies]
            played[player] = strategy
            tried.append(kuhn.values(played)[player])
        assert best == pytest.approx(max(tried)) == pytest.approx(tried[0])


def test_of_equal_actions_the_first_is_taken():
    game = matrix_game(np.array([[1.0], [1.0], [0.0]]))
    best, response = game.best_response(0, game.uniform())
    assert best == 1.0 and response.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_many_strategies_are_judged_at_once_as_each_alone(kuhn):
    many = drawn(kuhn, 3, 4, 2)
    together = kuhn.nash_conv(many), kuhn.values(many), kuhn.best_response(0, many)[1]
    for place in product(range(4), range(2)):
        one = tuple(strategy[place] for strategy in many)
        alone = kuhn.nash_conv(one), kuhn.values(one), kuhn.best_response(0, one)[1]
        for theirs, own in zip(together, alone, strict=True):
            assert np.allclose(theirs[place], own, atol=1e-14)


def test_sequence_values_are_the_gradient_of_the_expected_utility_by_the_own_plan(kuhn):
    strategies = drawn(kuhn, 5)
    plans = kuhn.plans(strategies)
    for player in range(2):
        assert plans[player] @ kuhn.sequence_values(player, plans) == pytest.approx(kuhn.values(strategies)[player])


def test_three_players_share_a_pie_by_what_enumeration_says():
    def ending(*moves: int) -> Terminal:
        return Terminal((float(moves[0] == moves[1]), float(moves[1] != moves[2]), float(sum(moves))))

    third = [[Decision(2, "c", [(str(c), ending(a, b, c)) for c in (0, 1)]) for b in (0, 1)] for a in (0, 1)]
    second = [Decision(1, "b", [(str(b), third[a][b]) for b in (0, 1)]) for a in (0, 1)]
    game = tree_game("pie", 3, Decision(0, "a", [(str(a), second[a]) for a in (0, 1)]))
    strategies = drawn(game, 7)
    expected, gains = np.zeros(3), 0.0
    for moves in product((0, 1), repeat=3):
        odds = np.prod([strategies[p][1 + moves[p]] for p in range(3)])
        expected += odds * np.array(ending(*moves).utilities)
    for player in range(3):
        replies = []
        for strategy in pure(game.players[player]):
            played = [*strategies]
            played[player] = strategy
            replies.append(game.values(played)[player])
        gains += max(replies) - expected[player]
    assert game.values(strategies) == pytest.approx(expected)
    assert game.nash_conv(strategies) == pytest.approx(gains)
    assert game.exploitability(strategies) == pytest.approx(gains / 3) and not game.zero_sum


def test_a_player_without_a_decision_is_a_player(kuhn):
    game = tree_game("alone", 2, Decision(0, "s", [("a", Terminal((1.0, -1.0))), ("b", Terminal((3.0, -3.0)))]))
    assert game.players[1].sequences == 1 and game.exploitability(game.uniform()) == pytest.approx(0.5)


def test_rock_paper_scissors_is_solved_by_the_uniform_strategy_alone():
    game = matrix_game(np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]))
    assert game.exploitability(game.uniform()) == pytest.approx(0.0)
    rock = np.array([1.0, 1.0, 0.0, 0.0])
    assert game.exploitability((rock, rock)) == 1.0


def test_other_utilities_on_the_same_tree_leave_the_game_alone(kuhn):
    doubled = kuhn.with_utility(2 * kuhn.utility)
    assert doubled.exploitability(doubled.uniform()) == pytest.approx(11 / 12)
    assert kuhn.exploitability(kuhn.uniform()) == pytest.approx(11 / 24)


# ---- bad input ------------------------------------------------------------------------------------------------------

WON, LOST = Terminal((1.0, -1.0)), Terminal((-1.0, 1.0))


@pytest.mark.parametrize(
    ("root", "error"),
    [
        (
            Chance([(0.5, WON), (0.4, LOST)]),
            r"^game g: chances add up to 0\.9; they must be at least 0 and add up to 1$",
        ),
        (Chance([(1.5, WON), (-0.5, LOST)]), r"^game g: chances add up to 1; they must be at least 0"),
        (Terminal((1.0,)), r"^game g: an ending pays \(1\.0,\); needs 2 finite numbers$"),
        (Terminal((1.0, float("nan"))), r"^game g: an ending pays"),
        (Decision(0, "s", []), r"^game g: state 's' needs actions"),
        (Decision(0, "s", [("a", WON), ("a", LOST)]), r"^game g: state 's' needs actions, each of another name$"),
        (
            Chance([(0.5, Decision(0, "s", [("a", WON)])), (0.5, Decision(0, "s", [("b", WON)]))]),
            r"^game g: state 's' has different actions in different histories$",
        ),
        (
            Decision(0, "s", [("a", Decision(0, "t", [("c", WON)])), ("b", Decision(0, "t", [("c", LOST)]))]),
            r"^game g: player 0 forgets: state 't' is reached by different own actions; .* needs perfect recall$",
        ),
    ],
)
def test_a_tree_that_is_no_game_is_refused_in_one_line(root, error):
    with pytest.raises(InputError, match=error):
        tree_game("g", 2, root)


def test_a_game_too_large_to_enumerate_says_how_large_and_what_to_do():
    def expand(place: int) -> Terminal | Decision:
        if place >= 2**12:
            return WON
        return Decision(place.bit_length() % 2, place, [("a", 2 * place), ("b", 2 * place + 1)])

    # All branches are alike, so the estimate is exact but for those that are not finished: 2^13 - 1 histories.
    with pytest.raises(InputError, match=r"it has more than 500 histories, about 8e\+03 by an estimate; .*--histories"):
        flatten("deep", 2, 1, expand, limit=500)
    assert flatten("deep", 2, 1, expand, limit=2**13 - 1).histories == 2**13 - 1


@pytest.mark.parametrize("payoffs", [np.zeros(3), np.zeros((0, 2)), np.array([[np.inf]])])
def test_payoffs_that_are_no_matrix_of_finite_numbers_are_refused(payoffs):
    with pytest.raises(InputError, match=r"^game matrix: payoffs must be a matrix of finite numbers"):
        matrix_game(payoffs)


def test_utilities_of_another_shape_are_refused(kuhn):
    with pytest.raises(InputError, match=r"^game kuhn by hand: utilities must be finite and of shape \(30, 2\)$"):
        kuhn.with_utility(np.zeros((3, 2)))
