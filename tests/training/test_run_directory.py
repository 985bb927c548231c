"""The run directory: what is there is whole, whenever the writer died."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.errors import InputError
from stratagem.training.run_directory import Checkpoint, RunDirectory, environment, read_checkpoint, whole_directory


def checkpoint(step: int, size: int = 4) -> Checkpoint:
    weights = {"a": torch.full((size,), float(step)), "b": torch.arange(3)}
    return Checkpoint({"step": step}, {"policy": weights, "parts": {}})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory.create(tmp_path / "run")
    made.write_json("run.json", {})
    return made


# ---- directories ----------------------------------------------------------------------------------------------------


def test_a_directory_that_holds_a_run_is_not_overwritten(run):
    with pytest.raises(InputError, match=r"holds a run already; continue it with --resume"):
        RunDirectory.create(run.path)


def test_a_directory_that_holds_no_run_is_not_continued(tmp_path):
    with pytest.raises(InputError, match=r"holds no run \(run.json is missing\)"):
        RunDirectory.existing(tmp_path)


def test_a_directory_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        RunDirectory.create(tmp_path / "file" / "run")


# ---- lines ----------------------------------------------------------------------------------------------------------


def test_a_line_cut_by_a_kill_is_passed_over_and_then_removed(run):
    run.append("metrics.jsonl", {"step": 1, "loss": 0.5})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert run.rows("metrics.jsonl") == [{"step": 1, "loss": 0.5}]
    run.forget_after("metrics.jsonl", 1)
    run.append("metrics.jsonl", {"step": 2, "loss": 0.25})
    assert [row["loss"] for row in run.rows("metrics.jsonl")] == [0.5, 0.25]


@pytest.mark.parametrize("broken", ["{", "3", "\x00\x00", "[]"])
def test_a_broken_line_in_the_middle_is_named(run, broken):
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n' + broken + '\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2: not a JSON object"):
        run.rows("metrics.jsonl")


def test_rows_of_a_file_that_is_not_there_are_none(run):
    assert run.rows("nothing.jsonl") == []
    run.forget_after("nothing.jsonl", 3)
    assert not (run.path / "nothing.jsonl").exists()


def test_a_broken_json_file_is_an_input_error(run):
    for text in ("", "{", "[]"):
        (run.path / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: "):
            run.read_json("run.json")


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_read_back_bit_by_bit(run):
    shared = torch.tensor([0.1, -0.0, float("inf"), 1e-45])
    tensors = {
        "policy": {"embedding": shared, "head": shared, "slice": torch.arange(10)[2:5], "turned": torch.eye(3)[:, 1]},
        "flags": {"mask": torch.tensor([True, False]), "scalar": torch.tensor(7), "empty": torch.zeros(0)},
        "parts": {},
    }
    run.save("step-1", Checkpoint({"step": 1, "best": None, "nested": [1.5, {"a": "b"}]}, tensors))
    read = run.load()
    assert read.state == {"step": 1, "best": None, "nested": [1.5, {"a": "b"}], "groups": ["flags", "parts", "policy"]}
    for group, named in tensors.items():
        assert read.tensors[group].keys() == named.keys()
        for name, tensor in named.items():
            assert read.tensors[group][name].dtype == tensor.dtype
            assert torch.equal(read.tensors[group][name], tensor)


def test_the_newest_checkpoint_counts_steps_and_then_updates_as_numbers(run):
    for name in ("step-9", "step-10", "step-10-3", "step-10-12"):
        run.save(name, checkpoint(0), keep=9)
    assert [path.name for path in run.checkpoints()] == ["step-9", "step-10", "step-10-3", "step-10-12"]


def test_only_the_newest_are_kept(run):
    for step in range(1, 6):
        run.save(f"step-{step}", checkpoint(step), keep=2)
    assert [path.name for path in run.checkpoints()] == ["step-4", "step-5"]


def test_without_a_checkpoint_there_is_nothing_to_load(run):
    with pytest.raises(InputError, match="has no complete checkpoint to resume from"):
        run.load()


@pytest.mark.parametrize("name", ["state.json", "policy.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "empty"])
def test_a_damaged_checkpoint_names_the_file(run, name, damage):
    run.save("step-1", checkpoint(1))
    file = run.path / "checkpoints" / "step-1" / name
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "garbage":
            file.write_bytes(b"\xff" * len(content))
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        read_checkpoint(file.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", ["[]", "{}", "3"])
def test_a_state_of_another_shape_is_corrupt(run, state):
    run.save("step-1", checkpoint(1))
    (run.path / "checkpoints" / "step-1" / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"state\.json: missing or corrupt"):
        run.load()


# ---- faults ---------------------------------------------------------------------------------------------------------


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint_and_nothing_half_written(run):
    run.save("step-1", checkpoint(1))
    with files_of_at_most(2**14), pytest.raises(Exception, match=r"(?i)i/o error|too large"):
        run.save("step-2", checkpoint(2, size=2**14))
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-1"]
    assert run.load().state["step"] == 1


def test_a_failed_block_leaves_the_directory_as_it_was(tmp_path):
    with whole_directory(tmp_path / "model") as directory:
        (directory / "weights").write_text("old")
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "model") as directory:
        (directory / "weights").write_text("new")
        raise RuntimeError
    assert (tmp_path / "model" / "weights").read_text() == "old"
    with whole_directory(tmp_path / "model") as directory:
        (directory / "weights").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "new"


def test_sweeping_removes_files_and_directories_that_a_kill_left(run):
    run.save("step-1", checkpoint(1))
    (run.path / ".model.new.tmp").mkdir()
    (run.path / ".model.new.tmp" / "weights").write_text("half")
    (run.path / "checkpoints" / ".step-2.new.tmp").mkdir()
    (run.path / ".recipe.yaml.7.tmp").write_text("half")
    run.sweep()
    assert {path.name for path in run.path.iterdir()} == {"run.json", "checkpoints"}
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-1"]


def killed_at(operation: int, body: Callable[[], object]) -> bool:
    """Whether a child process that runs ``body`` killed itself at this file operation, before it took effect."""
    child = os.fork()
    if child == 0:
        left = [operation]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return wrapped

        for name in ("replace", "fsync", "mkdir", "unlink", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            body()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_before_any_file_operation_leaves_a_complete_checkpoint(run):
    """Old or new, and never none: for every operation of writing the third checkpoint and dropping the first."""
    operations = 0
    while True:
        run.save("step-1", checkpoint(1), keep=9)
        run.save("step-2", checkpoint(2), keep=9)
        killed = killed_at(operations, lambda: run.save("step-3", checkpoint(3), keep=2))
        newest = run.load()
        assert newest.state["step"] in (2, 3)
        assert newest.tensors["policy"]["a"].tolist() == [float(newest.state["step"])] * 4
        run.sweep()
        assert all(not path.name.startswith(".") for path in (run.path / "checkpoints").iterdir())
        for name in ("step-1", "step-2", "step-3"):
            with whole_directory(run.path / "checkpoints" / name):
                pass
        if not killed:
            break
        operations += 1
    assert operations >= 6
    assert newest.state["step"] == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_while_a_file_is_written_leaves_the_old_or_the_new_one(run):
    choose = random.Random(0)
    for _ in range(5):
        run.write_json("run.json", {"steps": 1})
        killed_at(choose.randrange(3), lambda: run.write_json("run.json", {"steps": 2}))
        assert run.read_json("run.json")["steps"] in (1, 2)


def test_the_environment_names_versions_seed_command_and_machine_but_no_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/stratagem", "train"])
    said = environment(7)
    assert said["seed"] == 7 and said["command"] == ["stratagem", "train"]
    assert (
        said["packages"]["torch"] == torch.__version__.split("+")[0] or said["packages"]["torch"] == torch.__version__
    )
    assert json.loads(json.dumps(said)) == said


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with run.held(0.0), pytest.raises(InputError, match="another process is at work on it"), run.held(0.0):
        pass
    with run.held(0.0):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    code = "import sys, time; from stratagem.training.run_directory import RunDirectory as R\n"
    code += "with R.existing(sys.argv[1]).held(): print('held', flush=True); time.sleep(60)"
    run.write_json("run.json", {})
    holder = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process"), run.held(0.0):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.held(0.0):
        pass
