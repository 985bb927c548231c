"""Runs: whatever happens to the process, the numbers are those of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stratagem
from stratagem import run
from stratagem.cluster import Cluster
from stratagem.errors import BrokenRunError, InputError
from stratagem.language.policy import LanguagePolicy
from stratagem.training import run_directory
from stratagem.training.run_directory import RunDirectory

MEASURED = ("timing/", "memory/")
QUICK: dict[str, Any] = {"precision": "float32", "evaluation_episodes": 2}
GROUPS = {"sampler.prompts_per_step": 2, "sampler.group_size": 3}
CARTPOLE = {"sampler.prompts_per_step": 2, "sampler.turns": 24, "optimization.epochs": 2, "optimization.minibatches": 2}


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task that a random model solves now and then: say something with this letter in it."""
    file = tmp_path_factory.mktemp("data") / "letters.jsonl"
    lines = [
        json.dumps({"prompt": f"Say {letter}{number}.", "answer": letter}) for letter in "aeot" for number in range(9)
    ]
    file.write_text("\n".join(lines))
    return f"jsonl:{file},verifier=contains,test_share=0.3,max_new_tokens=16"


@pytest.fixture
def train(tmp_path: Path, model_folder: Path, letters: str) -> Callable[..., run.RunResult]:
    """``train(name, recipe="grpo", task=letters, **options)``: a short run in a folder of that name."""

    def start(name: str, recipe: Any = "grpo", task: Any = letters, **options: Any) -> run.RunResult:
        if not str(task).startswith("gym:"):
            options = {"model": str(model_folder), "values": GROUPS, **options}
        return run.train(recipe, task, out=tmp_path / name, **{"steps": 2, **QUICK, **options})

    return start


def rows(directory: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Logged rows without what a clock or the memory of the process said."""
    logged = RunDirectory(directory).rows(name)
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in logged]


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_writes_what_it_promises(train):
    result = train("run", evaluate_every=1)
    assert {path.name for path in result.directory.iterdir()} == {
        "recipe.yaml", "run.json", "environment.json", "metrics.jsonl", "evaluations.jsonl", "samples.jsonl",
        "episodes.jsonl", "checkpoints", "tensorboard", "model", "report.html", ".lock",
    }  # fmt: skip
    assert stratagem.Recipe.load(result.directory / "recipe.yaml").sampler.group_size == 3
    assert [row["step"] for row in rows(result.directory)] == [1, 2]
    assert [row["step"] for row in result.evaluations] == [0, 0, 1, 1, 2, 2]
    assert result.metrics["optimizer_steps"] == rows(result.directory)[-1]["optimizer_steps"]
    before, after = result.first_and_last("greedy")
    assert (before["step"], after["step"], before["mode"]) == (0, 2, "greedy")
    assert [path.name for path in (result.directory / "checkpoints").iterdir()] == ["step-2"]
    assert any((result.directory / "tensorboard").iterdir())


@pytest.mark.parametrize("task", ["letters", "gym:CartPole-v1"])
def test_the_same_seed_gives_the_same_numbers(train, letters, task):
    options: dict[str, Any] = {"values": CARTPOLE, "recipe": "ppo"} if task.startswith("gym") else {"task": letters}
    options.setdefault("task", task)
    first, again, other = (train(f"run{n}", seed=seed, **options).directory for n, seed in enumerate((4, 4, 5)))
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert rows(first, name) == rows(again, name)
    assert rows(first) != rows(other)


def test_a_recipe_may_be_given_as_one_and_as_a_file(train, tmp_path):
    recipe = stratagem.recipes.rloo().with_values(GROUPS)
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    first = train("given", recipe=recipe, values=None)
    second = train("file", recipe=str(tmp_path / "mine.yaml"), values=None)
    assert rows(first.directory) == rows(second.directory)


def test_a_critic_may_be_asked_for_by_a_field(train):
    result = train("critic", values={**GROUPS, "advantage": "gae"}, steps=1)
    assert result.metrics["batch/tokens"] > 0
    assert run.resume(result.directory, steps=2).metrics["batch/tokens"] > 0


def test_a_run_may_go_on_for_longer(train):
    short, long = train("short", steps=1), train("long", steps=3)
    continued = run.resume(short.directory, steps=3)
    assert rows(continued.directory) == rows(long.directory)
    assert RunDirectory(short.directory).read_json("run.json")["steps"] == 3
    with pytest.raises(InputError, match=r"steps = 2: run .* has done 3 already"):
        run.resume(short.directory, steps=2)


def test_adapters_are_trained_and_merged_into_a_model_that_loads(train, model_folder):
    pytest.importorskip("peft")
    values = {**GROUPS, "optimization.learning_rate": 0.1}
    result = train("adapters", lora=2, values=values, evaluation_episodes=0)
    assert result.metrics["optimizer_steps"] > 0
    trained = dict(LanguagePolicy.from_path(result.directory / "model").weights())
    base = dict(LanguagePolicy.from_path(model_folder).weights())
    assert trained.keys() == base.keys()
    moved = {name for name, value in trained.items() if not torch.equal(value, base[name])}
    assert moved and all("proj" in name for name in moved)
    unbroken = train("unbroken", lora=2, values=values, evaluation_episodes=0, steps=3)
    assert rows(run.resume(result.directory, steps=3).directory) == rows(unbroken.directory)


def test_a_reference_stays_the_model_the_run_began_with(train):
    recipe = {"recipe": "reinforce_pp_baseline"}
    unbroken = train("unbroken", steps=3, **recipe)
    broken = train("broken", steps=1, **recipe)
    assert rows(run.resume(broken.directory, steps=3).directory) == rows(unbroken.directory)


def test_evaluating_a_run_takes_its_model_and_its_task(train):
    result = train("run", steps=1, evaluation_episodes=3)
    sampled, greedy = run.evaluate(result.directory, episodes=3, precision="float32")
    assert (sampled.mode, greedy.mode, sampled.episodes) == ("sampled", "greedy", 3)
    again = run.evaluate(result.directory / "model", run.RunDirectory(result.directory).read_json("run.json")["task"],
                         episodes=3, precision="float32")  # fmt: skip
    assert again == [sampled, greedy]
    with pytest.raises(InputError, match="name a task with --task"):
        run.evaluate(result.directory / "model")


def test_pass_at_k_is_the_chance_of_the_best_of_k_answers(train, monkeypatch):
    result = train("run", steps=1, evaluation_episodes=3)
    counted = [(4, 0), (4, 1), (4, 4), (1, 1)]
    monkeypatch.setattr(run.LanguageWorld, "tries", lambda world, prompts, samples, first: counted)
    passes = run.pass_at(result.directory, (2, 1), prompts=4, samples=4, precision="float32")
    # 1 - C(4-c, k) / C(4, k): c = 0, 1, 4 give 0, 1/4, 1 and 0, 1/2, 1; the start state that lost three does not count.
    assert passes == {1: pytest.approx(1.25 / 3), 2: pytest.approx(1.5 / 3)}


def test_pass_at_one_is_the_share_of_sampled_successes(make_world):
    world = make_world()
    tries = world.tries(3, 4)
    assert len(tries) == 3 and all(n == 4 and 0 <= c <= n for n, c in tries)
    assert tries == world.tries(3, 4) and tries[1:] == world.tries(2, 4, first=1)
    world.close()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ks": ()}, "must be one or more numbers from 1 on"),
        ({"ks": (0, 2)}, "must be one or more numbers from 1 on"),
        ({"ks": (1, 4), "samples": 3}, "samples = 3: must be at least 4"),
        ({"ks": (1,), "prompts": 0}, "prompts = 0: must be at least 1"),
    ],
)
def test_pass_at_k_that_cannot_be_measured_is_refused(asked, message):
    with pytest.raises(InputError, match=message):
        run.pass_at("tiny", **{"task": "key_door", **asked})


def test_pass_at_k_is_of_text(tmp_path):
    run.train("grpo", "lab:corridor", steps=1, out=tmp_path / "run", evaluation_episodes=1)
    with pytest.raises(InputError, match="is measured where a language policy writes text"):
        run.pass_at(tmp_path / "run", (1,))


# ---- wrong input ----------------------------------------------------------------------------------------------------


def test_wrong_input_leaves_no_run_behind(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="Weights & Biases is not installed"):
        train("run", wandb="project")
    with pytest.raises(InputError, match="unknown field"):
        train("run", values={"advantage.nonsense": 1})
    assert not (tmp_path / "run" / "run.json").exists()
    train("run", steps=1)


def test_gradient_checkpointing_changes_no_number_and_is_resumed(train, monkeypatch):
    asked = []
    build = run.build_world

    def noted(request, task, seed):
        world = build(request, task, seed)
        asked.append(world.policy.model.is_gradient_checkpointing and world.policy.model.training)
        return world

    monkeypatch.setattr(run, "build_world", noted)
    plain = train("plain", "reinforce", steps=2)
    again = train("again", "reinforce", steps=1, gradient_checkpointing=True)
    run.resume(again.directory, steps=2)
    assert asked == [False, True, True]
    for one, other in zip(rows(plain.directory), rows(again.directory), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    assert one["optimizer_steps"] == 2 and one["grad_norm"] > 0


def test_a_run_from_before_there_was_gradient_checkpointing_goes_on(train):
    result = train("run", steps=1)
    file = result.directory / "run.json"
    asked = json.loads(file.read_text())
    del asked["gradient_checkpointing"]
    file.write_text(json.dumps(asked))
    assert len(run.resume(result.directory, steps=2).evaluations) == len(result.evaluations) + 2


def test_a_run_directory_holds_one_run(train):
    train("run", steps=1)
    with pytest.raises(InputError, match="holds a run already"):
        train("run")


@pytest.mark.parametrize("others", [False, True])
def test_a_run_that_was_refused_can_be_started_there_again(tmp_path, others):
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    if others:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = Cluster(f"127.0.0.1:{free.getsockname()[1]}")
        for _ in range(2):
            with pytest.raises(InputError, match="nobody answers there"):
                run.train("grpo", "key_door", cluster=nowhere, out=folder, **QUICK)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"] if others else not folder.exists()


def test_there_must_be_something_to_resume(train, tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        run.resume(tmp_path)
    result = train("run", steps=3, checkpoint_every=1)
    for folder in (result.directory / "checkpoints").iterdir():
        (folder / "state.json").unlink()
    with pytest.raises(InputError, match="has no complete checkpoint"):
        run.resume(result.directory)


@pytest.mark.parametrize("name", ["recipe", "steps", "checkpoint_every"])
def test_a_run_file_that_lacks_something_is_named(train, name):
    result = train("run", steps=1)
    file = result.directory / "run.json"
    asked = json.loads(file.read_text())
    del asked[name]
    file.write_text(json.dumps(asked))
    with pytest.raises(InputError, match=rf"run\.json: lacks {name}"):
        run.resume(result.directory)


def test_the_kind_of_a_task_decides_what_can_act(train):
    class Chess:
        name, description, family = "chess", "", "games"

    with pytest.raises(InputError, match="unknown kind of task for training, that of chess: 'games'"):
        run.build_world(run.Request("grpo", "chess"), Chess(), 0)
    with pytest.raises(InputError, match="unknown engine 'vlm'"):
        train("run", engine="vlm")


def test_an_engine_that_is_not_installed_names_the_extra(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"engine vllm needs vLLM .*: pip install 'stratagem\[vllm\]'") as caught:
        train("run", engine="vllm")
    assert "\n" not in str(caught.value)


# ---- stopped --------------------------------------------------------------------------------------------------------


def test_an_interrupt_saves_and_says_how_to_go_on(train, tmp_path):
    unbroken = train("unbroken", steps=3)

    def interrupt(step: int, metrics: Any) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(BrokenRunError, match=r"stopped and saved; continue with: stratagem train --resume .*stopped"):
        train("stopped", steps=3, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert rows(run.resume(tmp_path / "stopped").directory) == rows(unbroken.directory)


def test_an_error_of_ours_names_the_directory_that_holds_what_was_saved(train, tmp_path):
    def fall(step: int, metrics: Any) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(BrokenRunError, match=rf"ZeroDivisionError: a bug; what was saved is in {tmp_path / 'run'}"):
        train("run", progress=fall)


def test_what_broke_elsewhere_names_the_directory_as_well(train, tmp_path):
    def fall(step: int, metrics: Any) -> None:
        raise BrokenRunError("no worker is left")

    with pytest.raises(BrokenRunError, match=rf"no worker is left; what was saved is in {tmp_path / 'run'}"):
        train("run", progress=fall)


def test_a_run_that_is_still_going_on_is_not_resumed_beside_itself(train, monkeypatch):
    result = train("run", steps=1)
    code = "import sys, time; from stratagem.training.run_directory import RunDirectory as R\n"
    code += "with R.existing(sys.argv[1]).held(): print('held', flush=True); time.sleep(120)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(result.directory)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(run_directory, "PATIENCE", 0.0)
        with pytest.raises(InputError, match="another process is at work on it"):
            run.resume(result.directory, steps=2)
    finally:
        holder.kill()
        holder.communicate()


def test_a_task_given_as_one_is_given_again_to_resume(train, chatter):
    result = train("run", task=chatter(turns=2), steps=1)
    assert result.metrics["episodes/mean_turns"] > 1
    with pytest.raises(InputError, match="was started with a task of its own; resume it with task= from Python"):
        run.resume(result.directory, steps=2)
    unbroken = train("unbroken", task=chatter(turns=2), steps=2)
    assert rows(run.resume(result.directory, task=chatter(turns=2), steps=2).directory) == rows(unbroken.directory)


def test_a_device_that_is_not_here_is_named(train):
    with pytest.raises(InputError, match="device abacus: not available here"):
        train("run", device="abacus")


def test_a_run_may_be_started_outside_the_main_thread(train):
    results: list[run.RunResult] = []
    thread = threading.Thread(target=lambda: results.append(train("run", steps=1)))
    thread.start()
    thread.join()
    assert results[0].metrics["batch/tokens"] > 0


def test_a_run_that_died_before_its_first_checkpoint_starts_over(train, tmp_path):
    unbroken = train("unbroken", steps=3)

    def fall(step: int, metrics: Any) -> None:
        if step == 2:
            raise OSError("power")

    with pytest.raises(BrokenRunError):
        train("broken", steps=3, progress=fall)
    assert len(rows(tmp_path / "broken")) == 2
    resumed = run.resume(tmp_path / "broken")
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert rows(resumed.directory, name) == rows(unbroken.directory, name)


def killed_after(seconds: float, body: Callable[[], object]) -> bool:
    """Whether a child that runs ``body`` was still at it when it was killed."""
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("task", ["letters", "gym:CartPole-v1"])
def test_a_run_killed_at_any_moment_goes_on_with_the_same_numbers(train, tmp_path, letters, task):
    options: dict[str, Any] = {"values": CARTPOLE, "recipe": "ppo"} if task.startswith("gym") else {"task": letters}
    options |= {"steps": 5, "checkpoint_every": 2, "evaluate_every": 2}
    options.setdefault("task", task)
    clock = time.perf_counter()
    unbroken = train("unbroken", **options).directory
    whole = time.perf_counter() - clock
    choose, kills = random.Random(task), 0

    def begin() -> run.RunResult:
        begun = (tmp_path / "killed" / "run.json").exists()
        return run.resume(tmp_path / "killed") if begun else train("killed", **options)

    for _ in range(3):
        kills += killed_after(choose.uniform(0.2, 0.7) * whole, begin)
    begin()
    assert kills > 0
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert rows(tmp_path / "killed", name) == rows(unbroken, name)
    one, other = RunDirectory(unbroken).load(), RunDirectory(tmp_path / "killed").load()
    for group, tensors in one.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other.tensors[group][name]), f"{group}: {name}"
    saved, again = (path / "model" / "README.md" for path in (unbroken, tmp_path / "killed"))
    assert saved.read_text() == again.read_text()


@pytest.mark.slow
def test_a_command_killed_and_resumed_repeats_an_unbroken_one(train, tmp_path, model_folder, letters):
    unbroken = train("unbroken", steps=8, checkpoint_every=1, values=GROUPS)
    command = [sys.executable, "-c", "from stratagem.cli import main; main()", "train"]
    options = [
        "grpo",
        "--task",
        letters,
        "--model",
        str(model_folder),
        "--out",
        str(tmp_path / "killed"),
        "--steps",
        "8",
    ]
    options += ["--checkpoint-every", "1", "--evaluate-every", "0", "--episodes", "2", "--precision", "float32"]
    options += [word for name, value in GROUPS.items() for word in ("--set", f"{name}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(stratagem.__file__).parents[1])}
    process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(RunDirectory(tmp_path / "killed").rows("metrics.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = subprocess.run([*command, "--resume", str(tmp_path / "killed")], env=environment, capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(tmp_path / "killed") == rows(unbroken.directory)
