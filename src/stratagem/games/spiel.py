"""OpenSpiel's games: found by name, made turn-based where moves are simultaneous, and compiled into flat arrays."""

from __future__ import annotations

import dataclasses
import random
import statistics
from typing import Any

from stratagem.errors import InputError, unknown
from stratagem.games.flat import LIMIT, Chance, Decision, FlatGame, History, NotEnumerable, Terminal, flatten, too_large
from stratagem.tasks.adapter import require

PROBES = 64
"""Random playouts by which the size of a game is estimated before it is walked."""

PREFIX = "spiel:"
"""Of tasks that are games of OpenSpiel: ``spiel:leduc_poker``."""


def spiel_game(name: str) -> Any:
    """OpenSpiel's game of this name, with parameters such as ``liars_dice(dice_sides=5)``; sequential.

    Raises :class:`InputError` when OpenSpiel is not installed, for a name or parameter it does not know, and for a
    game that hides its chances.
    """
    pyspiel = require("pyspiel", "games")
    short = name.partition("(")[0]
    if short not in pyspiel.registered_names():
        raise unknown("game of OpenSpiel", short, pyspiel.registered_names())
    try:
        game = pyspiel.load_game(name)
        if game.get_type().dynamics == pyspiel.GameType.Dynamics.SIMULTANEOUS:
            game = pyspiel.convert_to_turn_based(game)
    except pyspiel.SpielError as error:
        raise InputError(f"game {name}: {error}") from None
    kind = game.get_type()
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
        raise InputError(f"game {name}: is of mean-field dynamics; it needs turns or simultaneous moves")
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise InputError(f"game {name}: OpenSpiel samples its chance moves without saying how likely they are")
    return game


def compile_game(name: str, limit: int = LIMIT) -> FlatGame:
    """A game of OpenSpiel as flat arrays; ``name`` with or without ``spiel:``.

    Raises :class:`InputError` as :func:`spiel_game` does, and :class:`~stratagem.games.flat.NotEnumerable` for a game
    of more than ``limit`` histories, one that does not say what a player knows, and one without perfect recall. A game
    that is plainly larger than the limit is refused before it is walked: half of the random playouts estimate more than
    four times the limit, which by Markov's inequality happens to a smaller game once in 100,000 times.
    """
    if limit < 1:
        raise InputError(f"histories = {limit}: must be at least 1")
    name = name.removeprefix(PREFIX)
    game = spiel_game(name)
    if not game.get_type().provides_information_state_string:
        raise NotEnumerable(f"game {name}: OpenSpiel does not say what a player knows and remembers there")
    sizes = _estimates(game)
    if statistics.median(sizes) > 4 * limit:
        raise too_large(name, limit, statistics.fmean(sizes))
    compiled = flatten(name, game.num_players(), game.new_initial_state(), _expand, limit)
    return dataclasses.replace(compiled, source=name)


def _expand(state: Any) -> History[Any]:
    """What an OpenSpiel state is."""
    if state.is_terminal():
        return Terminal(tuple(state.returns()))
    if state.is_chance_node():
        return Chance([(chance, state.child(action)) for action, chance in state.chance_outcomes()])
    player = state.current_player()
    moves = [(state.action_to_string(player, action), state.child(action)) for action in state.legal_actions()]
    return Decision(player, state.information_state_string(player), moves)


def _estimates(game: Any) -> list[float]:
    """Knuth's estimates of how many histories there are: of a random playout, the sum of products of branching."""
    draw, found = random.Random(0), []
    for _ in range(PROBES):
        state, width, size = game.new_initial_state(), 1.0, 1.0
        while not state.is_terminal():
            actions = state.legal_actions()
            width *= len(actions)
            size += width
            state.apply_action(draw.choice(actions))
        found.append(size)
    return found
