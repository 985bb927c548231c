"""Solving a game as a run: what is measured when, what is written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.games import cfr_plus, matrix_game, solve
from stratagem.games.solving import measured_at
from stratagem.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("_numba")


@pytest.mark.parametrize(
    ("iterations", "at"), [(1, [1]), (2, [1, 2]), (10, [1, 2, 3, 4, 6, 7, 10]), (20, [1, 2, 3, 4, 5, 7, 9, 12, 15, 20])]
)
def test_measurements_are_evenly_spaced_on_a_logarithmic_axis(iterations, at):
    assert measured_at(iterations) == at


def test_measurements_are_few_however_long_the_run():
    assert len(measured_at(10**6)) <= 8 * 6 + 1


def test_a_run_measures_exploitability_and_time(kuhn):
    solution = solve("cfr_plus", kuhn, iterations=200)
    assert [row["step"] for row in solution.rows] == measured_at(200)
    assert solution.rows[-1]["exploitability"] == solution.exploitability < 0.01
    assert solution.rows[-1]["exploitability"] < solution.rows[0]["exploitability"]
    seconds = [row["seconds"] for row in solution.rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert solution.value == pytest.approx(-1 / 18, abs=0.01) and solution.directory is None
    assert all(row["averaged"] for row in solution.rows)


def test_the_strategies_are_a_table_of_named_actions(kuhn):
    first, second = solve(cfr_plus(), kuhn, iterations=1000).table()
    assert first["2pb"]["bet"] > 0.99 and second["0b"]["pass"] > 0.99
    assert second["1b"]["bet"] == pytest.approx(1 / 3, abs=0.02)
    assert all(sum(actions.values()) == pytest.approx(1.0) for table in (first, second) for actions in table.values())


def test_a_run_directory_holds_what_was_asked_measured_and_found(kuhn, tmp_path):
    solution = solve("dcfr", kuhn, iterations=50, arguments={"gamma": 3}, out=tmp_path / "run")
    run = RunDirectory.existing(tmp_path / "run")
    asked = run.read_json("run.json")
    assert (asked["variant"], asked["arguments"], asked["iterations"]) == ("dcfr", {"gamma": 3}, 50)
    assert asked["states"] == [6, 6] and asked["histories"] == kuhn.histories
    assert run.rows("metrics.jsonl") == solution.rows
    assert run.read_json("strategy.json")["players"] == solution.table()
    saved = run.load()
    assert saved.state["iteration"] == 50
    for number, strategy in enumerate(solution.strategies):
        assert np.array_equal(saved.tensors["average"][f"player{number}"].numpy(), strategy)
    assert {"average", "current", "regrets"} == set(saved.tensors)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "dcfr on kuhn by hand" in page and f"<td>{solution.rows[-1]['exploitability']:.4g}</td>" in page
    assert "default-src 'none'" in page and "The population" not in page
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["cores"] > 0


def test_a_run_that_is_shorter_than_its_warm_up_says_that_there_is_no_average(kuhn, tmp_path):
    solution = solve("vad_cfr", kuhn, iterations=40, out=tmp_path)
    assert not solution.averaged and not any(row["averaged"] for row in solution.rows)
    assert RunDirectory.existing(tmp_path).read_json("strategy.json")["averaged"] is False


def test_progress_is_told_with_the_newest_figures(kuhn):
    seen = []
    solve("cfr", kuhn, iterations=20, progress=lambda iteration, row: seen.append((iteration, dict(row))))
    assert seen[0] == (1, {}) and seen[-1][0] == 20 and seen[-1][1]["step"] == 20


def test_an_interrupted_run_keeps_what_it_found(kuhn, tmp_path):
    def stop(iteration: int, row) -> None:
        if iteration >= 10:
            raise KeyboardInterrupt

    with pytest.raises(BrokenRunError, match=rf"^stopped after 10 iterations; what they found is in {tmp_path}$"):
        solve("cfr", kuhn, iterations=1000, out=tmp_path, progress=stop)
    run = RunDirectory.existing(tmp_path)
    assert run.load().state["iteration"] == 10 and run.rows("metrics.jsonl")
    assert (tmp_path / "report.html").is_file() and run.read_json("strategy.json")["players"]


def test_a_population_is_solved_by_the_same_command(kuhn, tmp_path):
    solution = solve("psro", kuhn, iterations=20, arguments={"meta": "nash"}, out=tmp_path / "run")
    assert solution.exploitability < 1e-9 and solution.value == pytest.approx(-1 / 18)
    last = solution.rows[-1]
    assert last["step"] < 20 and last["strategies/player0"] == last["step"] + 1
    run = RunDirectory.existing(tmp_path / "run")
    saved = run.load().tensors
    assert set(saved) == {"average", "current", "population", "mixture", "metagame"}
    assert saved["metagame"]["payoffs"].shape[2:] == (last["strategies/player0"], last["strategies/player1"])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The population" in page and page.count("</body>") == 1


def test_a_population_may_play_a_game_that_is_not_zero_sum(tmp_path):
    game = matrix_game(np.array([[3.0, 0.0], [5.0, 1.0]]), "dilemma", second=np.array([[3.0, 5.0], [0.0, 1.0]]))
    solution = solve("psro", game, iterations=5, out=tmp_path)
    assert solution.exploitability == pytest.approx(0.0, abs=0.01)
    with pytest.raises(InputError, match=r"^meta-solver nash: the game is not zero-sum"):
        solve("psro", game, arguments={"meta": "nash"})


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_wrong_input_is_refused_before_anything_is_written(kuhn, tmp_path):
    out = tmp_path / "run"
    for keywords, error in (
        ({"variant": "cfr", "iterations": 0}, r"^iterations = 0: must be at least 1$"),
        ({"variant": "cfrr"}, r"^unknown solver 'cfrr'; did you mean 'cfr'\?$"),
        (
            {"variant": "cfr", "task": "leduc_poker"},
            r"^task 'leduc_poker': write spiel:NAME, such as spiel:leduc_poker$",
        ),
        ({"variant": "cfr", "task": "spiel:"}, r"^task 'spiel:': write spiel:NAME"),
    ):
        with pytest.raises(InputError, match=error):
            solve(**{"task": kuhn, "out": out, **keywords})
    assert not out.exists()


def test_a_directory_that_holds_a_run_is_left_alone(kuhn, tmp_path):
    solve("cfr", kuhn, iterations=2, out=tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(InputError, match=rf"^run directory {tmp_path}: holds a run already; name another with --out$"):
        solve("cfr", kuhn, iterations=3, out=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before
