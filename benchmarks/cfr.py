"""Iterations per second of counterfactual regret minimization with those of OpenSpiel's C++ solver.

Both play the same game with the same rule, taking turns in one process, on one thread; before that, ten iterations of
each must give the same average strategy. What is printed are ratios of processor time per iteration.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyspiel

from stratagem.games import CFR, SelfPlay, cfr, cfr_plus, compile_game


@dataclass(frozen=True)
class Setting:
    """A game, and how many times as many iterations are promised. theirs, ours: iterations of a round."""

    game: str
    aim: float | None
    theirs: int
    ours: int


SETTINGS = (
    Setting("kuhn_poker", None, 1000, 20_000),
    Setting("leduc_poker", 40, 4, 1000),
    Setting("liars_dice(dice_sides=5)", 12, 2, 200),
    Setting(
        "turn_based_simultaneous_game(game=goofspiel(num_cards=4,imp_info=True,points_order=descending))",
        None,
        10,
        1000,
    ),
)
SOLVERS: dict[str, tuple[CFR, Callable[..., object]]] = {
    "cfr": (cfr(), pyspiel.CFRSolver),
    "cfr_plus": (cfr_plus(), pyspiel.CFRPlusSolver),
}


def compare(setting: Setting, name: str, rounds: int) -> list[float]:
    """Ratios by round, after a check that both do the same."""
    solver, theirs = SOLVERS[name]
    game, other = compile_game(setting.game), theirs(pyspiel.load_game(setting.game))
    play = SelfPlay(solver, game)
    for _ in range(10):
        play.advance()
        other.evaluate_and_update_policy()
    policy = other.average_policy()
    for player, strategy in zip(game.players, play.average(), strict=True):
        odds = [odds for state in player.states for _, odds in policy.get_state_policy(state)]
        if np.abs(strategy[1:] - odds).max() > 1e-9:
            raise SystemExit(f"{setting.game}, {name}: the two solvers differ")
    ratios = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(setting.theirs):
            other.evaluate_and_update_policy()
        middle = time.process_time()
        play.advance(setting.ours)
        their_time, our_time = (middle - began) / setting.theirs, (time.process_time() - middle) / setting.ours
        ratios.append(their_time / our_time)
    return ratios


def main() -> None:
    """Print one row for each game and rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{'game':<34}{'rule':<10}{'times OpenSpiel':>26}   aim")
    for setting in SETTINGS:
        label = setting.game.removeprefix("turn_based_simultaneous_game(game=").partition(",")[0]
        label += ")" if label.count("(") > label.count(")") else ""
        for name in SOLVERS:
            low, middle, high = statistics.quantiles(compare(setting, name, rounds), n=4)
            verdict = "" if setting.aim is None else f"{setting.aim:g}: {'met' if low > setting.aim else 'missed'}"
            print(f"{label:<34}{name:<10}{f'{middle:.0f} ({low:.0f} to {high:.0f})':>26}   {verdict}")


if __name__ == "__main__":
    main()
