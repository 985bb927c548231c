"""Team games and fictitious cross-play: closed forms, what self-play misses, and how learning is put together."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.games import (
    CrossPlay,
    FictitiousPlay,
    GreedySteps,
    Nash,
    TeamGame,
    Uniform,
    seek_attack_defend,
    team_rps,
    unanimity,
)


def pure(*actions: int, among: int = 2) -> np.ndarray:
    return np.eye(among)[list(actions)]


# ---- games ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [2, 3, 4])
def test_the_unanimity_game_has_its_closed_form(members):
    game = unanimity(members, prize=1.5, epsilon=0.1)
    zeros, ones = pure(*[0] * members), pure(*[1] * members)
    for k in range(members + 1):
        mixed = pure(*[1] * k, *[0] * (members - k))
        assert game.value(zeros, mixed) == pytest.approx(0.1 * k if k < members else 1.5)
        if k:
            assert game.value(ones, mixed) == pytest.approx(members - k)
    assert game.exploitability(game.joint(zeros)) == pytest.approx(0.0)
    assert game.exploitability(game.joint(ones)) == pytest.approx(1.5)


@pytest.mark.parametrize("game", [unanimity(), team_rps(), seek_attack_defend()], ids=lambda game: game.name)
def test_what_one_team_wins_the_other_loses(game):
    draw = np.random.default_rng(0)
    for _ in range(10):
        mine, theirs = draw.dirichlet(np.ones(game.actions), (2, game.members))
        assert game.value(mine, theirs) + game.value(theirs, mine) == pytest.approx(0.0, abs=1e-12)
        assert game.joint(mine).sum() == pytest.approx(1.0)


def test_without_correlation_paper_comes_too_often():
    game = team_rps()
    assert game.joint(game.uniform()) == pytest.approx([0.25] * 4)
    assert game.value(game.uniform(), pure(0, 0)) == pytest.approx(0.25)
    correlated = np.array([1 / 3, 1 / 6, 1 / 6, 1 / 3])
    assert game.exploitability(correlated) == pytest.approx(0.0, abs=1e-12)


def test_seeking_together_pays_and_an_undefended_attack_takes_it():
    game = seek_attack_defend(members=2, levels=2, force=2)
    idle, seek = pure(3, 3, among=4), pure(1, 1, among=4)
    assert game.value(seek, idle) == pytest.approx(4.0)
    assert game.value(pure(0, 1, among=4), idle) == pytest.approx(1.25 + 2.0)
    assert game.value(pure(2, 2, among=4), seek) == pytest.approx(0.0)
    assert game.value(pure(2, 2, among=4), pure(1, 3, among=4)) == pytest.approx(-2.0)
    apart = seek_attack_defend(members=2, levels=3)
    assert apart.value(pure(0, 2, among=5), pure(4, 4, among=5)) == pytest.approx(1 + 1 / 9)


def test_a_members_values_are_those_of_its_deviations():
    game, draw = seek_attack_defend(), np.random.default_rng(1)
    mine, theirs = draw.dirichlet(np.ones(game.actions), (2, game.members))
    found = game.member_values(mine, game.joint(theirs))
    for member in range(game.members):
        for action in range(game.actions):
            changed = mine.copy()
            changed[member] = np.eye(game.actions)[action]
            assert found[member, action] == pytest.approx(game.value(changed, theirs))


@pytest.mark.parametrize(
    ("payoffs", "error"),
    [
        (np.zeros((2, 2)), r"payoffs must be \(4, 4\), not \(2, 2\)$"),
        (np.eye(4), r"payoffs must be antisymmetric: what one team wins the other loses$"),
        (np.full((4, 4), np.inf), r"payoffs must be finite$"),
    ],
)
def test_wrong_payoffs_are_refused(payoffs, error):
    with pytest.raises(InputError, match=rf"^team game mine: {error}"):
        TeamGame("mine", 2, 2, payoffs)


# ---- learning -------------------------------------------------------------------------------------------------------


def test_self_play_ends_at_the_local_equilibrium_and_cross_play_at_the_global_one():
    game = unanimity()
    for seed in range(3):
        alone = CrossPlay(itself=1.0, counters=False).start(game, seed)
        alone.advance()
        assert alone.exploitability() == pytest.approx(1.5, abs=0.01)
        crossed, found = CrossPlay(meta=FictitiousPlay(200)).start(game, seed), []
        for _ in range(4):
            crossed.advance()
            found.append(crossed.exploitability())
        assert found[0] == pytest.approx(1.5, abs=0.01) and found[-1] == pytest.approx(0.0, abs=0.01)


def test_a_counter_team_escapes_by_starting_anew():
    """Greedy members who begin at the local equilibrium stay there; from the uniform policy they find the best."""
    game, learner, draw = unanimity(), GreedySteps(), np.random.default_rng(0)
    ones = pure(1, 1, 1)
    stayed, _ = learner(game, ones, game.joint(ones), 0.0, draw)
    escaped, steps = learner(game, game.uniform(), game.joint(ones), 0.0, draw)
    assert game.value(stayed, ones) == pytest.approx(0.0, abs=1e-6)
    assert game.value(escaped, ones) == pytest.approx(1.5, abs=0.01) and 50 <= steps < 1000


def test_playing_only_itself_it_ignores_what_is_saved():
    game = team_rps()
    plain = CrossPlay(itself=1.0, counters=False, meta=Uniform()).start(game, 7)
    other = CrossPlay(itself=1.0, counters=False, meta=Nash()).start(game, 7)
    plain.advance(3)
    other.advance(3)
    assert np.array_equal(plain.policy, other.policy)
    policy, draw = np.random.default_rng(7).dirichlet(np.ones(2), 2), np.random.default_rng(7)
    draw.dirichlet(np.ones(2), 2)
    expected, _ = GreedySteps()(game, policy, game.joint(policy), 1.0, draw)
    assert np.array_equal(plain.mains[0], expected)


def test_both_populations_grow_and_their_mixture_is_correlated():
    run = CrossPlay(meta=Nash()).start(team_rps(), 0)
    run.advance(5)
    assert len(run.mains) == 5 and len(run.counters) == 6 and run.mixture().sum() == pytest.approx(1.0)
    assert run.mixture_exploitability() < 0.05 < run.exploitability()
    assert run.steps >= 5 * 2 * 50


def test_the_same_seed_gives_the_same_run():
    one, other = (CrossPlay().start(seek_attack_defend(), 3) for _ in range(2))
    one.advance(2)
    other.advance()
    other.advance()
    assert np.array_equal(one.policy, other.policy) and one.steps == other.steps


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match=r"^cross_play\.itself = 1\.5"):
        CrossPlay(itself=1.5)
    with pytest.raises(InputError, match=r"^greedy_steps\.rate = 0\.7"):
        GreedySteps(rate=0.7)
    with pytest.raises(InputError, match=r"^rounds = -1: must be at least 0$"):
        CrossPlay().start(team_rps()).advance(-1)
