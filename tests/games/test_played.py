"""Games that are played: seats and seeds, actors, episodes whose chances are those of the enumerated game, the task."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.errors import InputError
from stratagem.games import PlayedGame, TableActor, UniformActor, compile_game, play_out
from stratagem.games.played import OUTSIDE, Episodes, Seen, drawn, episode_seeds, pick

pytestmark = pytest.mark.usefixtures("pyspiel")

SIMULTANEOUS = "goofspiel(num_cards=3,imp_info=True,points_order=descending)"


def tables(game, rows):
    """Actors of an enumerated game's strategies."""
    return tuple(tuple(TableActor(tree, one) for one in mine) for tree, mine in zip(game.players, rows, strict=True))


def random_rows(game, count, seed):
    draw = np.random.default_rng(seed)
    return [player.normalized(draw.random((count, player.sequences)) ** 3) for player in game.players]


# ---- drawing --------------------------------------------------------------------------------------------------------


def test_a_choice_without_a_chance_is_never_taken():
    chances = np.array([[0.0, 0.5, 0.0, 0.5, 0.0]])
    for luck, choice in ((0.0, 1), (0.49999, 1), (0.5, 3), (1 - 2**-53, 3)):
        assert pick(chances, np.array([luck])).tolist() == [choice]
    assert pick(np.array([[0.1] * 10]), np.array([1 - 2**-53])).tolist() == [9]


CHANCES = st.sampled_from([0.0, 1e-9, 0.3, 1.0])


@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=CHANCES),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_the_chances_what_is_picked_has_one(chances, luck):
    chances = chances[chances.sum(1) > 0]
    chosen = pick(chances, np.full(len(chances), luck))
    assert (chances[np.arange(len(chances)), chosen] > 0).all()


def test_players_are_drawn_as_often_as_their_mixtures_say():
    seeds = episode_seeds(20_000, 0, "test")
    mixtures = (np.array([0.2, 0.0, 0.8]), np.array([0.5, 0.5]))
    chosen = drawn(mixtures, seeds)
    for mixture, column in zip(mixtures, chosen.T, strict=True):
        assert np.bincount(column, minlength=len(mixture)) / len(seeds) == pytest.approx(mixture, abs=0.012)
    assert np.corrcoef(chosen.T)[0, 1] == pytest.approx(0.0, abs=0.02)
    assert np.array_equal(drawn(mixtures, seeds[7:9]), chosen[7:9])


# ---- episodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kuhn_poker", SIMULTANEOUS, "matrix_mp", "kuhn_poker(players=3)"])
def test_played_payoffs_are_the_exact_ones_within_their_errors(name):
    game, played = compile_game(name), PlayedGame(name)
    rows = random_rows(game, 2, 3)
    seeds = episode_seeds(3000, 0, "test")
    for number in range(2):
        chosen = np.full((len(seeds), played.players), number)
        paid = play_out(played, tables(game, rows), chosen, seeds)
        exact = game.values([mine[number] for mine in rows])
        error = paid.std(0, ddof=1) / np.sqrt(len(seeds))
        assert (np.abs(paid.mean(0) - exact) <= 3.5 * error).all()


def test_the_uniform_actor_is_the_uniform_strategy():
    game, played = compile_game("leduc_poker"), PlayedGame("leduc_poker")
    seeds, chosen = episode_seeds(300, 1, "test"), np.zeros((300, 2), dtype=np.int64)
    tabular = play_out(played, tables(game, [one[None] for one in game.uniform()]), chosen, seeds)
    assert np.array_equal(play_out(played, ((UniformActor(),),) * 2, chosen, seeds), tabular)


def test_an_episode_is_the_same_whoever_is_played_beside_it():
    played, seeds = PlayedGame("leduc_poker"), episode_seeds(50, 0, "test")
    actors, chosen = ((UniformActor(),),) * 2, np.zeros((50, 2), dtype=np.int64)
    together = play_out(played, actors, chosen, seeds)
    alone = [play_out(played, actors, chosen[:1], seeds[n : n + 1])[0] for n in range(50)]
    assert np.array_equal(together, alone)


def test_episodes_stop_where_somebody_outside_is_to_move():
    played = PlayedGame("kuhn_poker")
    episodes = Episodes(played, ((UniformActor(),),) * 2, 20)
    everyone = np.arange(20)
    chosen = np.tile([0, OUTSIDE], (20, 1))
    episodes.begin(everyone, episode_seeds(20, 0, "test"), chosen)
    assert {state.current_player() for state in episodes.states} == {1}
    bets = np.array([state.history()[-1] for state in episodes.states])
    assert {0, 1} == set(bets.tolist())
    episodes.act(everyone, np.zeros(20, dtype=np.int64))
    assert episodes.over(everyone).all()
    assert (episodes.utilities(everyone)[bets == 1] == [1.0, -1.0]).all()


def test_what_a_player_sees_is_the_tensor_and_its_number():
    played = PlayedGame("kuhn_poker")
    state = played.spiel.new_initial_state()
    for action in (2, 0):
        state.apply_action(action)
    seen = Seen(played, 0, [state])
    assert seen.observation[0].tolist() == [*state.information_state_tensor(0), 1.0, 0.0]
    assert seen.legal.tolist() == [[True, True]] and played.remembered
    assert not PlayedGame("tic_tac_toe").remembered


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("leduc", r"^unknown game of OpenSpiel 'leduc'; did you mean 'leduc_poker'\?$"),
        (
            "coordinated_mp",
            r"^game coordinated_mp: OpenSpiel does not say in numbers what a player knows, so no network can play$",
        ),
        ("tarok", r"^game tarok: OpenSpiel samples its chance moves without saying how likely they are$"),
    ],
)
def test_a_game_that_cannot_be_played_is_refused_in_one_line(name, error):
    with pytest.raises(InputError, match=error):
        PlayedGame(name)
