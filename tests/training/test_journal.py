"""The journal: what has ended is not played again, and a run killed at any instant learns from each episode once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.errors import InputError
from stratagem.sampling import Rollouts
from stratagem.training.journal import Journal
from stratagem.training.ledger import audit_run
from stratagem.training.loop import Trainer
from stratagem.training.pipeline import Pipelined
from stratagem.training.run_directory import RunDirectory

MEASURED = ("timing/", "memory/", "prefill/")


def rows(trainer: Any, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Logged rows without what a clock or the memory of the process said, and what was computed for the journal."""
    logged = trainer.run_directory.rows(name)
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in logged]


# ---- the file -------------------------------------------------------------------------------------------------------


def test_rows_come_back_by_batch_and_a_cut_one_is_ignored_and_written_over(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    assert journal.rows(3) == []
    journal.write(3, [{"a": 0.1 + 0.2}, {"b": None}])
    journal.write(4, [])
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["3.jsonl"]
    with open(tmp_path / "journal" / "3.jsonl", "a") as file:
        file.write('{"c": [1, 2')
    again = Journal(tmp_path / "journal")
    assert again.rows(3) == [{"a": 0.1 + 0.2}, {"b": None}]
    again.write(3, [{"d": 1}])
    assert again.rows(3) == [{"a": 0.1 + 0.2}, {"b": None}, {"d": 1}]


def test_batches_that_a_checkpoint_covers_are_forgotten(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    for step in (3, 10, 11):
        journal.write(step, [{"step": step}])
    journal.covered(11)
    assert journal.rows(3) == journal.rows(10) == [] and journal.rows(11) == [{"step": 11}]


# ---- in a world -----------------------------------------------------------------------------------------------------


def test_episodes_in_the_journal_are_taken_as_they_were_and_not_played(tmp_path, make_world, chatter):
    def fault(call: str, index: int, turn: int) -> None:
        if call == "step" and (7 * index + 3 * turn) % 5 == 0:
            raise RuntimeError("it happens")

    def world(task: Any) -> Any:
        made = make_world(task)
        made.keep(Journal(tmp_path))
        made.serve(1)
        return made

    sampler = Rollouts(prompts_per_step=4, group_size=3)
    played, idle = chatter(fault=fault, reward_names=("reward", "other")), chatter(reward_names=("reward", "other"))
    first = world(played).collect(sampler, 6)
    again = world(idle).collect(sampler, 6)
    assert idle.calls == [] and played.calls
    assert first.begun == again.begun and first.failed == again.failed and first.failed
    assert first.samples == again.samples and first.tokens == again.tokens
    for name in ("behavior_logp", "action", "version", "reward", "turn_state", "seed", "episode", "success"):
        assert torch.equal(getattr(first.x, name), getattr(again.x, name)), name
    assert torch.equal(first.x.inputs.token_ids, again.x.inputs.token_ids)
    # Another batch, and other episodes of the same one, are played.
    assert world(idle).collect(sampler, 7).tokens and idle.calls
    idle.calls.clear()
    other = make_world(idle, seed=1)
    other.keep(Journal(tmp_path))
    assert other.collect(sampler, 6).tokens and idle.calls


def test_what_ended_before_a_batch_was_cut_off_is_not_played_again(tmp_path, make_world, chatter):
    """Half the episodes were over: of those alone nothing is asked of the environments again."""
    task, sampler = chatter(turns=4), Rollouts(prompts_per_step=4, group_size=3)
    whole = make_world(task)
    whole.keep(Journal(tmp_path))
    first = whole.collect(sampler, 0)
    path = tmp_path / "0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 12
    path.write_text("".join(lines[:7]) + lines[7][:50])
    task.calls.clear()
    resumed = make_world(task)
    resumed.keep(Journal(tmp_path))
    again = resumed.collect(sampler, 0)
    assert sum(call == "reset" for call, _, _ in task.calls) == 5
    assert torch.equal(first.x.action, again.x.action)
    torch.testing.assert_close(first.x.behavior_logp, again.x.behavior_logp, rtol=0, atol=1e-5)
    assert len(path.read_text().splitlines()) == 12


def test_with_a_journal_a_resumed_run_has_the_numbers_of_an_unbroken_one(make_trainer, make_world, chatter, small):
    recipe = small("dapo")
    unbroken = make_trainer(recipe, "unbroken", steps=5, checkpoint_every=2)
    unbroken.run()
    broken = make_trainer(recipe, "broken", steps=5, checkpoint_every=2, journal=True)
    broken.run()
    assert rows(broken) == rows(unbroken)
    killed = make_trainer(recipe, "killed", steps=5, checkpoint_every=2, journal=True)
    # Batches 2 and 3 are learned from, batch 4 is collected, and none of that is in a checkpoint.
    for step in range(4):
        killed.step()
        if step == 1:
            killed.checkpoint()
    killed._collect()
    assert sorted(path.name for path in (killed.run_directory.path / "journal").iterdir()) == [
        "2.jsonl",
        "3.jsonl",
        "4.jsonl",
    ]
    task = chatter()
    resumed = Trainer(recipe, make_world(task), killed.run_directory, killed.settings)
    resumed.resume(killed.run_directory.load())
    resumed.run()
    assert task.calls == []
    for name in ("metrics.jsonl", "episodes.jsonl", "samples.jsonl"):
        assert rows(resumed, name) == rows(unbroken, name)
    assert list((killed.run_directory.path / "journal").iterdir()) == []


def test_a_world_that_keeps_no_journal_is_refused_one(make_trainer, make_world, small):
    class Plain:
        task_name = "plain"
        policy = make_world().policy

    with pytest.raises(InputError, match="journal: plain keeps none"):
        make_trainer(small("grpo"), "plain", Plain(), journal=True)
    with pytest.raises(InputError, match="journal: plain keeps none"):
        make_trainer(small("grpo"), "around", Pipelined(Plain(), 1), journal=True)


# ---- kills ----------------------------------------------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
import torch
from stratagem import catalogue
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.tasks import registry
from stratagem.training.loop import Settings, Trainer
from stratagem.training.pipeline import Pipelined
from stratagem.training.run_directory import RunDirectory

folder, staleness = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
policy = LanguagePolicy.from_path(tiny_model_path(), dtype="float32")
world = LanguageWorld(registry.make("calculator"), policy, HFEngine(policy), 0)
world = Pipelined(world, staleness, batches=12)
recipe = catalogue.card("decoupled_ppo").recipe().with_values(
    {"sampler.prompts_per_step": 4, "sampler.group_size": 4}
)
settings = Settings(steps=12, checkpoint_every=3, evaluation_episodes=0, journal=True)
run = RunDirectory(folder)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
(folder / "run.json").write_text("{}")
trainer = Trainer(recipe, world, run, settings)
trainer.resume(run.load() if run.checkpoints() else None)
print("begun", flush=True)
trainer.run()
world.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 2])
def test_a_run_killed_again_and_again_learns_from_every_episode_once(tmp_path: Path, staleness: int):
    source, lives = random.Random(staleness), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    while True:
        lives += 1
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path / "run"), str(staleness)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if lives <= 3:
            time.sleep(source.uniform(0.1, 2.0))
            process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait(120) == 0:
            break
        assert lives <= 3
    assert lives > 1
    run = RunDirectory(tmp_path / "run")
    found = audit_run(run)
    assert found.proved and found.steps == 12, found
    assert found.begun == 12 * 16 == found.learned + sum(found.left_out.values())
    assert [row["step"] for row in run.rows("metrics.jsonl")] == list(range(1, 13))
