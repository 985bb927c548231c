"""Comparisons by name: courses and totals, the run directory, and what is refused before anything is written."""

from __future__ import annotations

import inspect
import json
import re

import numpy as np
import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent.playing import LEARNERS, OPPONENTS, PLAYERS, LatticeTask, interval, made, play
from stratagem.multiagent.repeated import SmoothedTitForTat, TitForTat, interrupted, play_repeated
from stratagem.study import play_report

TINY = "lattice,side=4,evaluation=20"


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_lives_on_a_lattice(name):
    spec = "grouped_networks,groups=4" if name == "grouped_networks" else name
    (course,) = play([spec], TINY, rounds=12, runs=2).courses
    assert course.rounds.tolist() == list(range(1, 13))
    assert set(course.measures) == {"cooperation", "value of cooperating"}
    assert all(values.shape == (12, 2) and np.isfinite(values).all() for values in course.measures.values())
    assert all(0 <= one <= 1 for values in course.totals.values() for one in values)


@pytest.mark.parametrize("name", [name for name in PLAYERS if name not in ("brg", "static_body")])
@pytest.mark.parametrize("opponent", OPPONENTS)
def test_every_player_meets_every_opponent(name, opponent):
    (course,) = play([name], f"repeated:{opponent}", rounds=40, runs=2).courses
    assert course.rounds[-1] == 40 and set(course.measures) == {"payoff", "cooperation"}


def test_bodies_say_how_they_feel():
    played = play(["brg,size=4", "static_body,size=4,alpha=0.5"], "repeated:noisy,defects=0.3", rounds=20, runs=2)
    assert all({"alpha", "discomfort"} < set(course.measures) for course in played.courses)
    assert (played.courses[1].measures["alpha"] == 0.5).all()


def test_windows_are_means_of_rounds():
    (course,) = play(["smoothed_tit_for_tat,memory=0.8"], "repeated:interrupted", runs=3, seed=4).courses
    match = play_repeated(SmoothedTitForTat(0.8), interrupted(), 3, 4)
    assert len(course.rounds) == 200 and course.rounds[-1] == 1750
    begin, end = course.rounds[[99, 100]]
    np.testing.assert_allclose(course.measures["payoff"][100], match.payoffs[begin:end].mean(0))
    np.testing.assert_allclose(course.totals["payoff"], match.payoffs.mean(0))
    np.testing.assert_allclose(course.totals["variance of actions"], match.mine.var(0))


def test_options_reach_player_and_opponent():
    played = play(["tit_for_tat"], "repeated:interrupted,defection=10,noisy=0", runs=1)
    assert played.courses[0].rounds[-1] == 1710
    assert played.courses[0].totals["payoff"][0] == pytest.approx((1699 * 3 + 0 + 9 + 5) / 1710)


def test_intervals_are_students():
    values = np.random.default_rng(0).normal(size=(5, 6))
    mean, low, high = interval(values)
    np.testing.assert_allclose(high - mean, 2.570582 * values.std(-1, ddof=1) / np.sqrt(6), rtol=1e-5)
    np.testing.assert_allclose(mean - low, high - mean)


def test_a_single_run_has_no_interval():
    (course,) = play(["tit_for_tat"], "repeated:noisy", rounds=5, runs=1).courses
    assert course.rows()[0]["payoff/low"] is None and course.summary()["payoff"][1:] == [None, None]
    assert "[" not in play_report.total(course, "payoff")


def test_a_run_directory_holds_what_was_asked_and_found(tmp_path):
    played = play(["tit_for_tat", "always_defect"], "repeated:noisy", rounds=50, runs=3, out=tmp_path / "run")
    asked = json.loads((tmp_path / "run/run.json").read_text())
    assert asked["players"] == ["tit_for_tat", "always_defect"] and asked["rounds"] == 50
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows == [row for course in played.courses for row in course.rows()]
    page = (tmp_path / "run/report.html").read_text()
    assert "Players in repeated:noisy" in page and play_report.total(played.courses[1], "payoff") in page
    with pytest.raises(InputError, match="holds a run already"):
        play(["tit_for_tat"], "repeated:noisy", rounds=5, out=tmp_path / "run")


def test_the_page_of_a_single_run_has_no_bands(tmp_path):
    play(["tit_for_tat"], "repeated:noisy", rounds=5, runs=1, out=tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert '"low": [null' in page and "NaN" not in page.partition('id="curves">')[2].partition("</script>")[0]


def test_charts_are_in_the_order_of_their_headings(tmp_path):
    played = play(["brg", "always_defect"], "repeated:noisy", rounds=30, runs=2, out=tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    headings = re.findall("<figcaption>(.*?)</figcaption>", page)
    charts = json.loads(page.partition('id="curves">')[2].partition("</script>")[0])["curves"]
    assert headings[0] == "payoff" and headings != sorted(headings)
    for heading, curves in zip(headings, charts, strict=True):
        for course in (one for one in played.courses if heading in one.measures):
            (drawn,) = (curve for curve in curves if curve["player"] == course.player)
            assert drawn["mean"] == [row[heading] for row in course.rows()]


def test_an_interrupted_comparison_keeps_the_players_that_are_done(tmp_path):
    def interrupt(name, number):
        if name == "always_defect":
            raise KeyboardInterrupt

    with pytest.raises(BrokenRunError, match=r"stopped after 1 of 2 players, which are in .*run"):
        play(
            ["tit_for_tat", "always_defect"],
            "repeated:noisy",
            rounds=9,
            runs=2,
            out=tmp_path / "run",
            progress=interrupt,
        )
    assert '"player": "tit_for_tat"' in (tmp_path / "run/metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("players", "task", "more", "expected"),
    [
        ([], TINY, {}, "name at least one"),
        (["tit_for_tatt"], "repeated:noisy", {}, "unknown player 'tit_for_tatt'; did you mean 'tit_for_tat'?"),
        (["shared_net"], TINY, {}, "unknown player 'shared_net'; did you mean 'shared_network'?"),
        (["own_tables"], "repeated:noisy", {}, "cannot play this game; there are brg"),
        (["brg"], TINY, {}, "cannot play this game; there are shared_network"),
        (["brg:x"], "repeated:noisy", {}, "unknown player 'brg:x'"),
        (["brg,sizes=3"], "repeated:noisy", {}, "unknown option of brg 'sizes'; did you mean 'size'?"),
        (["brg,size=x"], "repeated:noisy", {}, "brg: size=x must be a whole number"),
        (["static_body,alpha=x"], "repeated:noisy", {}, "alpha=x must be a number"),
        (["static_body,alpha=2"], "repeated:noisy", {}, "brg: alpha=2.0"),
        (["always_defect,action=1"], "repeated:noisy", {}, "unknown option of always_defect 'action'"),
        (["shared_table,updates=all"], TINY, {}, "updates='all'"),
        (["grouped_networks"], TINY, {}, "16 agents cannot be dealt into 10 equal groups"),
        (["tit_for_tat"], "repeated:noise", {}, "unknown opponent 'noise'; did you mean 'noisy'?"),
        (["tit_for_tat"], "repeated", {}, "write lattice"),
        (["tit_for_tat"], "key_door", {}, "write lattice"),
        (["own_tables"], "lattice,sides=4", {}, "unknown option of lattice 'sides'"),
        (["own_tables"], "lattice,side=2", {}, "side=2"),
        (["own_tables"], TINY, {"rounds": 0}, "rounds = 0"),
        (["own_tables"], TINY, {"runs": 0}, "runs = 0"),
        (["tit_for_tat"], "repeated:noisy", {"runs": 0}, "runs = 0"),
        (["tit_for_tat"], "repeated:noisy", {"rounds": 2001}, "the schedule has 2000"),
    ],
)
def test_wrong_input_is_refused_and_nothing_written(players, task, more, expected, tmp_path):
    with pytest.raises(InputError) as raised:
        play(players, task, **{"runs": 2, "out": tmp_path / "run", **more})
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_options_have_defaults_of_the_type_they_take():
    for make in (*LEARNERS.values(), *OPPONENTS.values(), LatticeTask, *map(PLAYERS.get, ("brg", "static_body"))):
        for parameter in inspect.signature(make).parameters.values():
            assert isinstance(parameter.default, int | float | str)


def test_players_are_made_of_their_options():
    assert made("x", PLAYERS["smoothed_tit_for_tat"], {"memory": "0.5"}) == SmoothedTitForTat(0.5)
    assert made("x", PLAYERS["tit_for_tat"], {}) == TitForTat()
