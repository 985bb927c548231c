"""Meta-solvers: worked numbers, agreement with OpenSpiel, invariances, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.games import (
    AlphaRank,
    FictitiousPlay,
    HybridRegret,
    Metagame,
    Nash,
    Newest,
    ProjectedReplicator,
    RobustReplicator,
    Uniform,
)

ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
SKEWED = np.array([[2.0, -1.0], [-1.0, 1.0]])
compiled = pytest.mark.usefixtures("_numba")
EVERY = (Uniform(), Newest(), Nash(), ProjectedReplicator(), AlphaRank(), FictitiousPlay(), HybridRegret())


def random_game(seed: int, *sizes: int) -> Metagame:
    return Metagame(np.random.default_rng(seed).standard_normal((1, len(sizes), *sizes)))


# ---- the metagame ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2, 3), (2, 3, 4)])
def test_deviations_values_and_joint_choices_are_expectations(sizes):
    game, draw = random_game(1, *sizes), np.random.default_rng(2)
    mixtures = [draw.dirichlet(np.ones(size)) for size in sizes]
    letters = "abc"[: len(sizes)]
    for player in range(len(sizes)):
        others = [mixture for p, mixture in enumerate(mixtures) if p != player]
        spelled = ",".join([letters, *(letter for p, letter in enumerate(letters) if p != player)])
        earned = np.einsum(f"{spelled}->{letters[player]}", game.expected[player], *others)
        assert np.allclose(game.deviations(player, mixtures), earned)
        table, weights = game.against(player, mixtures)
        assert np.allclose(table @ weights, earned) and weights.sum() == pytest.approx(1.0)
        assert game.values(mixtures)[player] == pytest.approx(mixtures[player] @ earned)


def test_bounds_are_over_worlds_and_regret_is_bounded_by_them():
    low = np.array([[[2.0, 0.0], [3.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    high = np.array([[[2.0, 1.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    game = Metagame(np.stack([low, high]))
    assert np.array_equal(game.lower, low) and np.array_equal(game.upper, high)
    assert game.upper_regret(game.uniform()) == pytest.approx(2.75)


@pytest.mark.parametrize(
    ("payoffs", "error"),
    [
        (np.zeros((1, 2, 0, 3)), "metagame: the population of player 0 is empty; every player needs a strategy"),
        (np.zeros((1, 2, 3, 0)), "metagame: the population of player 1 is empty; every player needs a strategy"),
        (np.zeros((1, 3, 2, 2)), "metagame: payoffs must be [world, player, strategies of each player]"),
        (np.full((1, 2, 1, 1), np.nan), r"metagame: payoff of player 0 in world 0 at [0, 0] is not finite"),
    ],
)
def test_a_metagame_without_strategies_or_with_wrong_payoffs_is_refused(payoffs, error):
    with pytest.raises(InputError) as raised:
        Metagame(payoffs)
    assert str(raised.value).startswith(error)


def test_nash_refuses_a_game_that_is_not_zero_sum_or_not_of_two():
    with pytest.raises(
        InputError, match=r"^meta-solver nash: the game is not zero-sum \(payoffs of a profile add up to 2"
    ):
        Nash()(Metagame.of_matrices(np.eye(2), np.eye(2)))
    with pytest.raises(InputError, match=r"^meta-solver nash: the game has 3 players"):
        Nash()(random_game(0, 2, 2, 2))


# ---- all of them ----------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("solver", [*EVERY, HybridRegret.evaluation(), RobustReplicator()], ids=lambda s: s.part_name())
def test_mixtures_are_distributions_and_one_strategy_is_certain(solver):
    draw = np.random.default_rng(3)
    for payoffs in (np.ones((1, 1)), draw.standard_normal((1, 4)), draw.standard_normal((5, 3))):
        mixtures = solver(Metagame.of_matrices(payoffs))
        assert [len(mixture) for mixture in mixtures] == [*payoffs.shape]
        for mixture in mixtures:
            assert (mixture >= 0).all() and mixture.sum() == pytest.approx(1.0)


@compiled
@pytest.mark.parametrize(
    "solver", [Uniform(), Nash(), ProjectedReplicator(), AlphaRank(), HybridRegret()], ids=lambda s: s.part_name()
)
def test_rock_paper_scissors_is_even(solver):
    for mixture in solver(Metagame.of_matrices(ROCK_PAPER_SCISSORS)):
        assert np.allclose(mixture, 1 / 3, atol=1e-9)


@compiled
@pytest.mark.parametrize(
    "solver",
    [ProjectedReplicator(steps=500), AlphaRank(), HybridRegret(), FictitiousPlay(50)],
    ids=lambda s: s.part_name(),
)
def test_three_players_are_no_special_case(solver):
    """A third player with one strategy changes nothing."""
    game = random_game(5, 3, 4)
    third = Metagame(np.concatenate([game.payoffs, np.zeros((1, 1, 3, 4))], axis=1)[..., None])
    assert third.sizes == (3, 4, 1)
    for two, three in zip(solver(game), solver(third), strict=False):
        assert np.allclose(two, three, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_linear_programming_finds_an_equilibrium(seed, rows, columns):
    game = Metagame.of_matrices(np.random.default_rng(seed).uniform(-1, 1, (rows, columns)))
    assert game.nash_conv(Nash()(game)) < 1e-9


def test_fictitious_play_comes_near_an_equilibrium():
    game = Metagame.of_matrices(SKEWED)
    assert game.nash_conv(FictitiousPlay(5000)(game)) < 0.05
    assert FictitiousPlay(1)(game)[0] == pytest.approx([0.75, 0.25])


# ---- agreement with OpenSpiel ---------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("floor", [1e-6, 0.05])
def test_replicator_dynamics_agree_with_openspiel(pyspiel, floor):
    theirs = pytest.importorskip("open_spiel.python.algorithms.projected_replicator_dynamics")
    for game in (random_game(7, 3, 4), random_game(8, 2, 2, 3)):
        expected = theirs.projected_replicator_dynamics(
            list(game.expected), prd_iterations=400, prd_dt=0.05, prd_gamma=floor
        )
        found = ProjectedReplicator(floor=floor, dt=0.05, steps=400)(game)
        for mine, other in zip(found, expected, strict=True):
            # Theirs counts the start, too.
            assert np.allclose((400 * mine + 1 / len(mine)) / 401, other, atol=1e-9)


@pytest.mark.parametrize("intensity", [0.1, 0.5, 1.0])
def test_alpha_rank_agrees_with_openspiel(pyspiel, intensity):
    theirs = pytest.importorskip("open_spiel.python.egt.alpharank")
    game = random_game(9, 3, 4)
    *_, stationary, _, _ = theirs.compute(list(game.expected), m=20, alpha=intensity)
    assert np.allclose(AlphaRank(intensity, 20).stationary(game), stationary, atol=1e-9)


def test_alpha_rank_of_equal_payoffs_is_even_and_strong_selection_is_finite():
    assert np.allclose(AlphaRank().stationary(Metagame(np.zeros((1, 2, 2, 3)))), 1 / 6)
    game = Metagame.of_matrices(1000 * SKEWED)
    assert np.isfinite(AlphaRank(intensity=100.0).stationary(game)).all()
    dominant = Metagame.of_matrices(np.array([[1.0], [0.0]]))
    assert AlphaRank(intensity=10.0)(dominant)[0][0] > 0.999


def test_alpha_rank_says_when_there_are_too_many_profiles():
    with pytest.raises(InputError, match=r"^meta-solver alpha_rank: 1,681 profiles are more than its 1,600"):
        AlphaRank()(random_game(0, 41, 41))


# ---- projected replicator dynamics ----------------------------------------------------------------------------------


@compiled
def test_the_floor_is_kept_and_one_that_cannot_be_is_refused():
    game = Metagame.of_matrices(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    assert ProjectedReplicator(floor=0.1, dt=0.1, steps=20_000)(game)[0] == pytest.approx([0.8, 0.1, 0.1], abs=1e-2)
    message = r"^meta-solver projected_replicator: floor = 0.4 is infeasible for 3 strategies; it may be at most 1/3$"
    with pytest.raises(InputError, match=message):
        ProjectedReplicator(floor=0.4)(game)
    with pytest.raises(InputError, match=r"^meta-solver robust_replicator: floor = 0.4 is infeasible"):
        RobustReplicator(floor=0.4)(game)


# ---- optimistic regret matching blended with a softmax --------------------------------------------------------------


def constant(blend, temperature, diversity, momentum, steps, average=False):
    return HybridRegret(
        (blend,) * 2, (temperature,) * 2, (diversity,) * 2, momentum, (steps, 0, steps), average=average
    )


@compiled
@pytest.mark.parametrize(
    ("steps", "row", "column"),
    [(1, (0.919318, 0.080682), (0.001657, 0.998343)), (2, (0.025895, 0.974105), (0.976782, 0.023218))],
)
def test_the_first_steps_of_the_hybrid_by_hand(steps, row, column):
    found = constant(0.3, 0.5, 0.05, 0.5, steps)(Metagame.of_matrices(SKEWED))
    assert found[0] == pytest.approx(row, abs=1e-6) and found[1] == pytest.approx(column, abs=1e-6)


@compiled
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_without_softmax_the_hybrid_ignores_where_payoffs_begin_and_their_scale(seed, scale, shift):
    payoffs = np.random.default_rng(seed).uniform(-1, 1, (3, 4))
    first, second = payoffs, -payoffs
    solver = constant(0.0, 1.0, 0.0, 0.5, 5)
    found = solver(Metagame.of_matrices(first, second))
    moved = solver(Metagame.of_matrices(scale * first + shift, scale * second - shift))
    for one, other in zip(found, moved, strict=True):
        assert np.allclose(one, other, atol=1e-7)


@compiled
def test_a_cold_softmax_alone_is_the_best_reply():
    found = constant(1.0, 1e-4, 0.0, 0.0, 1)(Metagame.of_matrices(SKEWED))
    # The row answers an even column, the column answers that row.
    assert found[0] == pytest.approx([1, 0]) and found[1] == pytest.approx([0, 1])


@compiled
def test_settings_change_with_the_iteration_until_they_are_final():
    game = random_game(11, 3, 3)
    solver = HybridRegret()
    first, last, later = (solver(game, iteration)[0] for iteration in (1, 75, 200))
    assert np.array_equal(last, later) and not np.allclose(first, last)
    assert np.allclose(last, constant(0.05, 0.01, 0.001, 0.5, 1040, average=True)(game)[0])


@compiled
def test_the_published_settings_are_no_equilibrium_solver():
    """A warning written down: at (.4, .6) they neither arrive nor stay."""
    game = Metagame.of_matrices(SKEWED)
    late = HybridRegret(steps=(3000, 0, 3000))(game, 75)
    assert game.nash_conv(late) == pytest.approx(0.43, abs=0.01)
    assert game.nash_conv(HybridRegret.evaluation()(game)) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [("blend", (0.5, 1.5)), ("temperature", (0.5, 0.0)), ("diversity", (-1, 0)), ("steps", (5, 1, 4))],
)
def test_settings_of_the_hybrid_outside_their_range_are_refused(field, value):
    with pytest.raises(InputError, match=rf"^hybrid_regret\.{field} = "):
        HybridRegret(**{field: value})


# ---- replicator dynamics on bounds ----------------------------------------------------------------------------------


def symmetric(low, high) -> Metagame:
    low, high = np.array(low), np.array(high)
    return Metagame(np.stack([np.stack([low, low.T]), np.stack([high, high.T])]))


@compiled
def test_one_step_on_bounds_by_hand():
    game = symmetric([[2.0, 0.0], [3.0, -2.0]], [[2.0, 1.0], [3.0, 4.0]])
    solver = RobustReplicator(threshold=(0.0, 0.0), dt=0.01, steps=1)
    assert solver(game)[0] == pytest.approx([0.49125, 0.50875]) and solver(game)[1] == pytest.approx([0.49125, 0.50875])


@compiled
def test_a_dominant_strategy_takes_everything_where_bounds_meet():
    payoffs = [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    found = RobustReplicator(threshold=(0.0, 0.0), dt=0.01)(symmetric(payoffs, payoffs))
    assert found[0][0] > 0.999


@compiled
def test_ties_of_the_largest_bound_make_no_difference_between_strategies():
    payoffs = np.ones((3, 3))
    for mixture in RobustReplicator(threshold=(0.0, 0.0))(symmetric(payoffs, payoffs)):
        assert mixture == pytest.approx([1 / 3] * 3)


@compiled
def test_a_high_threshold_stops_at_once_and_falls_with_the_iteration():
    game = symmetric([[2.0, 0.0], [3.0, -2.0]], [[2.0, 1.0], [3.0, 4.0]])
    solver = RobustReplicator(threshold=(6.0, 0.0), over=10)
    assert solver(game, 1)[0] == pytest.approx([0.5, 0.5]) and not np.allclose(solver(game, 11)[0], 0.5, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2), st.floats(0.0, 5.0))
def test_more_doubt_about_a_strategy_never_lowers_the_bound_of_regret(seed, strategy, more):
    draw = np.random.default_rng(seed)
    low = draw.standard_normal((2, 3, 3))
    high = low + draw.random((2, 3, 3))
    wider = high.copy()
    wider[0, strategy] += more
    mixtures = [draw.dirichlet(np.ones(3)) for _ in range(2)]
    before = Metagame(np.stack([low, high])).upper_regret(mixtures)
    assert Metagame(np.stack([low, wider])).upper_regret(mixtures) >= before - 1e-12
