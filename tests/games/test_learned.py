"""Responses learned by playing: near the best response, the same for the same seed, and refused where nothing plays."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.games import (
    PSRO,
    BestResponse,
    LearnedResponse,
    Logged,
    Nash,
    PlayedGame,
    Round,
    TableActor,
    UniformActor,
    compile_game,
    find_solver,
    matrix_game,
    psro,
)
from stratagem.games.learned import tabulated

pytestmark = pytest.mark.usefixtures("pyspiel")

QUICK = {"steps": 15, "episodes": 64}
"""Enough for Kuhn's poker."""


def against_uniform(game) -> Round:
    """Where everybody plays the uniform strategy."""
    return Round((game,), tuple(one[None] for one in game.uniform()), (np.ones(1),) * len(game.players), 1)


def gain(game, player, response) -> float:
    """Over the uniform strategy, where others play that."""
    strategies = list(game.uniform())
    strategies[player] = response
    return float(game.values(strategies)[player] - game.values(game.uniform())[player])


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["leduc_poker", "goofspiel(num_cards=3,imp_info=True,points_order=descending)"])
def test_an_actor_written_down_is_what_it_plays(name):
    game, played = compile_game(name), PlayedGame(name)
    draw = np.random.default_rng(0)
    for player, tree in enumerate(game.players):
        strategy = tree.normalized(draw.random(tree.sequences))
        assert tabulated(TableActor(tree, strategy), player, played, game) == pytest.approx(strategy)
        assert tabulated(UniformActor(), player, played, game) == pytest.approx(tree.uniform())


# ---- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("player", [0, 1])
def test_a_learned_response_in_kuhn_comes_near_the_best_one(player):
    game = compile_game("kuhn_poker")
    now = against_uniform(game)
    best = gain(game, player, BestResponse()(player, now))
    assert gain(game, player, LearnedResponse(**QUICK)(player, now)) > 0.85 * best


def test_a_learned_response_exploits_who_always_shows_heads():
    game = compile_game("matrix_mp")
    heads = np.array([[1.0, 1.0, 0.0]])
    now = Round((game,), (heads, heads), (np.ones(1),) * 2, 1)
    for player, wanted in ((0, 1), (1, 2)):
        response = LearnedResponse(steps=10, episodes=32)(player, now)
        assert response[wanted] > 0.9


def test_values_can_be_learned_in_place_of_policies():
    game = compile_game("kuhn_poker")
    response = LearnedResponse("qmix", steps=15, episodes=64)(1, against_uniform(game))
    assert set(np.unique(response)) == {0.0, 1.0}
    assert gain(game, 1, response) > 0.85 * gain(game, 1, BestResponse()(1, against_uniform(game)))


def test_the_same_seed_learns_the_same_response_and_another_one_another():
    game = compile_game("kuhn_poker")
    now = against_uniform(game)
    first, again = (LearnedResponse(steps=2, episodes=16, seed=3)(0, now) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, LearnedResponse(steps=2, episodes=16, seed=4)(0, now))


def test_a_greedy_response_is_pure_and_takes_what_is_most_likely():
    game = compile_game("kuhn_poker")
    now = against_uniform(game)
    mixed, pure = (LearnedResponse(steps=2, episodes=16, greedy=greedy)(0, now) for greedy in (False, True))
    for low, high in zip(game.players[0].first[:-1], game.players[0].first[1:], strict=True):
        assert np.array_equal(pure[low:high], np.eye(2)[mixed[low:high].argmax()])


@pytest.mark.slow
def test_psro_by_learned_responses_comes_nearer_an_equilibrium():
    game = compile_game("kuhn_poker")
    population = psro("nash", oracle="learned", seed=0, **QUICK).start(game)
    population.advance(6)
    assert game.exploitability(population.average()) < 0.5 * game.exploitability(game.uniform())


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_worlds_known_from_a_log_and_games_written_down_are_refused():
    game = compile_game("kuhn_poker")
    refused = r"^oracle learned_response: plays the games of OpenSpiel as they are; what .* pays is written down"
    solver = PSRO(Nash(), oracle=LearnedResponse(), model=Logged(50))
    assert not solver.plays
    for population in (
        solver.start(game),
        PSRO(Nash(), oracle=LearnedResponse()).start(matrix_game(np.eye(2))),
        PSRO(Nash(), oracle=LearnedResponse()).start(game.with_utility(2 * game.utility)),
    ):
        with pytest.raises(InputError, match=refused):
            population.advance(1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"recipe": "ippp"}, r"^unknown recipe 'ippp'; did you mean 'ippo'"),
        ({"recipe": "grpo"}, r"^oracle learned_response: recipe grpo names no policy of agents that act at once"),
        ({"recipe": "psro"}, r"psro"),
        ({"steps": 0}, r"^learned_response\.steps = 0"),
        ({"episodes": 0}, r"^learned_response\.episodes = 0"),
        ({"trials": 1}, r"^trials\.episodes = 1"),
        ({"settings": {"optimization.lr": 1}}, r"unknown field of .*'optimization\.lr'"),
        ({"oracle": "exact", "steps": 3}, r"^psro: steps: say how responses are learned; needs oracle=learned$"),
        ({"oracle": "learnd"}, r"^unknown oracle 'learnd'; did you mean 'learned'\?$"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_played(arguments, error):
    with pytest.raises(InputError, match=error):
        find_solver("psro", **{"oracle": "learned", **arguments})
