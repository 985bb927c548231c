"""Rosters that are played: estimates within their errors, gains in fresh episodes, runs that can be gone on with."""

from __future__ import annotations

import json
import shutil
from functools import cache

import numpy as np
import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.games import (
    PSRO,
    BestResponse,
    ExactRoster,
    Growth,
    LearnedResponse,
    Nash,
    NetworkActor,
    NoGain,
    PlayedGame,
    PlayedRoster,
    Population,
    TableActor,
    Trials,
    Uniform,
    UniformActor,
    compile_game,
    find_solver,
    resume,
    solve,
)
from stratagem.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("pyspiel")

SIMULTANEOUS = "goofspiel(num_cards=3,imp_info=True,points_order=descending)"

QUICK = {"oracle": "learned", "meta": "uniform", "steps": 1, "episodes": 8, "trials": 20}
"""Of runs that are to be short and may learn nothing."""


enumerated = cache(compile_game)


class Tabular(BestResponse):
    """The exact best response, as an actor: what a perfect learner would find."""

    plays = True

    def learn(self, player, game, actors, mixtures, iteration):
        exact = enumerated(game.name)
        rows = [np.stack([actor.strategy for actor in mine]) for mine in actors]
        mixed = [mixture @ plan for mixture, plan in zip(mixtures, exact.plans(rows), strict=True)]
        tree = exact.players[player]
        return TableActor(tree, tree.best(exact.sequence_values(player, mixed))[1])


def tabular(name, count=3):
    """Random strategies of a game, as rows and as actors."""
    game = compile_game(name)
    draw = np.random.default_rng(5)
    rows = [player.normalized(draw.random((count, player.sequences)) ** 2) for player in game.players]
    actors = tuple(tuple(TableActor(tree, one) for one in mine) for tree, mine in zip(game.players, rows, strict=True))
    return game, rows, actors


# ---- estimates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kuhn_poker", SIMULTANEOUS, "matrix_pd"])
def test_played_payoffs_are_the_exact_ones_within_their_errors(name):
    game, rows, actors = tabular(name)
    exact = ExactRoster(game, rows).metagame.expected
    metagame = PlayedRoster(PlayedGame(name), Trials(1500, seed=1), actors).metagame
    assert metagame.errors is not None and (metagame.errors > 0).all()
    deviations = np.abs(metagame.expected - exact) / metagame.errors
    assert deviations.max() < 4 and np.mean(deviations < 2) > 0.8


def test_differences_between_profiles_are_known_better_than_their_payoffs():
    _, rows, actors = tabular("leduc_poker", 2)
    game = compile_game("leduc_poker")
    near = tuple((mine[0], mine[0]) for mine in actors)
    roster = PlayedRoster(PlayedGame("leduc_poker"), Trials(200), near)
    assert np.ptp(roster.metagame.payoffs[0], axis=(1, 2)).max() == 0.0
    assert len(rows) == len(game.players)


def test_gains_are_the_exact_ones_within_their_errors():
    game, rows, actors = tabular("kuhn_poker")
    mixtures = (np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7]))
    _, exact = ExactRoster(game, rows).respond(BestResponse(), mixtures, 1)
    _, played = PlayedRoster(PlayedGame("kuhn_poker"), Trials(3000), actors).respond(Tabular(), mixtures, 1)
    for gain, estimate, error in zip(exact.gains, played.gains, played.errors, strict=True):
        assert abs(gain - estimate) < 3.5 * error and error < 0.1


def test_with_best_responses_a_played_population_ends_near_an_equilibrium():
    game, _, actors = tabular("kuhn_poker", 1)
    solver = PSRO(Nash(), oracle=Tabular(), stopping=NoGain(patience=2))
    population = Population(solver, PlayedRoster(PlayedGame("kuhn_poker"), Trials(800), actors))
    population.advance(6)
    rows = [np.stack([actor.strategy for actor in mine]) for mine in population.strategies]
    plans = zip(game.players, population.final_mixtures(), game.plans(rows), strict=True)
    found = [tree.normalized(mixture @ plan) for tree, mixture, plan in plans]
    assert game.exploitability(found) < 0.2 * game.exploitability(game.uniform())
    figures = population.figures() | population.measured()
    assert figures["value"] == pytest.approx(-1 / 18, abs=4 * figures["value/error"])
    assert abs(figures["exploitability/at_least"]) < 0.2 and figures["exploitability/at_least_error"] > 0


def test_a_member_that_is_added_changes_no_payoff_that_was_known():
    _, _, actors = tabular("kuhn_poker", 2)
    roster = PlayedRoster(PlayedGame("kuhn_poker"), Trials(50), actors)
    before = roster.metagame.payoffs
    roster.add([UniformActor(), UniformActor()], [True, False])
    assert roster.metagame.sizes == (3, 2) and np.array_equal(roster.metagame.payoffs[:, :, :2], before)


def test_no_gain_needs_to_be_shown_and_more_than_once():
    small, large = Growth((0.1, -0.2), (True, True), (0.1, 0.1)), Growth((0.5, -0.2), (True, True), (0.1, 0.1))
    assert NoGain()(small) and not NoGain()(large) and not NoGain(deviations=0)(small)
    patient = NoGain(patience=2)
    assert not patient.over([small]) and not patient.over([small, large, small]) and patient.over([large, small, small])


def test_three_players_are_played_like_two():
    population = find_solver("psro", **QUICK).start_playing(PlayedGame("kuhn_poker(players=3)"))
    population.advance(1)
    assert population.metagame.sizes == (2, 2, 2)
    assert {f"against_uniform/player{p}" for p in range(3)} < set(population.measured())


# ---- runs -----------------------------------------------------------------------------------------------------------


def run(out, iterations, **keywords):
    return solve("psro", "spiel:kuhn_poker", iterations=iterations, arguments=QUICK, out=out, histories=10, **keywords)


def test_a_game_above_the_limit_is_played_and_the_run_holds_all_that_was_found(tmp_path):
    solution = run(tmp_path / "run", 2)
    assert isinstance(solution.game, PlayedGame) and solution.exploitability is None
    directory = RunDirectory.existing(tmp_path / "run")
    rows = directory.rows("metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and rows == solution.rows
    assert {"gain/player0", "gain/error1", "exploitability/at_least", "value/error", "against_uniform/player1"} < set(
        rows[-1]
    )
    assert "exploitability" not in rows[-1] and directory.read_json("run.json")["played"]
    players = directory.read_json("strategy.json")["players"]
    for player, mixed in enumerate(players):
        names = ["uniform", *(f"population/player{player}/{number}" for number in (1, 2))]
        assert list(mixed["actors"]) == names and sum(mixed["actors"].values()) == pytest.approx(1.0)
        assert all((directory.path / name / "policy.safetensors").is_file() for name in names[1:])
    saved = directory.load()
    assert saved.tensors["metagame"]["errors"].shape == (2, 3, 3)
    page = (directory.path / "report.html").read_text(encoding="utf-8")
    assert "Exploitability of these strategies is not known" in page.replace("the exploitability", "Exploitability")
    assert "exploitability at least" in page and "standard error is at most" in page


def test_two_runs_give_the_same_numbers_and_one_that_was_cut_goes_on_with_them(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", 2)

    def cut(iteration, row):
        if row and row["step"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(
        BrokenRunError, match=rf"^stopped after 1 iterations; what they found is in {tmp_path}/cut; go on"
    ):
        run(tmp_path / "cut", 2, progress=cut)
    shutil.copytree(tmp_path / "cut", tmp_path / "killed")
    with open(tmp_path / "killed" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 2}) + "\n")  # Measured, and killed before it was kept.
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(LearnedResponse, "learn", _killed)
        run(tmp_path / "begun", 2)
    for name in ("cut", "killed", "begun"):
        again = resume(tmp_path / name)
        assert [_timeless(row) for row in again.rows] == [_timeless(row) for row in whole.rows]
        assert again.table() == whole.table()
    longer = resume(tmp_path / "cut", iterations=3)
    assert [row["step"] for row in longer.rows] == [1, 2, 3]
    with pytest.raises(InputError, match=r"^iterations = 1: run .*cut has done 3 already$"):
        resume(tmp_path / "cut", iterations=1)


def test_members_of_a_run_can_be_loaded_and_played(tmp_path):
    from stratagem.games.rosters import read_actors
    from stratagem.multiagent import AgentsPolicy

    solution = run(tmp_path / "run", 1)
    policy = AgentsPolicy.from_directory(tmp_path / "run" / "population" / "player0" / "1")
    state = RunDirectory.existing(tmp_path / "run").load().state
    actors = read_actors(tmp_path / "run" / "population", state["members"])
    assert isinstance(actors[0][1], NetworkActor) and policy.features == solution.game.features
    again = PlayedRoster(solution.game, Trials(20), actors)
    saved = RunDirectory.existing(tmp_path / "run").load().tensors["metagame"]["payoffs"]
    assert np.array_equal(again.metagame.payoffs, saved.numpy())


def _killed(*arguments):
    raise RuntimeError("killed")


def _timeless(row):
    return {name: value for name, value in row.items() if name != "seconds"}


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_empty_populations_and_exact_oracles_are_refused():
    game = PlayedGame("kuhn_poker")
    for call, error in (
        (
            lambda: PlayedRoster(game, actors=((UniformActor(),), ())),
            r"^population: player 1 has no actor; every",
        ),
        (
            lambda: PlayedRoster(game, actors=((UniformActor(),),)),
            r"^population: 1 players have actors; kuhn_poker",
        ),
        (lambda: PSRO(Uniform()).start_playing(game), r"^psro: needs a game that is enumerated; kuhn_poker is played$"),
        (
            lambda: PlayedRoster(game, Trials(2)).respond(BestResponse(), (np.ones(1),) * 2, 1),
            r"^oracle best_response: needs a game that is enumerated; kuhn_poker is played$",
        ),
    ):
        with pytest.raises(InputError, match=error):
            call()


def test_actors_that_have_no_file_cannot_be_saved(tmp_path):
    _, _, actors = tabular("kuhn_poker", 1)
    with pytest.raises(InputError, match=r"^population: a TableActor cannot be saved; networks and the uniform actor"):
        PlayedRoster(PlayedGame("kuhn_poker"), Trials(2), actors).save(tmp_path)


def test_only_named_solvers_on_games_that_are_played_are_gone_on_with(tmp_path):
    solve("psro", "spiel:kuhn_poker", iterations=1, arguments={"meta": "uniform"}, out=tmp_path / "exact")
    with pytest.raises(InputError, match=r"^run .*exact: is no population on a game that is played; only those"):
        resume(tmp_path / "exact")
    own = find_solver("psro", **QUICK)
    solve(own, "spiel:kuhn_poker", iterations=1, out=tmp_path / "own", histories=10)
    with pytest.raises(InputError, match=r"^run .*own: was started with a solver of its own; only named ones"):
        resume(tmp_path / "own")
