"""With one player nothing has changed: numbers that were written down before there could be several."""

from __future__ import annotations

import json

import pytest
import torch

from stratagem import train
from stratagem.openended import Distillation, Grid, OpenEndedTask, OpenEndedWorld, PopulationTraining, evolve
from stratagem.seeding import generator

LITTLE = {"sampler.curriculum.proposals": 4, "sampler.curriculum.episodes": 3, "sampler.curriculum.least": 1}


def test_tasks_are_what_they_were():
    tasks = OpenEndedTask(horizon=8).tasks("train", range(50))
    columns = (tasks.wall, tasks.floor, tasks.agent, tasks.object, tasks.goals.atom, tasks.goals.negated)
    sums = [int((column.flatten() * torch.arange(1, column.numel() + 1)).sum()) for column in columns]
    assert sums == [260058, -1181570, 16874, 134487, 122148, 4875]


@pytest.mark.parametrize(("flips", "paid", "seen"), [(False, 37292, 126808.2857), (True, 7114, 124358.2857)])
def test_worlds_move_pay_and_look_as_they_did(flips, paid, seen):
    universe = OpenEndedTask(horizon=8, flips=flips)
    grid, source, total = Grid(universe, universe.tasks("test", range(200))), generator(5), 0.0
    while not grid.done:
        total += float((grid.step(torch.randint(6, (200,), generator=source)) * torch.arange(200)).sum())
    observed = grid.observation().double()
    assert total == paid and int(grid.truth.sum()) == 577
    assert float((observed * torch.arange(1, observed.shape[1] + 1)).sum()) == pytest.approx(seen, abs=1e-2)


def test_policies_score_what_they_did():
    world = OpenEndedWorld(OpenEndedTask(horizon=8), 3)
    assert world.held_out(range(50), 2).sum() == 15.9375
    assert world.evaluate(50, "greedy").mean_return == 2.62
    assert world.evaluate(50, "sampled").mean_return == 2.78
    assert world.state_dict() == ({}, {"next_task": 0, "episodes": 0})


def test_a_run_learns_what_it_did(tmp_path):
    values = {"sampler.prompts_per_step": 16, **LITTLE}
    asked = {"steps": 4, "seed": 7, "evaluation_episodes": 40}
    found = train("xland", "openended:grid,horizon=8", values=values, out=tmp_path / "run", **asked)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [3.9375, 0, 0.1875, 0.8125]
    assert [row["loss"] for row in rows] == pytest.approx([1.09446, 0.211979, 0.0077852, 0.257708], rel=1e-3)
    assert [row["tokens/total"] for row in rows] == [320, 640, 960, 1280]
    assert [row["mean_return"] for row in found.evaluations] == [2.475, 2.6, 2.375, 2.275]
    assert "coplayers" not in rows[0]


def test_generations_become_what_they_did(tmp_path):
    values = {"sampler.prompts_per_step": 8, "sampler.curriculum.proposals": 2, "sampler.curriculum.episodes": 2}
    found = evolve(
        "xland",
        "openended:grid,horizon=8",
        generations=2,
        rounds=2,
        training=PopulationTraining(members=2, interval=1, validation=20),
        distillation=Distillation(steps=5, tasks=16),
        tests=30,
        values={**values, "sampler.curriculum.least": 1},
        out=tmp_path / "run",
        seed=2,
    )
    assert found.steps == (512, 768) and found.divergence[1] == pytest.approx(0.0143695, rel=1e-3)
    earned = {agent: found.book.earned(agent).sum() for agent in found.book.agents}
    assert earned == {"generation-1": 8.25, "random": 9.375, "generation-2": 10.25}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == [[0.2625, 0.275], [0.25625, 0.2875], [0.24375, 0.23125], [0.2625, 0.25]]
