"""Whole runs on a local cluster: the numbers of one process, to and fro, and what is said of wrong input."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stratagem import run
from stratagem.cluster.plan import Cluster
from stratagem.errors import InputError
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.training.ledger import audit_run
from stratagem.training.run_directory import RunDirectory

ray = pytest.importorskip("ray", reason="runs on a cluster need Ray: pip install 'stratagem[cluster]'")

SMALL: dict[str, Any] = {
    "task": "key_door",
    "precision": "float32",
    "evaluation_episodes": 6,
    "checkpoint_every": 1,
    "values": {"sampler.prompts_per_step": 2, "sampler.group_size": 4},
}
OF_CLUSTERS = ("timing/", "memory/", "prefill/", "workers/", "weights/", "environments/", "pipeline/")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray in this process: runs join it instead of each starting one."""
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def numbers(directory: Path) -> list[dict[str, float]]:
    """Metrics of every step, but for those of times and of who did the work."""
    rows = RunDirectory(directory).rows("metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith(OF_CLUSTERS)} for row in rows]


def agree(one: Path, other: Path) -> None:
    """Assert that two runs have the same numbers to 1e-5."""
    mine, yours = numbers(one), numbers(other)
    assert len(mine) == len(yours) > 0
    for row, expected in zip(mine, yours, strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
    found, expected_ones = (
        {(row["step"], row["mode"]): row["success"] for row in RunDirectory(directory).rows("evaluations.jsonl")}
        for directory in (one, other)
    )
    # One that goes on was evaluated where it paused as well.
    assert {key: found[key] for key in expected_ones} == expected_ones


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in this process."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    run.train("grpo", out=directory, steps=3, **SMALL)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "made_of",
    [
        Cluster(),
        Cluster(learners=2, rollout_workers=2, environment_workers=1),
    ],
    ids=["one of each", "two learners, two rollout workers, an environment worker"],
)
def test_a_run_on_a_cluster_has_the_numbers_of_one_process(cluster, alone, tmp_path, made_of):
    told: list[int] = []
    result = run.train(
        "grpo", out=tmp_path / "run", steps=3, cluster=made_of, progress=lambda step, _: told.append(step), **SMALL
    )
    agree(tmp_path / "run", alone)
    assert told == [1, 2, 3] and result.metrics["optimizer_steps"] == 3
    assert audit_run(RunDirectory(tmp_path / "run")).proved
    noted = json.loads((tmp_path / "run" / "cluster.json").read_text())
    assert len(noted["processes"]) == made_of.processes and noted["learners_restarted"] == 0


@pytest.mark.slow
def test_a_run_moves_to_a_cluster_and_back(cluster, alone, tmp_path):
    directory = tmp_path / "run"
    run.train("grpo", out=directory, steps=1, **SMALL)
    run.resume(directory, steps=2, cluster=Cluster(learners=2))
    run.resume(directory, steps=3, cluster=None)
    agree(directory, alone)


@pytest.mark.slow
def test_rollouts_that_run_ahead_learn_from_every_episode_once(cluster, tmp_path):
    made_of = Cluster(staleness=2, slice_tokens=2, rollout_workers=2)
    run.train("decoupled_ppo", out=tmp_path / "run", steps=4, cluster=made_of, **SMALL)
    rows = RunDirectory(tmp_path / "run").rows("metrics.jsonl")
    assert max(row["pipeline/staleness_max"] for row in rows) <= 2
    assert any(row["pipeline/staleness"] > 0 for row in rows)
    found = audit_run(RunDirectory(tmp_path / "run"))
    assert found.proved and found.learned + sum(found.left_out.values()) == found.begun == 4 * 8


@pytest.mark.slow
def test_a_task_of_ones_own_goes_to_the_workers(cluster, tmp_path):
    task = KeyDoorTask(size=5)
    settings = SMALL | {"task": task}
    run.train("grpo", out=tmp_path / "run", steps=1, cluster=Cluster(environment_workers=1), **settings)
    with pytest.raises(InputError, match="started with a task of its own"):
        run.resume(tmp_path / "run")
    run.resume(tmp_path / "run", task=task, steps=2)
    assert len(numbers(tmp_path / "run")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "made_of", "complaint"),
    [
        ({"model": "/nowhere"}, Cluster(), "/nowhere: no such folder"),
        ({}, Cluster(learners=9), "has 8 processors, the run needs 10"),
        ({"device": "cuda"}, Cluster(), "no GPU; use --device cpu"),
        ({"model": {"role0": "tiny", "others": "tiny"}}, Cluster(), "rollout_workers = 1: must be at least 2"),
        ({}, Cluster(offload=True), "offload"),
    ],
)
def test_wrong_input_is_one_line_from_wherever_it_shows(cluster, tmp_path, values, made_of, complaint):
    with pytest.raises(InputError, match=complaint) as raised:
        run.train("grpo", out=tmp_path / "run", steps=1, cluster=made_of, **SMALL | values)
    assert "\n" not in str(raised.value)


def test_only_tasks_in_text_run_on_a_cluster(tmp_path):
    with pytest.raises(InputError, match="CartPole-v1: runs in one process; only tasks played in text run on a clus"):
        run.train("ppo", "gym:CartPole-v1", out=tmp_path / "run", steps=1, cluster=Cluster())
    assert not (tmp_path / "run").exists()
