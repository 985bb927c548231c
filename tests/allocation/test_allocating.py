"""Comparisons by name: the same episodes for all, the run directory, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from stratagem.allocation import GreedyAllocation, allocate, find_task, play
from stratagem.errors import BrokenRunError, InputError
from stratagem.seeding import derive

TASK = "allocation:dynamic,steps=5"


def test_importing_it_does_not_bring_in_scipy():
    code = "import sys, stratagem.allocation; print('scipy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_all_meet_the_same_episodes_and_arguments_reach_who_has_them():
    found = allocate(["greedy", "genetic"], TASK, episodes=4, seed=2, arguments={"generations": 0, "population": 2})
    greedy, genetic = found.results
    returns, seconds = play(GreedyAllocation(), find_task(TASK), 4, derive(2, "held out"))
    assert torch.equal(greedy.returns, returns) and seconds > 0
    assert genetic.mean < greedy.mean and found.directory is None
    assert greedy.half == pytest.approx(1.96 * float(returns.std()) / 2)


def test_a_learned_policy_is_saved_and_met_again_in_another_size(tmp_path):
    found = allocate(["two_stage_allocation"], TASK, decisions=100, episodes=3, out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 100 and rows[-1]["allocator"] == "two_stage_allocation"
    saved = tmp_path / "run" / "policies" / "two_stage_allocation"
    again = allocate([str(saved)], TASK, episodes=3)
    assert torch.equal(again.results[0].returns, found.results[0].returns) and again.results[0].seconds == 0
    larger = allocate([str(saved)], TASK + ",slots=8,entities=32", episodes=3, out=tmp_path / "larger")
    said = json.loads((tmp_path / "larger" / "results.json").read_text())["results"][0]
    assert said["return"] == larger.results[0].mean and said["episodes"] == 3
    with pytest.raises(InputError, match="holds a run already"):
        allocate([str(saved)], TASK, out=tmp_path / "run")


def test_an_interrupted_comparison_keeps_the_allocators_that_are_done(tmp_path):
    def interrupt(name, number):
        raise KeyboardInterrupt

    names = ["greedy", "two_stage_allocation", "random"]
    with pytest.raises(BrokenRunError, match="stopped after 1 of 3 allocators"):
        allocate(names, TASK, episodes=3, out=tmp_path / "run", progress=interrupt)
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert row["allocator"] == "greedy" and (tmp_path / "run" / "report.html").is_file()


def test_a_single_episode_has_no_interval():
    assert allocate(["random"], TASK, episodes=1).results[0].row(TASK)["interval"] is None


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ([], {}, "name at least one"),
        (["greedi"], {}, "greedy"),
        (["greedy"], {"arguments": {"population": 3}}, "population"),
        (["random"], {"episodes": 0}, "at least 1"),
    ],
)
def test_wrong_input_is_refused(names, more, said):
    with pytest.raises(InputError, match=said):
        allocate(names, TASK, **more)
