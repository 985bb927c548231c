"""The claims of populations: of meta-solvers on poker, of risk aversion, of logs, and of teams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np

from stratagem.games import (
    PSRO,
    BestResponse,
    Chance,
    ConservativeResponse,
    CrossPlay,
    Decision,
    ExactRoster,
    FlatGame,
    Logged,
    Metagame,
    Nash,
    Never,
    Population,
    RiskAverse,
    RobustReplicator,
    Solver,
    TeamGame,
    Terminal,
    Uniform,
    compile_game,
    covariance,
    find_solver,
    play_log,
    seek_attack_defend,
    team_rps,
    tree_game,
    unanimity,
)
from stratagem.games.metasolvers import MetaSolver
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim

# ---- populations with a simulator -----------------------------------------------------------------------------------

ITERATIONS = 20

POPULATED = ("kuhn_poker", "leduc_poker", "goofspiel(num_cards=4,imp_info=True,points_order=descending)")
"""Games whose payoffs a seed moves: those of each ending are multiplied by a log-normal number."""

SPREAD = 0.25

LEAST = 1e-6
"""Exploitability below this counts as this: meta-solvers stop at different depths of rounding."""

META = ("uniform", "nash", "prd", "alpha_rank", "newest")

ON_POKER = (
    "Kuhn, Leduc and Goofspiel of 4 cards, 20 iterations with exact best responses from the uniform strategy, exact "
    "exploitability of the final mixture. A first version of 30 iterations took too long. The "
    "algorithm is deterministic, so a seed multiplies the payoffs of every "
    "ending by one log-normal number of deviation 0.25. No response is learned by playing. "
)


@cache
def _game(name: str) -> FlatGame:
    return compile_game(name)


@cache
def _moved(seed: int) -> Mapping[str, FlatGame]:
    """Games with payoffs of this seed."""
    made = {}
    for name in POPULATED:
        game, draw = _game(name), numpy_generator(seed, name)
        factors = np.exp(SPREAD * draw.standard_normal(len(game.chance)))
        made[name] = game.with_utility(game.utility * factors[:, None])
    return made


def _exploitability(solver: Solver, game: FlatGame, iterations: int = ITERATIONS) -> float:
    play = solver.start(game)
    play.advance(iterations)
    return max(float(game.exploitability(play.average())), LEAST)


@cache
def _by_meta(seed: int) -> Mapping[str, Mapping[str, float]]:
    """Exploitability by game and meta-solver."""
    return {
        name: {meta: _exploitability(find_solver("psro", meta=meta), game) for meta in META}
        for name, game in _moved(seed).items()
    }


def _log_ratio(results: Mapping[Any, Mapping[str, float]], one: str, *others: str) -> float:
    """Mean over games of log10 of exploitability over that of the best of the others."""
    return fmean(math.log10(row[one] / min(row[other] for other in others)) for row in results.values())


@claim(
    "psro",
    statement="Best responses to mixtures over a population come near an equilibrium where independent learners, who "
    "respond to the newest opponent alone, overfit to it.",
    source="arXiv 1711.00832, abstract and section 4 (gridworlds and Leduc poker, responses by reinforcement learning)",
    baseline="psro with meta=newest: iterated best response",
    rule=(Expect("share_of_uniform_strategies", below=0.25), Expect("log10_ratio_to_newest", below=-0.5)),
    scale=ON_POKER + "Uniform, Nash and alpha-rank mixtures stand beside it; their order is no part of the rule.",
)
def psro(seed: int) -> dict[str, float]:
    """Exploitability over that of uniform play, and mean log10 of ratios to other meta-solvers."""
    results, games = _by_meta(seed), _moved(seed)
    start = {name: float(game.exploitability(game.uniform())) for name, game in games.items()}
    return {
        "share_of_uniform_strategies": fmean(row["prd"] / start[name] for name, row in results.items()),
        **{f"log10_ratio_to_{other}": _log_ratio(results, "prd", other) for other in META if other != "prd"},
    }


@claim(
    "alpha_psro",
    statement="In two-player zero-sum poker, populations by alpha-rank come about as near an equilibrium as those by "
    "Nash mixtures, and nearer than those by uniform ones.",
    source="arXiv 1909.12823, experiments on Kuhn and Leduc poker",
    baseline="psro with meta=nash and meta=uniform",
    rule=(Expect("log10_ratio_to_nash", below=0.3), Expect("log10_ratio_to_uniform", below=0)),
    scale=ON_POKER
    + "Responses are best responses, not the preference-based ones of the paper, and mixtures are marginals of "
    "alpha-rank with intensity 10. A response that is known is not added again and a population may be complete early; "
    "with repeats, as the others have them, stands beside it (log10_ratio_to_nash_with_repeats). Nash mixtures solve "
    "Kuhn to rounding, which counts as 1e-6.",
)
def alpha_psro(seed: int) -> dict[str, float]:
    """Mean log10 of ratios of exploitability, with and without repeated strategies."""
    games, by_meta = _moved(seed), _by_meta(seed)
    solver = find_solver("alpha_psro")
    results = {name: {**by_meta[name], "mine": _exploitability(solver, game)} for name, game in games.items()}
    return {
        "log10_ratio_to_nash": _log_ratio(results, "mine", "nash"),
        "log10_ratio_to_uniform": _log_ratio(results, "mine", "uniform"),
        "log10_ratio_to_nash_with_repeats": _log_ratio(results, "alpha_rank", "nash"),
        "log10_ratio_to_nash_off_kuhn": _log_ratio(
            {name: row for name, row in results.items() if name != "kuhn_poker"}, "mine", "nash"
        ),
    }


def hybrid_results(seed: int) -> dict[str, float]:
    """SHOR-PSRO against other meta-solvers: for the claim of what a search over programs found."""
    games, by_meta = _moved(seed), _by_meta(seed)
    solver = find_solver("shor_psro")
    results = {name: {**by_meta[name], "shor": _exploitability(solver, game)} for name, game in games.items()}
    others = tuple(meta for meta in META if meta != "newest")
    return {
        "shor_best_share": fmean(row["shor"] <= min(row[other] for other in others) for row in results.values()),
        "log10_shor_ratio_to_best_other": _log_ratio(results, "shor", *others),
        **{f"log10_shor_ratio_to_{other}": _log_ratio(results, "shor", other) for other in others},
    }


# ---- risk -----------------------------------------------------------------------------------------------------------

TREMBLE = 0.1


@claim(
    "rae",
    statement="Risk-averse equilibria have the lowest variance of reward in high-risk matrix games, and choose the "
    "risk-dominant equilibrium where trust is a dilemma.",
    source="arXiv 2205.15434, abstract and matrix games",
    baseline="the payoff-dominant Nash equilibrium, and fictitious play without aversion",
    rule=(
        Expect("variance_over_payoff_dominant", below=0.5),
        Expect("variance_over_neutral", below=0.5),
        Expect("risk_dominant_share", above=0.9),
    ),
    scale="A seed draws 50 coordination games of 2 x 2: trust pays 4, or between -2 and 1 when it is betrayed, and the "
    "safe action pays between 1 and 3.5 whatever the other does; the opponent plays its part but trembles with "
    "probability 0.1. Aversion 1 with trembles of 0.2; without aversion it is fictitious play, which by itself chooses "
    "the risk-dominant equilibrium, so that half of the statement is no merit of aversion. The safe action has no "
    "variance by construction and maximin always chooses it (variance_of_maximin); mean_over_payoff_dominant says what "
    "is paid for it. A first version drew games in which players without aversion chose the same, which decided "
    "nothing; its rule also asked for 0.9 of the payoff-dominant mean, and there it was 0.8. The text of the paper was "
    "not available in full; what is measured is a reconstruction of its concept.",
)
def rae(seed: int) -> dict[str, float]:
    """Variance and mean against an opponent that trembles, over those of other choices; means over games."""
    draw = numpy_generator(seed, "coordination")
    averse, neutral = RiskAverse(1.0, 0.2, steps=100), RiskAverse(0.0, 0.0, steps=100)
    found: dict[str, list[tuple[float, float]]] = {"averse": [], "neutral": [], "dominant": [], "maximin": []}
    kept = []
    for _ in range(50):
        safe, betrayed = draw.uniform(1.0, 3.5), draw.uniform(-2.0, 1.0)
        payoffs = np.array([[4.0, betrayed], [safe, safe]])
        game = Metagame.of_matrices(payoffs, payoffs.T)
        chosen = {
            "averse": averse(game)[0],
            "neutral": neutral(game)[0],
            "dominant": np.eye(2)[0],
            "maximin": np.eye(2)[1],
        }
        for name, mixture in chosen.items():
            other = (1 - TREMBLE) * mixture + TREMBLE / 2
            spread = mixture @ covariance(game, 0, [other, other]) @ mixture
            found[name].append((float(spread), float(mixture @ payoffs @ other)))
        if 2 * safe > 4 + betrayed:
            kept.append(float(chosen["averse"][1]))
    means = {name: [fmean(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    return {
        "variance_over_payoff_dominant": means["averse"][0] / means["dominant"][0],
        "variance_over_neutral": means["averse"][0] / means["neutral"][0],
        "risk_dominant_share": fmean(share > 0.5 for share in kept),
        "mean_over_payoff_dominant": means["averse"][1] / means["dominant"][1],
        "mean_over_neutral": means["averse"][1] / means["neutral"][1],
        "variance_of_maximin": means["maximin"][0],
    }


# ---- from a log -----------------------------------------------------------------------------------------------------

ITEMS, OFFERS = 3, 3
"""Of the bargaining game: what is divided, and how often before nobody gets anything."""

EPISODES, ROUNDS, LOGS = 300, 8, 3

WHOLE = PSRO(RobustReplicator(), RobustReplicator(threshold=(0.0, 0.0)), ConservativeResponse(), Never())
"""As :func:`~stratagem.games.coffee_psro` has it."""

MIXTURES = WHOLE.replace(oracle=BestResponse())
"""Bounds of payoffs, but responses without a price of disagreement."""


@cache
def bargaining() -> FlatGame:
    """Alternating offers over identical items with private values of 1 to 3; a round costs a tenth of what is got.

    An offer keeps a number of items. The last may be accepted or refused, which leaves both with nothing.
    """

    def ending(values: tuple[int, int], said: tuple[int, ...]) -> Terminal:
        proposer, kept = (len(said) - 1) % 2, said[-1]
        shares = (kept, ITEMS - kept) if proposer == 0 else (ITEMS - kept, kept)
        patience = 1.0 - 0.1 * (len(said) - 1)
        return Terminal((values[0] * shares[0] * patience, values[1] * shares[1] * patience))

    def history(values: tuple[int, int], said: tuple[int, ...]) -> Decision[Any]:
        player = len(said) % 2
        actions: list[tuple[str, Any]] = [("accept", ending(values, said))] if said else []
        if len(said) < OFFERS:
            actions += [(f"keep {keep}", history(values, (*said, keep))) for keep in range(ITEMS + 1)]
        else:
            actions.append(("refuse", Terminal((0.0, 0.0))))
        return Decision(player, f"{values[player]} {said}", actions)

    values = [(first, second) for first in (1, 2, 3) for second in (1, 2, 3)]
    return tree_game("bargaining", 2, Chance([(1 / len(values), history(pair, ())) for pair in values]))


def _true_regrets(worlds: tuple[FlatGame, ...]) -> dict[str, float]:
    """Sum of regrets in the true game. plain: in the one world of mean payoffs, where bounds and prices vanish."""
    game, found = bargaining(), {}
    mean = game.with_utility(np.mean([world.utility for world in worlds], axis=0))
    for arm, solver, seen in (("plain", MIXTURES, (mean,)), ("mixtures", MIXTURES, worlds), ("both", WHOLE, worlds)):
        population = Population(solver, ExactRoster(game, worlds=seen))
        population.advance(ROUNDS)
        found[arm] = max(float(game.nash_conv(population.average())), LEAST)
    return found


@claim(
    "coffee_psro",
    statement="From a fixed log of a mixed-motive game, conservative responses and mixtures that heed bounds of "
    "payoffs find solutions of lower true regret than population methods without conservatism.",
    source="arXiv 2603.00374, abstract and bargaining experiments",
    baseline="psro with the same dynamics inside the mean of the same ensemble",
    rule=(Expect("log10_regret_ratio", below=0),),
    scale="A bargaining game of 3 items and 3 offers with private values, exact regret. A seed draws three logs of 300 "
    "episodes by random policies biased towards some actions (shares by Gamma of 0.3), and an ensemble of four for "
    "each; 8 iterations. What endings pay is learned by ridge regression on the moves that led there, with random "
    "priors; nature and moves are known, where the paper learns them by networks. The ratio to bounds of payoffs "
    "alone says what conservative responses add. A log of 30,000 even episodes is a control, where conservatism should "
    "make little difference (in utility: pure equilibria are often found exactly). "
    "A first version took averages of replicator dynamics as the baseline; on the control they "
    "were far behind, so the dynamics and not conservatism decided, and they were given up. The authors' text was not "
    "available in full; the rules are those of an earlier program of theirs.",
)
def coffee_psro(seed: int) -> dict[str, float]:
    """Mean log10 of true regret over that without conservatism: whole, by halves, and with a log that covers all."""
    game, biased = bargaining(), {}
    for number in range(LOGS):
        draw = numpy_generator(seed, "behaviour", number)
        habits = [player.normalized(draw.gamma(0.3, size=player.sequences)) for player in game.players]
        model = Logged(seed=derive(seed, "log", number))
        biased[number] = _true_regrets(model.fit(game, play_log(game, habits, EPISODES, model.seed)))
    even = Logged(seed=derive(seed, "even"))
    covered = _true_regrets(even.fit(game, play_log(game, game.uniform(), 30_000, even.seed)))
    return {
        "log10_regret_ratio": _log_ratio(biased, "both", "plain"),
        "log10_regret_ratio_of_mixtures": _log_ratio(biased, "mixtures", "plain"),
        "log10_regret_ratio_to_mixtures": _log_ratio(biased, "both", "mixtures"),
        "regret_difference_covered": covered["both"] - covered["plain"],
        "regret_of_plain": fmean(row["plain"] for row in biased.values()),
        "regret_of_plain_covered": covered["plain"],
        "regret_of_random_play": float(game.nash_conv(game.uniform())),
    }


# ---- teams ----------------------------------------------------------------------------------------------------------

TEAM_GAMES = (unanimity(), team_rps(), seek_attack_defend())

CROSS_ROUNDS = 6


def _cross(solver: CrossPlay, game: TeamGame, seed: int, rounds: int) -> float:
    """Exploitability of the mixture of what was saved; of the last policy where nothing is mixed."""
    run = solver.start(game, derive(seed, game.name))
    run.advance(rounds)
    return run.exploitability() if solver.itself == 1.0 else run.mixture_exploitability()


@claim(
    "fxp",
    statement="Fictitious cross-play finds global equilibria of team games where self-play ends at equilibria that "
    "only no single member leaves.",
    source="arXiv 2310.03354, abstract and matrix games",
    baseline="self-play, fictitious self-play, and PSRO with as many policies and members who learn on their own",
    rule=(
        Expect("exploitability", below=0.1),
        Expect("exploitability_of_self_play", above=0.5),
        Expect("unanimity_main", below=0.05),
    ),
    scale="Three games of one move: unanimity of 3 (the global equilibrium is pure), rock, paper, scissors by teams of "
    "2, and seek, attack, defend by 3 with 3 levels (both need mixtures of policies). Exact exploitability by teams "
    "that deviate as one, of the mixture of 6 rounds; self-play is judged by its policy. PSRO by Nash mixtures over 12 "
    "rounds, so that as many policies are trained, stands beside it: where it does as well, the counter population "
    "is not what matters but that there is a population (exploitability_of_psro_nash). Development runs of seeds from "
    "1000 on were seen before the bounds were fixed. No deep learning, no football.",
)
def fxp(seed: int) -> dict[str, float]:
    """Exploitability, means over games, and of the main policy of the unanimity game."""
    crossed = {game.name: _cross(CrossPlay(), game, seed, CROSS_ROUNDS) for game in TEAM_GAMES}
    main = CrossPlay().start(TEAM_GAMES[0], derive(seed, "main"))
    main.advance(CROSS_ROUNDS)
    others = {
        "self_play": (CrossPlay(1.0, counters=False), CROSS_ROUNDS),
        "fictitious_self_play": (CrossPlay(counters=False), CROSS_ROUNDS),
        "psro_uniform": (_psro_of_teams(Uniform()), 2 * CROSS_ROUNDS),
        "psro_nash": (_psro_of_teams(Nash()), 2 * CROSS_ROUNDS),
    }
    return {
        "exploitability": fmean(crossed.values()),
        "unanimity_main": main.exploitability(),
        **{
            f"exploitability_of_{name}": fmean(_cross(solver, game, seed, rounds) for game in TEAM_GAMES)
            for name, (solver, rounds) in others.items()
        },
    }


def _psro_of_teams(meta: MetaSolver) -> CrossPlay:
    """Every policy from a new start against a mixture of those before it."""
    return CrossPlay(0.0, counters=False, restart=True, meta=meta)
