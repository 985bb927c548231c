"""OpenSpiel's games compiled: as large as they are, worth what OpenSpiel says, and refused when they cannot be."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.games import FlatGame, compile_game
from stratagem.games.spiel import spiel_game

SMALL = "goofspiel(num_cards=3,imp_info=True,points_order=descending)"


def tabular(pyspiel, game: FlatGame, strategies) -> object:
    """OpenSpiel's policy with these probabilities."""
    table = {}
    for player, strategy in zip(game.players, strategies, strict=True):
        for state, low, high in zip(player.states, player.first[:-1], player.first[1:], strict=True):
            table[state] = strategy[low:high]
    actions = _actions(spiel_game(game.name).new_initial_state(), {})
    return pyspiel.TabularPolicy(
        {state: list(zip(actions[state], odds.tolist(), strict=True)) for state, odds in table.items()}
    )


def _actions(state, found: dict[str, list[int]]) -> dict[str, list[int]]:
    """Legal actions by information state."""
    if not state.is_terminal():
        if not state.is_chance_node():
            found[state.information_state_string()] = state.legal_actions()
        for action in state.legal_actions():
            _actions(state.child(action), found)
    return found


@pytest.mark.parametrize("name", ["kuhn_poker", "leduc_poker", SMALL, "liars_dice(dice_sides=3)"])
def test_exploitability_is_openspiels(pyspiel, name):
    game, draw = compile_game(name), np.random.default_rng(1)
    for _ in range(2):
        strategies = [player.normalized(draw.exponential(size=player.sequences)) for player in game.players]
        theirs = pyspiel.nash_conv(spiel_game(name), tabular(pyspiel, game, strategies))
        assert game.nash_conv(strategies) == pytest.approx(theirs, abs=1e-12)
        assert game.exploitability(strategies) == pytest.approx(theirs / 2, abs=1e-12)


def test_values_are_openspiels(pyspiel):
    game, draw = compile_game("kuhn_poker(players=3)"), np.random.default_rng(1)
    strategies = [player.normalized(draw.exponential(size=player.sequences)) for player in game.players]
    root = spiel_game(game.name).new_initial_state()
    theirs = pyspiel.expected_returns(root, tabular(pyspiel, game, strategies), -1, True)
    assert game.values(strategies) == pytest.approx(theirs)


def test_the_tree_written_by_hand_is_openspiels_kuhn(pyspiel, kuhn):
    theirs = compile_game("spiel:kuhn_poker")
    # OpenSpiel deals one card after the other: three histories more.
    assert theirs.histories == kuhn.histories + 3
    assert [set(player.states) for player in theirs.players] == [set(player.states) for player in kuhn.players]
    assert theirs.exploitability(theirs.uniform()) == pytest.approx(float(kuhn.exploitability(kuhn.uniform())))


def test_simultaneous_moves_are_made_one_after_the_other_unseen(pyspiel):
    game = compile_game("matrix_rps")
    assert [len(player.states) for player in game.players] == [1, 1]
    assert game.exploitability(game.uniform()) == pytest.approx(0.0)


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("leduc", r"^unknown game of OpenSpiel 'leduc'; did you mean 'leduc_poker'\?$"),
        (
            "kuhn_poker(deck=3)",
            r"^game kuhn_poker\(deck=3\): Unknown parameter 'deck'\. Available parameters are: players$",
        ),
        ("backgammon", r"^game backgammon: OpenSpiel does not say what a player knows"),
    ],
)
def test_a_name_openspiel_cannot_use_is_refused_in_one_line(pyspiel, name, error):
    with pytest.raises(InputError, match=error):
        compile_game(name)


def test_a_game_plainly_too_large_is_refused_before_it_is_walked(pyspiel, monkeypatch):
    monkeypatch.setattr("stratagem.games.spiel.flatten", lambda *arguments: pytest.fail("walked"))
    with pytest.raises(InputError, match=r"^game go is too large to enumerate: it has more than 1,000,000 histories, "):
        compile_game("go")


def test_a_game_just_over_the_limit_is_refused_with_an_estimate(pyspiel):
    with pytest.raises(
        InputError, match=r"more than 9,000 histories, about \S+ by an estimate; choose a smaller variant"
    ):
        compile_game("leduc_poker", limit=9000)
    assert compile_game("leduc_poker", limit=9457).histories == 9457


def test_a_limit_below_one_is_refused(pyspiel):
    with pytest.raises(InputError, match=r"^histories = 0: must be at least 1$"):
        compile_game("kuhn_poker", limit=0)


def test_without_openspiel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(InputError, match=r"pip install 'stratagem\[games\]'"):
        compile_game("kuhn_poker")
