"""Contests of final policies: what they are made from, what they say, and where a comparison shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.lab import TabularPolicy, find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.parts import Preference
from stratagem.study import comparison_report
from stratagem.study.compare import compare
from stratagem.study.comparison import BEFORE, Comparison, Contest, read_comparison
from stratagem.study.contest_text import cell, contest_table, direction, sentences
from stratagem.study.contests import contest
from stratagem.training.run_directory import RunDirectory

CIRCLE = find_game("circle")


def answers(*logits: float):
    return LabWorld(LabTask(CIRCLE), 0, TabularPolicy(torch.tensor([logits]))).answers(1)


PURE = [answers(*(50.0 * row)) for row in torch.eye(3)]
WINNER = answers(*torch.tensor([0.3, 0.3, 0.4]).log().tolist())


# ---- figures --------------------------------------------------------------------------------------------------------


def test_it_is_symmetric_by_construction_and_a_player_ties_with_itself():
    played = [[PURE[0], PURE[1], WINNER], [PURE[1], PURE[1], PURE[2]], [WINNER, PURE[2], PURE[0]]]
    found = contest("lab:circle", CIRCLE.oracle, ("a", "b", BEFORE), (0, 1, 2), played)
    for i in range(3):
        assert found.wins[i][i] == Estimate(0.5, 0.5, 0.5)
        for j in range(3):
            one, other = found.wins[i][j], found.wins[j][i]
            assert one.value + other.value == pytest.approx(1, abs=1e-12)
            assert one.low + other.high == pytest.approx(1, abs=1e-12)
    rates = np.array(found.by_seed)
    assert np.array_equal(rates + rates.swapaxes(1, 2), np.ones((3, 3, 3)))


def test_means_and_intervals_are_over_seeds_worked_by_hand():
    # 0 is preferred to 1 with 0.9, and to 2 with 0.2.
    played = [[PURE[0], PURE[1]], [PURE[0], PURE[1]], [PURE[0], PURE[2]]]
    wins = contest("t", CIRCLE.oracle, ("a", BEFORE), (4, 5, 6), played).wins[0][1]
    assert wins.value == pytest.approx(2 / 3, abs=1e-6)
    # Deviation 0.4041, of the mean 0.2333; times 4.3027 for two degrees of freedom it leaves [0, 1].
    assert (wins.low, wins.high) == (0.0, 1.0)
    same = contest("t", CIRCLE.oracle, ("a", BEFORE), (4, 5), played[:2])
    assert same.wins[0][1] == Estimate(*[pytest.approx(0.9, abs=1e-6)] * 3)
    assert same.exploitability[0].value == pytest.approx(0.3, abs=1e-6)


def test_nobody_beats_the_minimax_winner():
    found = contest("t", CIRCLE.oracle, ("a", "b", BEFORE), (0, 1), [[WINNER, PURE[0], PURE[2]]] * 2)
    assert [wins.value for wins in found.wins[0]] == pytest.approx([0.5] * 3, abs=1e-6)
    assert found.exact and found.exploitability[0].value == pytest.approx(0, abs=1e-6)


def test_samples_are_judged_without_exploitability():
    some = dataclasses.replace(PURE[0], complete=False)
    found = contest("t", CIRCLE.oracle, ("a", BEFORE), (0, 1), [[some, PURE[1]]] * 2)
    assert not found.exact and found.exploitability is None
    assert not any("xploitable" in line for line in sentences(found))
    assert contest_table(found).gaps == [] and "1 held-out prompts" in contest_table(found).judged


@dataclasses.dataclass(frozen=True)
class _Flatterer(Preference):
    """Whoever is named first is preferred."""

    def __call__(self, x, first, second):
        return torch.full((len(first),), 0.9)


def test_an_oracle_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match=r"oracle _flatterer: contradicts itself: b is preferred to a in 0\.9000"):
        contest("t", _Flatterer(), ("a", "b"), (0, 1), [[PURE[0], PURE[1]]] * 2)


# ---- words ----------------------------------------------------------------------------------------------------------


def table(rates: list[list[float]], width: float = 0.05, gaps: list[float] | None = None) -> Contest:
    players = (*"abcdefg"[: len(rates) - 1], BEFORE)
    wins = tuple(tuple(Estimate(rate, rate - width, rate + width) for rate in row) for row in rates)
    exploitability = None if gaps is None else tuple(Estimate(value, value, value) for value in gaps)
    return Contest("t", "answer_table", players, (0, 1), 1, True, wins, exploitability, ())


def test_a_winner_is_named_only_where_every_interval_shows_it():
    rates = [[0.5, 0.8, 0.7], [0.2, 0.5, 0.5], [0.3, 0.5, 0.5]]
    assert next(sentences(table(rates))) == "a is preferred to the final policy of every other arm."
    unsure = list(sentences(table(rates, width=0.4)))
    assert unsure == ["No arm's final policy is shown to be preferred to that of a and b."]


def test_a_circle_is_called_one():
    rates = [[0.5, 0.8, 0.2, 0.3], [0.2, 0.5, 0.8, 0.7], [0.8, 0.2, 0.5, 0.5], [0.7, 0.3, 0.5, 0.5]]
    said = list(sentences(table(rates, gaps=[0.3, 0.1, 0.2, 0.4])))
    assert said == [
        "To every arm's final policy that of another one is preferred: they beat each other in a circle.",
        "Preferred to the policy before training: b.",
        "The policy before training is preferred to a.",
        "Least exploitable: b, 0.100 [0.100, 0.100], where the policy before training has 0.400 [0.400, 0.400].",
    ]


def test_a_cell_has_its_interval_and_its_colour_by_the_mean():
    found = table([[0.5, 0.62], [0.38, 0.5]])
    won, lost = cell(found, 0, 1), cell(found, 1, 0)
    assert (won.text, won.side, won.strength, won.direction) == ("62 % [57, 67]", "won", 24, "rose")
    assert (lost.side, lost.strength, lost.direction) == ("lost", 24, "fell")
    assert cell(found, 0, 0).text == "" and direction(Estimate(0.52, 0.48, 0.56)) == "unchanged"


# ---- in a comparison ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("contest")
    values = {"sampler.prompts_per_step": 4}
    return folder, compare(
        ["sppo", "grpo"], ["lab:circle", "lab:prompts"], seeds=(1000, 1001), budget=200, evaluations=1, episodes=1,
        values=values, out=folder, jobs=1,
    )  # fmt: skip


def test_a_comparison_holds_a_contest_for_the_task_that_compares_answers_alone(compared):
    folder, comparison = compared
    (found,) = comparison.analysis.contests
    assert (found.task, found.players, found.seeds) == ("lab:circle", ("sppo", "grpo", BEFORE), (1000, 1001))
    assert read_comparison(folder) == comparison
    assert {t.measure for t in comparison.trials if t.task == "lab:circle"} == {"win rate against the start"}
    assert {t.measure for t in comparison.trials if t.task == "lab:prompts"} == {"success"}


def test_who_plays_are_the_last_policies_and_the_one_all_began_as(compared):
    folder, comparison = compared
    (found,) = comparison.analysis.contests
    for place, seed in enumerate(found.seeds):
        run = RunDirectory(folder / "runs" / "sppo" / _folder(folder, "sppo") / f"seed-{seed}")
        last = TabularPolicy(run.load().tensors["policy"]["logits"])
        world = LabWorld(LabTask(CIRCLE), seed)
        began = world.evaluate(1, "sampled")
        played = LabWorld(LabTask(CIRCLE), seed, last).answers(1).share
        start = world.answers(1).share
        assert began.win_rate == pytest.approx(0.5, abs=1e-6)
        wins = torch.tensor(CIRCLE.oracle.wins, dtype=torch.float64)
        assert found.by_seed[place][0][2] == pytest.approx(float(played @ wins @ start), abs=1e-6)
        evaluations = [row for row in run.rows("evaluations.jsonl") if row["mode"] == "sampled"]
        assert found.by_seed[place][0][2] == pytest.approx(evaluations[-1]["win_rate"], abs=1e-6)


def _folder(folder: Path, arm: str) -> str:
    return next(path.name for path in (folder / "runs" / arm).iterdir() if "circle" in path.name)


def test_the_page_shows_the_table(compared):
    folder, comparison = compared
    page = (folder / "report.html").read_text()
    (found,) = comparison.analysis.contests
    assert "Who is preferred to whom" in page and cell(found, 0, 2).text in page
    assert page.count('class="scroll" role="region" tabindex="0" aria-label="who is preferred') == 1
    assert "exploitability" in page and comparison_report.BY_NAME["success"].percent


def test_results_that_were_written_without_contests_can_still_be_read(compared, tmp_path):
    import json

    folder, _ = compared
    plain = json.loads((folder / "results.json").read_text())
    del plain["analysis"]["contests"]
    (tmp_path / "results.json").write_text(json.dumps(plain))
    read = read_comparison(tmp_path)
    assert read.analysis.contests == ()
    page = comparison_report.write_comparison_report(read, tmp_path / "report.html").read_text()
    assert "Who is preferred to whom" not in page
