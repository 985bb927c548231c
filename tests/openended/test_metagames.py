"""Scores among several players: payoffs of profiles, equilibria of their metagame, and what is made of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.errors import InputError
from stratagem.games import Metagame
from stratagem.openended import GoalPolicy, MetagameBook, OpenEndedTask, RandomPlayer, Shape, equilibrium


def _book(*tables: list) -> MetagameBook:
    """Of agents a, b, ...; a table for each seat, all on one task."""
    payoffs = np.array(tables, float)
    book = MetagameBook(1, len(tables))
    for profile in product(range(payoffs.shape[1]), repeat=len(tables)):
        book.enter(tuple("abc"[agent] for agent in profile), payoffs[(slice(None), *profile)][None])
    return book


def test_opposed_players_are_measured_by_the_value_of_their_game():
    pennies = _book([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    assert pennies.best == pytest.approx([0.5]) and pennies.earned("a") == pytest.approx([0.5])
    assert pennies.normalized("a") == pytest.approx([1]) and pennies.normalized("b") == pytest.approx([1])
    mine = np.array([[0.8, 0.6], [0.4, 0.2]])
    saddle = _book(mine.tolist(), (1 - mine).tolist())
    assert saddle.best == pytest.approx([0.6]) and saddle.earned("b") == pytest.approx([0.2])
    assert saddle.normalized("b") == pytest.approx([1 / 3])


def test_an_uneven_game_has_its_mixed_value():
    mine = np.array([[0.9, 0.1], [0.3, 0.5]])  # (0.9 * 0.5 - 0.1 * 0.3) / (0.9 + 0.5 - 0.1 - 0.3)
    assert _book(mine.tolist(), (1 - mine).tolist()).best == pytest.approx([0.42])


def test_players_with_other_interests_are_measured_by_their_best_pure_equilibrium():
    together = _book([[1, 0], [0, 0.5]], [[1, 0], [0, 0.5]])
    assert together.best.tolist() == [1] and together.normalized("b").tolist() == [0]
    dilemma = _book([[0.6, 0], [1, 0.2]], [[0.6, 1], [0, 0.2]])
    assert dilemma.best.tolist() == [0.2] and dilemma.earned("a").tolist() == [0]


def test_where_no_pure_equilibrium_is_fictitious_play_comes_near_a_mixed_one():
    game = Metagame.of_matrices(np.array([[1.0, 0], [0, 1]]), np.array([[0, 0.5], [0.5, 0]]))
    assert game.nash_conv(equilibrium(game)) < 0.05
    assert game.values(equilibrium(game)) == pytest.approx([0.5, 0.25], abs=0.03)


def test_three_players_are_measured_too():
    alike = np.zeros((2, 2, 2))
    alike[0, 0, 0], alike[1, 1, 1] = 0.4, 0.7
    book = _book(alike.tolist(), alike.tolist(), alike.tolist())
    assert book.best.tolist() == [0.7] and book.earned("a").tolist() == [0]
    assert book.metagame(0).sizes == (2, 2, 2) and book.metagame(0).nash_conv(book.equilibria[0]) == 0


@given(arrays(np.float64, (3, 3), elements=st.integers(0, 20).map(lambda number: number / 20)))
def test_against_an_equilibrium_of_opposed_players_nobody_earns_more_than_the_value(mine):
    book = _book(mine.tolist(), (1 - mine).tolist())
    earned = np.array([book.earned(agent)[0] for agent in "abc"])
    assert earned.max() == pytest.approx(book.best[0], abs=1e-9)
    assert mine.min(1).max() - 1e-9 <= book.best[0] <= mine.max(0).min() + 1e-9


def test_a_new_agent_changes_what_the_others_are_worth_and_leaves_what_was_paid():
    mine = np.array([[0.8, 0.6], [0.4, 0.2]])
    book, old = _book(mine.tolist(), (1 - mine).tolist()), {}
    old.update(book.raw)
    for profile in book.missing(["c"]):
        book.enter(profile, np.array([[0.9, 0.1]] if profile[0] == "c" else [[0.3, 0.7]]))
    # Against c in the second seat a and b earn 0.3 and c earns 0.9.
    assert book.agents == ["a", "b", "c"] and book.best == pytest.approx([0.9])
    assert all(book.raw[profile] is payoffs for profile, payoffs in old.items())
    assert book.normalized("c") == pytest.approx([1]) and book.normalized("a")[0] < 1


def test_tasks_on_which_the_first_seat_earns_nothing_are_dropped():
    book = MetagameBook(2, 2)
    book.enter(("a", "a"), np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert book.kept.tolist() == [False, True] and book.curve("a").tolist() == [1] * 51


def test_profiles_play_once_and_opposed_ones_share_the_steps():
    universe = OpenEndedTask(side=4, horizon=10, players=2, same=0, opposite=1)
    agents = {"policy": GoalPolicy(Shape.of(universe), 0), "random": RandomPlayer()}
    book = MetagameBook(30, 2)
    book.play(universe, "test", range(30), agents, 0)
    assert set(book.raw) == set(product(agents, repeat=2))
    assert all((payoffs.sum(1) == pytest.approx(1)) for payoffs in book.raw.values())
    assert any((payoffs[:, 0] != book.raw["random", "random"][:, 0]).any() for payoffs in book.raw.values())
    before = dict(book.raw)
    book.play(universe, "test", range(30), {**agents, "other": GoalPolicy(Shape.of(universe), 1)}, 0)
    assert len(book.raw) == 9 and all(book.raw[profile] is payoffs for profile, payoffs in before.items())
    assert max(book.normalized(agent).max() for agent in book.agents) == pytest.approx(1)
    again = MetagameBook(30, 2)
    again.play(universe, "test", range(30), agents, 0)
    assert all((again.raw[profile] == payoffs).all() for profile, payoffs in before.items()), "the same seed"


class Idle:
    """Stays where it is."""

    def draw(self, observation, source):
        return torch.zeros(len(observation), dtype=torch.int64)


def test_several_episodes_of_a_task_are_averaged():
    universe = OpenEndedTask(side=4, horizon=10, players=2, probe="hide")
    books = [MetagameBook(20, 2), MetagameBook(20, 2)]
    for book, episodes in zip(books, (1, 50), strict=True):
        book.play(universe, "test", range(20), {"idle": Idle(), "random": RandomPlayer()}, 0, episodes)
    one, many = (book.raw for book in books)
    assert (one["idle", "idle"] == many["idle", "idle"]).all() and set(one["idle", "idle"].flatten()) == {0, 1}
    mean = many["random", "random"] * 500
    assert np.allclose(mean, mean.round()) and not np.allclose(mean / 50, (mean / 50).round())
    assert all(payoffs.sum(1) == pytest.approx(1) for payoffs in many.values())


def test_wrong_payoffs_and_open_profiles_are_refused():
    book = MetagameBook(2, 2)
    for profile, payoffs in (
        (("a", "a"), np.zeros((1, 2))),
        (("a",), np.zeros((2, 2))),
        (("a", "a"), np.full((2, 2), -1.0)),
        (("a", "a"), np.full((2, 2), np.nan)),
    ):
        with pytest.raises(InputError, match="for 2 tasks, finite values of at least 0"):
            book.enter(profile, payoffs)
    book.enter(("a", "b"), np.ones((2, 2)))
    with pytest.raises(InputError, match="nobody played a, a"):
        book.normalized("a")
    with pytest.raises(InputError, match="nothing is known of 'z'"):
        book.earned("z")
    with pytest.raises(InputError, match="67 agents in 2 seats make 4489 profiles; at most 4096"):
        book.missing([str(number) for number in range(65)])
