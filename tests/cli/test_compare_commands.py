"""``stratagem compare`` and ``stratagem report``: a table, two files, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = (
    "--task", "gym:CartPole-v1", "--seeds", "2", "--budget", "300", "--evaluations", "2", "--episodes", "3",
    "--set", "sampler.prompts_per_step=2", "--set", "sampler.group_size=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison."""
    from stratagem.cli.app import run

    out = tmp_path_factory.mktemp("compare") / "out"
    assert run(["compare", "reinforce", "rloo", *QUICK, "--out", str(out)]) == 0
    return out


def test_the_table_judges_every_arm_against_the_first(stratagem: Any, compared: Path) -> None:
    said = stratagem("compare", "reinforce", "rloo", *QUICK, "--out", str(compared))
    assert said.code == 0
    assert "2 seeds, 300 tokens a run" in said.out and "judged against reinforce" in said.out
    assert "reference" in said.out and "no difference" in " ".join(said.out.split())
    assert f"{compared}/results.json" in said.out.replace("\n", "")


def test_json_is_the_analysis_and_nothing_else(stratagem: Any, compared: Path) -> None:
    said = stratagem("compare", "reinforce", "rloo", *QUICK, "--out", str(compared), "--json")
    analysis = json.loads(said.out)
    assert {contrast["arm"] for contrast in analysis["contrasts"]} == {"rloo"}
    assert {summary["arm"] for summary in analysis["summaries"]} == {"reinforce", "rloo"}


def test_a_report_is_written_anew_from_the_results_alone(stratagem: Any, compared: Path, tmp_path: Path) -> None:
    alone = tmp_path / "results.json"
    alone.write_bytes((compared / "results.json").read_bytes())
    said = stratagem("report", str(alone))
    assert said.code == 0 and (tmp_path / "report.html").read_text() == (compared / "report.html").read_text()
    run = next(compared.glob("runs/*/*/seed-0"))
    assert stratagem("report", str(run), "--out", str(tmp_path / "run.html")).code == 0
    assert (tmp_path / "run.html").exists()


def test_policies_meet_each_other_where_the_task_compares_answers(stratagem: Any, tmp_path: Path) -> None:
    quick = ("--task", "lab:circle", "--seeds", "2", "--first-seed", "1000", "--budget", "100", "--evaluations", "1")
    few = ("--set", "sampler.prompts_per_step=4", "--jobs", "1", "--out", "out")
    said = stratagem("compare", "sppo", "dpo", *quick, *few)
    assert (said.code, said.err) == (0, "")
    assert "final policies against each other, judged exactly by answer_table" in said.out
    assert "before training" in said.out and "exploitability" in said.out and "Least exploitable:" in said.out
    (contest,) = json.loads((tmp_path / "out" / "results.json").read_text())["analysis"]["contests"]
    assert contest["players"] == ["sppo", "dpo", "before training"] and contest["seeds"] == [1000, 1001]
    shown = said.out.split("final policies against")[1].splitlines()
    won = f"{100 * contest['wins'][0][1]['value']:.0f}"
    assert next(line for line in shown if line.startswith("sppo")).split()[1:3] == [won, "%"]
    plain = stratagem("compare", "sppo", "dpo", *quick, *few, "--json")
    assert json.loads(plain.out)["contests"] == [contest]


def test_a_run_is_evaluated_against_the_policy_it_began_with(stratagem: Any, tmp_path: Path) -> None:
    few = ("--set", "sampler.prompts_per_step=4", "--steps", "4", "--seed", "1000", "--out", "run")
    assert stratagem("train", "sppo", "--task", "lab:circle", *few).code == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    best = max(sum(row["win_rate"] for row in rows if row["step"] == step) for step in {row["step"] for row in rows})
    found = json.loads(stratagem("eval", "run", "--json").out)
    assert sum(row["win_rate"] for row in found) == pytest.approx(best, abs=1e-6) and found[0]["success"] is None
    assert "win rate" in stratagem("eval", "run").out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("rloo", "grpo", "--task", "key_door", "--seeds", "1"), "seeds = 1: needs at least 2"),
        (("rloo", "grpo", "--task", "key_door", "--budget", "0"), "budget = 0: must be at least 1"),
        (("rloo", "nothing.yaml", "--task", "key_door"), "recipe file nothing.yaml: cannot be read"),
        (("rloo", "grpo", "--task", "key_door", "--precision", "int4"), "--precision int4: must be"),
        (("rloo", "grpo", "--task", "key_door", "--pass-at", "1"), "pass_at = 1: must be at least 2"),
        (
            ("rloo", "grpo", "--task", "gym:CartPole-v1", "--pass-at", "4"),
            "pass@k is measured where a policy writes text",
        ),
        (("rloo", "grpo"), "Missing option '--task'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(stratagem: Any, arguments: tuple[str, ...], line: str) -> None:
    said = stratagem("compare", *arguments)
    assert said.code == 2 and said.out == "" and line in said.err and len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"version": 7}', "is of version 7"),
        ("{", "not valid JSON"),
        ('{"version": 1}', "plan"),
    ],
)
def test_results_that_cannot_be_read_are_refused(stratagem: Any, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "results.json").write_text(text)
    said = stratagem("report", str(tmp_path))
    assert said.code == 2 and line in said.err and len(said.err.splitlines()) == 1


def test_a_report_of_nothing_is_refused(stratagem: Any, tmp_path: Path) -> None:
    assert stratagem("report", str(tmp_path / "missing")).code == 2
    assert stratagem("report", str(tmp_path)).code == 2
