"""Kuhn's poker written down by hand, and what OpenSpiel's tests need."""

from __future__ import annotations

from itertools import permutations

import pytest

from stratagem.games import Chance, Decision, FlatGame, Strategy, Terminal, tree_game


@pytest.fixture(scope="session")
def pyspiel():
    """OpenSpiel; without it a test of agreement with it has nothing to agree with."""
    return pytest.importorskip("pyspiel", reason="OpenSpiel is not installed (stratagem[games])")


@pytest.fixture(scope="session")
def _numba():
    """What compiles solvers."""
    pytest.importorskip("numba", reason="numba is not installed (stratagem[games])")


@pytest.fixture(scope="session")
def kuhn() -> FlatGame:
    """Three cards, one chip each, one bet of one chip. Actions are ``pass`` and ``bet``."""

    def history(cards: tuple[int, int], moves: str) -> Decision | Terminal:
        stake = {"pp": 1, "bb": 2, "pbb": 2}.get(moves)
        if stake is not None:
            won = stake if cards[0] > cards[1] else -stake
            return Terminal((won, -won))
        if moves in ("bp", "pbp"):
            won = 1 if moves == "bp" else -1
            return Terminal((won, -won))
        player = len(moves) % 2
        after = [(name, history(cards, moves + name[0])) for name in ("pass", "bet")]
        return Decision(player, f"{cards[player]}{moves}", after)

    deals = list(permutations(range(3), 2))
    return tree_game("kuhn by hand", 2, Chance([(1 / len(deals), history(cards, "")) for cards in deals]))


@pytest.fixture(scope="session")
def kuhn_equilibrium(kuhn):
    """``kuhn_equilibrium(a)``: Kuhn's family, in which the first player bets the lowest card with probability ``a``."""
    second = {"0p": 1 / 3, "0b": 0.0, "1p": 0.0, "1b": 1 / 3, "2p": 1.0, "2b": 1.0}

    def equilibrium(a: float) -> tuple[Strategy, Strategy]:
        first = {"0": a, "1": 0.0, "2": 3 * a, "0pb": 0.0, "1pb": a + 1 / 3, "2pb": 1.0}
        made = []
        for player, bets in zip(kuhn.players, (first, second), strict=True):
            strategy = player.uniform()
            for state, low in zip(player.states, player.first, strict=False):
                strategy[low : low + 2] = 1 - bets[state], bets[state]
            made.append(strategy)
        return made[0], made[1]

    return equilibrium
