"""Populations: what grows, when it stops, agreement with their special cases, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.games import (
    PSRO,
    BestResponse,
    ConservativeResponse,
    ExactRoster,
    HybridRegret,
    Logged,
    Metagame,
    Nash,
    Never,
    Newest,
    NoGain,
    NothingNew,
    Population,
    Round,
    Uniform,
    alpha_psro,
    coffee_psro,
    disagreement,
    find_solver,
    matrix_game,
    path_features,
    play_log,
    psro,
    rae,
    shor_psro,
)

ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])


def grown(solver: PSRO, game, iterations: int) -> Population:
    population = solver.start(game)
    population.advance(iterations)
    return population


# ---- growing --------------------------------------------------------------------------------------------------------


def test_the_metagame_is_what_strategies_earn_against_each_other(kuhn):
    population = grown(PSRO(Uniform(), stopping=Never()), kuhn, 4)
    rows, columns = population.strategies
    assert population.metagame.sizes == (5, 5)
    for i in range(5):
        for j in range(5):
            assert population.metagame.expected[:, i, j] == pytest.approx(kuhn.values([rows[i], columns[j]]))


def test_what_plays_a_mixture_earns_what_the_mixture_earns(kuhn):
    population = grown(PSRO(Uniform(), stopping=Never()), kuhn, 5)
    draw = np.random.default_rng(0)
    mixtures = [draw.dirichlet(np.ones(6)) for _ in range(2)]
    earned = population.metagame.values(mixtures)
    assert kuhn.values(population.playing(mixtures)) == pytest.approx(earned)


def test_the_newest_strategy_alone_is_iterated_best_response(kuhn):
    population, strategies = grown(PSRO(Newest(), stopping=Never()), kuhn, 3), list(kuhn.uniform())
    for _ in range(3):
        strategies = [kuhn.best_response(player, strategies)[1] for player in range(2)]
    for last, expected in zip(population.strategies, strategies, strict=True):
        assert np.array_equal(last[-1], expected)


def test_even_mixtures_are_fictitious_play():
    payoffs = np.random.default_rng(1).standard_normal((3, 3))
    population = grown(PSRO(Uniform(), stopping=Never()), matrix_game(payoffs), 200)
    averages = [np.full(3, 1 / 3) for _ in range(2)]
    for step in range(1, 201):
        best = int((payoffs @ averages[1]).argmax()), int((-averages[0] @ payoffs).argmax())
        averages = [(step * one + np.eye(3)[b]) / (step + 1) for one, b in zip(averages, best, strict=True)]
    for found, expected in zip(population.average(), averages, strict=True):
        assert found[1:] == pytest.approx(expected)


def test_equilibria_of_the_metagame_are_the_double_oracle_and_it_ends_at_an_equilibrium(kuhn):
    population = grown(PSRO(Nash()), kuhn, 100)
    assert population.finished and population.iteration < 20
    assert kuhn.exploitability(population.average()) < 1e-9
    assert kuhn.values(population.average())[0] == pytest.approx(-1 / 18)
    before = population.iteration
    population.advance(5)
    assert population.iteration == before


def test_a_response_that_is_known_is_not_added_unless_repeats_are_wanted(kuhn):
    population = grown(alpha_psro(), kuhn, 100)
    assert population.finished
    for rows in population.strategies:
        assert len(np.unique(rows, axis=0)) == len(rows)


def test_stopping_rules():
    from stratagem.games import Growth

    none, some = Growth((0.0, 1e-12), (False, False)), Growth((0.0, 0.1), (False, True))
    assert NoGain()(none) and not NoGain()(some) and NoGain(0.2)(some)
    assert NothingNew()(none) and not NothingNew()(some)
    assert not Never()(none)


@pytest.mark.usefixtures("_numba")
@pytest.mark.parametrize("meta", ["prd", "uniform", "alpha_rank"])
def test_every_mixture_leads_towards_an_equilibrium(kuhn, meta):
    population = grown(psro(meta), kuhn, 12)
    assert kuhn.exploitability(population.average()) < 0.25 * kuhn.exploitability(kuhn.uniform())


@pytest.mark.usefixtures("_numba")
def test_the_hybrid_trains_by_one_setting_and_judges_by_another(kuhn):
    population = grown(shor_psro(), kuhn, 6)
    game = population.metagame
    assert np.array_equal(population.mixtures[0], HybridRegret()(game, 7)[0])
    assert np.array_equal(population.final_mixtures()[0], HybridRegret.evaluation()(game, 6)[0])


def test_risk_averse_populations_hedge():
    game = matrix_game(np.array([[4.0, 1.0], [3.0, 3.0]]), "hunt", second=np.array([[4.0, 3.0], [1.0, 3.0]]))
    population = grown(rae(1.0, 0.2), game, 6)
    for strategy in population.average():
        assert strategy[2] > 0.95


def test_three_players_grow_like_two(pyspiel):
    from stratagem.games import compile_game

    game = compile_game("kuhn_poker(players=3)")
    population = grown(PSRO(Uniform(), stopping=Never()), game, 6)
    assert population.metagame.sizes == (7, 7, 7)
    assert game.values([rows[2] for rows in population.strategies]) == pytest.approx(
        population.metagame.expected[:, 2, 2, 2]
    )
    assert game.nash_conv(population.average()) < game.nash_conv(game.uniform())


# ---- from a log -----------------------------------------------------------------------------------------------------


def test_a_complete_log_teaches_every_member_the_truth():
    game = matrix_game(ROCK_PAPER_SCISSORS)
    worlds = Logged(ridge=1e-9).fit(game, np.repeat(np.arange(9), 5), np.eye(9))
    for world in worlds:
        assert np.allclose(world.utility, game.utility, atol=1e-6) and world.zero_sum
    assert disagreement(worlds).max() < 1e-6


@pytest.mark.usefixtures("_numba")
def test_with_a_complete_log_and_no_price_it_believes_what_is_true():
    game = matrix_game(ROCK_PAPER_SCISSORS)
    worlds = Logged(ridge=1e-9).fit(game, np.repeat(np.arange(9), 5), np.eye(9))
    population = Population(coffee_psro(kappa=0.0), ExactRoster(game, worlds=worlds))
    population.advance(4)
    figures = population.measured()
    assert figures["payoff_width"] < 1e-5
    assert figures["exploitability/believed"] == pytest.approx(
        float(game.exploitability(population.average())), abs=1e-5
    )
    plain = population.metagame.expected
    assert plain[0, :, 0] == pytest.approx(
        [game.values([row, population.strategies[1][0]])[0] for row in population.strategies[0]], abs=1e-5
    )


def test_members_disagree_where_the_log_is_silent(kuhn):
    seen = np.arange(0, len(kuhn.chance), 2)
    worlds = Logged(ridge=1e-6).fit(kuhn, seen, np.eye(len(kuhn.chance)))
    found = disagreement(worlds)
    assert found[seen].max() < 1e-4 and found[seen + 1].min() > 1e-3


def test_identical_members_do_not_disagree_and_two_do_by_half_their_distance(kuhn):
    assert disagreement((kuhn, kuhn)).max() == 0.0
    assert disagreement((kuhn, kuhn.with_utility(kuhn.utility + 0.6))) == pytest.approx(0.3)


def test_without_price_and_doubt_the_conservative_response_is_the_best_response(kuhn):
    draw = np.random.default_rng(2)
    rows = tuple(player.normalized(draw.random((2, player.sequences))) for player in kuhn.players)
    other = kuhn.with_utility(kuhn.utility + np.array([1.0, -1.0]) * draw.standard_normal((len(kuhn.chance), 1)))
    mixtures = (np.array([0.3, 0.7]),) * 2
    one, two = Round((kuhn,), rows, mixtures, 1), Round((kuhn, other), rows, mixtures, 1)
    for player in range(2):
        assert np.array_equal(ConservativeResponse(5.0, 0.5)(player, one), BestResponse()(player, one))
        assert np.array_equal(ConservativeResponse(0.0)(player, two), BestResponse()(player, two))


def test_the_price_of_disagreement_is_paid_where_one_goes_and_where_opponents_may_go():
    """By hand: rows 0 and 1 earn 1 and 0.8; member 2 doubts (0, 0) by 1, and (1, 1), which only deviations reach."""
    truth = matrix_game(np.array([[1.0, 1.0], [0.8, 0.8]]))

    def with_doubt(row: int, column: int):
        payoffs = np.array([[1.0, 1.0], [0.8, 0.8]])
        worlds = []
        for sign in (-1, 1):
            moved = payoffs.copy()
            moved[row, column] += sign
            worlds.append(matrix_game(moved))
        any_row = np.array([[1.0, 0.5, 0.5]])
        return Round(tuple(worlds), (any_row, np.array([[1.0, 1.0, 0.0]])), (np.ones(1),) * 2, 1)

    assert truth.zero_sum
    own, deviation = with_doubt(0, 0), with_doubt(0, 1)
    assert ConservativeResponse(0.1)(0, own)[1] == 1.0 and ConservativeResponse(0.3)(0, own)[1] == 0.0
    assert ConservativeResponse(10.0)(0, deviation)[1] == 1.0
    # Half of the time a random opponent, half of which goes there: 0.5 * 0.2 is worth less than 0.25 * kappa.
    assert ConservativeResponse(0.3, 0.5)(0, deviation)[1] == 1.0
    assert ConservativeResponse(0.5, 0.5)(0, deviation)[1] == 0.0


@pytest.mark.usefixtures("_numba")
def test_what_is_believed_is_reported_beside_what_is_true(kuhn):
    population = grown(coffee_psro(episodes=30), kuhn, 3)
    figures = population.measured()
    assert {"exploitability/believed", "regret/upper_bound", "payoff_width"} < set(figures)
    assert figures["payoff_width"] > 0 and len(population.roster.worlds) == 4
    again = grown(coffee_psro(episodes=30), kuhn, 3)
    assert np.array_equal(population.strategies[0], again.strategies[0])


def test_a_log_is_drawn_as_the_game_is_played(kuhn):
    log = play_log(kuhn, kuhn.uniform(), 20_000, 1)
    reach = kuhn.chance.copy()
    for plan, last in zip(kuhn.plans(kuhn.uniform()), kuhn.sequence.T, strict=True):
        reach = reach * plan[last]
    assert np.bincount(log, minlength=len(reach)) / len(log) == pytest.approx(reach, abs=0.01)


def test_features_of_an_ending_are_the_sequences_on_the_way(kuhn):
    features = path_features(kuhn)
    assert features.shape == (len(kuhn.chance), 1 + sum(player.sequences - 1 for player in kuhn.players))
    moves = {("p", "p"): 3, ("b", "p"): 3, ("b", "b"): 3, ("p", "b", "p"): 4, ("p", "b", "b"): 4}
    assert sorted(features.sum(1).tolist()) == sorted(count for count in moves.values() for _ in range(6))


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_empty_populations_and_strategies_that_are_none_are_refused(kuhn):
    uniform = [one[None] for one in kuhn.uniform()]
    for strategies, error in (
        ([uniform[0], uniform[1][:0]], r"^population: player 1 has no strategy; every player needs at least one$"),
        ([uniform[0]], r"^population: 1 players have strategies; needs 2$"),
        ([*uniform, uniform[0]], r"^population: strategies for player 2, but kuhn by hand has 2 players$"),
        ([uniform[0][:, :3], uniform[1]], r"^population: strategies of player 0 must be rows of 13 sequences$"),
        ([2 * uniform[0], uniform[1]], r"^population: strategies of player 0 must be probabilities in every state$"),
    ):
        with pytest.raises(InputError, match=error):
            ExactRoster(kuhn, strategies)
    with pytest.raises(InputError, match=r"^population: worlds must be at least one game on the tree of kuhn by hand$"):
        ExactRoster(kuhn, worlds=[])


def test_a_meta_solver_for_zero_sum_games_refuses_another():
    game = matrix_game(np.eye(2), "coordination", second=np.eye(2))
    with pytest.raises(InputError, match=r"^meta-solver nash: the game is not zero-sum"):
        PSRO(Nash()).start(game)


def test_wrong_names_numbers_and_logs_are_refused(kuhn):
    for call, error in (
        (lambda: psro("nsh"), r"^unknown meta-solver 'nsh'; did you mean 'nash'\?$"),
        (lambda: find_solver("psro", mta="nash"), r"^unknown argument of psro 'mta'; did you mean 'meta'\?$"),
        (lambda: coffee_psro(kappa=-1), r"^conservative_response\.kappa = -1"),
        (lambda: coffee_psro(members=0), r"^logged\.members = 0"),
        (lambda: rae(tremble=2), r"^risk_averse\.tremble = 2"),
        (lambda: PSRO(Uniform()).start(kuhn).advance(-1), r"^iterations = -1: must be at least 0$"),
        (lambda: Logged().fit(kuhn, np.array([], np.int64)), r"^log: needs episodes, each of an ending from 0 to 29$"),
        (lambda: Logged().fit(kuhn, np.array([30])), r"^log: needs episodes, each of an ending from 0 to 29$"),
        (lambda: play_log(kuhn, kuhn.uniform(), 0, 0), r"^episodes = 0: must be at least 1$"),
        (lambda: matrix_game(np.eye(2), second=np.eye(3)), r"^game matrix: payoffs of both players must be finite"),
        (lambda: Metagame(np.zeros(3)), r"^metagame: payoffs must be"),
    ):
        with pytest.raises(InputError, match=error):
            call()
