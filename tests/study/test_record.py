"""Reading runs: what is whole is read, what is cut is named, and runs are told apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stratagem.errors import InputError
from stratagem.study.record import read_runs
from stratagem.training.run_directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


def test_axes_count_what_was_sampled_and_how_long_steps_took(learned: RunDirectory) -> None:
    """Each step: 30 tokens, 90 seconds; the rate beside the timings is none of them."""
    (record,) = read_runs([learned])
    assert record.axes([0, 1, 2]) == {"steps": [0, 1, 2], "tokens": [0, 30, 60], "minutes": [0, 1.5, 3]}


def test_series_leaves_out_what_is_missing_or_not_finite(make_run: MakeRun) -> None:
    rows = [{"step": 1, "kl": 0.5}, {"step": 2}, {"step": 3, "kl": float("nan")}, {"step": 4, "kl": 0.25}]
    assert read_runs([make_run(metrics=rows)])[0].series("kl") == ([1, 4], [0.5, 0.25])


@pytest.mark.parametrize(
    ("recipes", "seeds", "labels"),
    [
        (("grpo", "rloo"), (0, 0), ["grpo", "rloo"]),
        (("grpo", "grpo"), (0, 1), ["grpo, seed 0", "grpo, seed 1"]),
        (("grpo", "grpo"), (0, 0), ["first", "second"]),
    ],
)
def test_runs_are_named_by_the_least_that_tells_them_apart(
    make_run: MakeRun, recipes: tuple[str, str], seeds: tuple[int, int], labels: list[str]
) -> None:
    runs = [make_run(name, recipe=r, seed=s) for name, r, s in zip(("first", "second"), recipes, seeds, strict=True)]
    assert [record.label for record in read_runs(runs)] == labels


def test_a_line_cut_by_a_kill_is_no_row(learned: RunDirectory) -> None:
    with open(learned.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 3, "rew')
    (record,) = read_runs([learned])
    assert record.steps_done == 2
    assert record.notes == ()


def test_missing_and_broken_files_are_noted_by_name(learned: RunDirectory) -> None:
    (learned.path / "environment.json").unlink()
    (learned.path / "recipe.yaml").write_text("name: [", encoding="utf-8")
    (learned.path / "metrics.jsonl").write_text("not json\n", encoding="utf-8")
    (record,) = read_runs([learned])
    assert record.recipe is None
    assert record.recipe_name == "dr_grpo"
    assert [note.split(":")[0].split(",")[0] for note in record.notes] == [
        "environment.json",
        "recipe.yaml",
        "metrics.jsonl",
    ]


def test_no_runs_are_an_input_error() -> None:
    with pytest.raises(InputError, match="at least one run"):
        read_runs([])
