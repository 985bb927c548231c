"""Runs on Ray go on when processes are killed; ``python -m benchmarks.chaos`` has more seeds and faults."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.chaos.__main__ import outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def references():
    """Numbers of undisturbed runs, by seed."""
    return {}


@pytest.mark.parametrize("name", ["rollout_worker_killed", "learner_killed", "driver_killed"])
def test_a_run_comes_to_the_numbers_of_an_undisturbed_one(name, references, tmp_path):
    found = outcome(name, 0, references, tmp_path)
    assert found["outcome"] == "same numbers", found["why"]
    assert found["violations"] == 0
