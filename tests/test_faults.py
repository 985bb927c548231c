"""What goes wrong in other people's environments and on a disk costs what it must, is counted, and nothing else."""

from __future__ import annotations

import errno
import math
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stratagem.errors import BrokenRunError
from stratagem.parts import Reward
from stratagem.sampling import Demonstrations, Rollouts
from stratagem.tasks.task import Observation, Step, state_key
from stratagem.training import loop, run_directory

SAMPLER = Rollouts(prompts_per_step=3, group_size=4, refill_rounds=0)


def raising(call: str, index: int, turn: int) -> Any:
    raise RuntimeError("the simulator fell over")


def only(call: str, index: int, action: Any, turn: int | None = None) -> Any:
    """A fault in one kind of call of one start state (and one turn)."""

    def fault(called: str, start: int, at: int) -> Any:
        if called == call and start == index and (turn is None or at == turn):
            return action(called, start, at)
        return None

    return fault


def returning(value: Any) -> Any:
    return lambda call, index, turn: value


SEEN = Observation("seen", 0)
WRONG = {
    "raises": raising,
    "ends the program": lambda call, index, turn: exit(1),
    "NaN": returning(Step(SEEN, math.nan)),
    "infinity": returning(Step(SEEN, math.inf)),
    "text as reward": returning(Step(SEEN, "1.0")),
    "a tuple": returning(("text", 1.0, True, {})),
    "text as observation": returning(Step("seen")),
    "a state key that is too large": returning(Step(Observation("", 2**64))),
    "an unknown component": returning(Step(SEEN, components={"style": 1.0})),
}


# ---- episodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_step_fails_its_episodes_and_leaves_the_others_as_they_were(make_world, chatter, wrong):
    world = make_world(chatter(fault=only("step", 1, WRONG[wrong])))
    outcome, sound = world.collect(SAMPLER, 0), make_world().collect(SAMPLER, 0)
    assert outcome.x.task_id.tolist() == [0, 2]
    kept = sound.x.select(sound.x.group_of_trajectory.labels != 1)
    assert torch.equal(outcome.x.action, kept.action) and torch.equal(outcome.x.reward, kept.reward)
    assert (outcome.metrics["episodes/failed"], outcome.metrics["episodes"]) == (4, 12)
    assert outcome.metrics["reward"] == pytest.approx(float(kept.reward.mean()))
    assert outcome.samples[1]["failure"].startswith("step: ")


@pytest.mark.parametrize("value", ["no observation", 3, Observation(None, 0), Observation("", 2**64)])
def test_a_wrong_first_observation_fails_its_episodes(make_world, chatter, value):
    world = make_world(chatter(fault=only("reset", 1, returning(value))))
    outcome = world.collect(SAMPLER, 0)
    assert outcome.x.task_id.tolist() == [0, 2]
    assert outcome.metrics["episodes/failed"] == 4
    assert outcome.samples[1]["failure"].startswith("reset: TypeError: ")


def test_an_environment_that_raises_at_reset_fails_its_episodes(make_world, chatter):
    outcome = make_world(chatter(fault=only("reset", 0, raising))).collect(SAMPLER, 0)
    assert outcome.x.task_id.tolist() == [1, 2]
    assert outcome.samples[0]["failure"] == "reset: RuntimeError: the simulator fell over"


def test_an_environment_that_raises_when_closed_keeps_its_episode(make_world, chatter):
    outcome = make_world(chatter(fault=only("close", 1, raising))).collect(SAMPLER, 0)
    assert outcome.x.groups == 3 and outcome.metrics["episodes/failed"] == 0


@pytest.mark.parametrize("call", ["reset", "step", "close"])
def test_an_environment_that_hangs_is_left_behind(make_world, chatter, call):
    over = threading.Event()
    left = [2]

    def hang(called: str, index: int, turn: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            over.wait(20)

    world = make_world(chatter(fault=only(call, 1, hang)), timeout=0.3)
    outcome = world.collect(SAMPLER, 0)
    over.set()
    assert outcome.metrics["episodes/failed"] == (0 if call == "close" else 2)
    assert outcome.x.group_of_trajectory.size().tolist() == ([4, 4, 4] if call == "close" else [4, 2, 4])
    assert world._stage.watch.abandoned == 2


def test_rewards_of_numpy_are_rewards(make_world, chatter):
    task = chatter(fault=only("step", 1, returning(Step(SEEN, np.float32(0.5), done=True, success=np.bool_(True)))))
    outcome = make_world(task).collect(SAMPLER, 0)
    assert outcome.metrics["episodes/failed"] == 0
    assert outcome.x.reward[4:8].tolist() == [[0.5]] * 4


# ---- groups ---------------------------------------------------------------------------------------------------------


def every_nth(nth: int, call: str = "step") -> Any:
    """Every so many calls raise, whichever episode they belong to."""
    count = [0]

    def fault(called: str, index: int, turn: int) -> None:
        if called == call and index >= 0:
            count[0] += 1
            if count[0] % nth == 0:
                raise OSError("connection lost")

    return fault


def test_failed_episodes_are_replaced_by_others_of_the_same_start_state(make_world, chatter):
    world = make_world(chatter(turns=1, fault=every_nth(5)))
    outcome = world.collect(Rollouts(prompts_per_step=3, group_size=4, refill_rounds=2), 0)
    # Of 12 episodes 2 fail, of the 2 that replace them none: steps 5 and 10 of 14.
    assert outcome.metrics["episodes/failed"] == 2 and outcome.metrics["episodes"] == 14
    assert outcome.x.group_of_trajectory.size().tolist() == [4, 4, 4]
    assert outcome.x.task_id.tolist() == [0, 1, 2]
    assert len(outcome.x.episode.unique()) == 12


def test_a_start_state_that_never_works_is_given_up_and_replaced_by_another(make_world, chatter):
    task = chatter(fault=only("reset", 1, raising))
    outcome = make_world(task).collect(Rollouts(prompts_per_step=3, group_size=4, refill_rounds=1), 0)
    assert outcome.x.task_id.tolist() == [0, 2, 3]
    assert outcome.metrics["episodes/failed"] == 8
    assert sum(call == "reset" and index == 1 for call, index, _ in task.calls) == 8


def test_what_is_lost_beyond_the_limit_leaves_a_smaller_group_that_learns_all_the_same(
    make_trainer, make_world, chatter, small
):
    count = [0]

    def twice_in_group_one(called: str, index: int, turn: int) -> None:
        if called == "step" and index == 1:
            count[0] += 1
            if count[0] <= 2:
                raise OSError("connection lost")

    world = make_world(chatter(turns=1, fault=twice_in_group_one))
    trainer = make_trainer(small("grpo", sampler__refill_rounds=0), world=world, steps=1)
    trainer.run()
    [row] = trainer.run_directory.rows("metrics.jsonl")
    assert (row["episodes/failed"], row["batch/trajectories"], row["batch/dropped_trajectories"]) == (2, 10, 0)
    assert row["optimizer_steps"] == 1


def test_the_one_episode_left_of_a_group_is_dropped_and_counted(make_trainer, make_world, chatter, small):
    count = [0]

    def all_but_one(called: str, index: int, turn: int) -> None:
        if called == "step" and index == 1:
            count[0] += 1
            if count[0] <= 3:
                raise OSError("connection lost")

    world = make_world(chatter(turns=1, fault=all_but_one))
    trainer = make_trainer(small("grpo", sampler__refill_rounds=0), world=world, steps=1)
    trainer.run()
    [row] = trainer.run_directory.rows("metrics.jsonl")
    assert (row["batch/trajectories"], row["batch/dropped_trajectories"]) == (8, 1)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_when_all_episodes_of_a_batch_are_lost(make_trainer, make_world, chatter, small):
    def fault(called: str, index: int, turn: int) -> None:
        if called == "step" and 0 <= index < 6:
            raise OSError("connection lost")

    world = make_world(chatter(fault=fault))
    trainer = make_trainer(small("grpo"), world=world)
    with pytest.warns(UserWarning, match="step 1: no episode was of use"):
        trainer.run()
    first, second = trainer.run_directory.rows("metrics.jsonl")
    # Two rounds of three start states with four episodes each, all of them played twice.
    assert (first["batch/skipped"], first["episodes/failed"], first["optimizer_steps"]) == (1, 48, 0)
    assert (second["batch/skipped"], second["episodes/failed"], second["optimizer_steps"]) == (0, 0, 1)
    assert trainer.run_directory.rows("samples.jsonl")[0]["failure"] == "step: OSError: connection lost"


def test_failed_episodes_of_an_evaluation_are_counted_and_left_out(make_world, chatter):
    outcome = make_world(chatter(fault=only("step", -2, raising))).evaluate(5, "greedy")
    assert (outcome.episodes, outcome.failed) == (4, 1)


@pytest.mark.parametrize("call", ["reset", "step", "close"])
def test_demonstrations_that_fail_are_left_out(make_world, chatter, call):
    outcome = make_world(chatter(fault=only(call, 1, raising))).collect(Demonstrations(prompts_per_step=3), 0)
    kept = 3 if call == "close" else 2
    assert outcome.x.groups == kept and outcome.metrics["episodes/failed"] == 3 - kept


def test_a_demonstration_with_a_reward_that_is_no_number_is_left_out(make_world, chatter):
    task = chatter(fault=only("step", 0, returning(Step(SEEN, math.nan))))
    outcome = make_world(task).collect(Demonstrations(prompts_per_step=3), 0)
    assert outcome.x.task_id.tolist() == [1, 2]


def test_an_episode_of_a_resumed_run_fails_as_it_did(make_trainer, make_world, chatter, small):
    """A fault that depends on the episode alone is met again, and counted the same."""

    def fault(called: str, index: int, turn: int) -> None:
        if called == "step" and state_key("unlucky", index, turn) % 3 == 0:
            raise OSError("connection lost")

    def trainer(name: str, steps: int) -> Any:
        return make_trainer(small("grpo"), name, make_world(chatter(fault=fault)), steps=steps, checkpoint_every=1)

    unbroken = trainer("unbroken", 3)
    unbroken.run()
    trainer("broken", 1).run()
    resumed = trainer("broken", 3)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    failed = [[row["episodes/failed"] for row in t.run_directory.rows("metrics.jsonl")] for t in (unbroken, resumed)]
    assert failed[0] == failed[1] and min(failed[0]) > 0


# ---- disks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["OSError", "SafetensorError"])
def test_a_full_disk_breaks_the_run_and_names_the_checkpoint_that_is_left(make_trainer, small, monkeypatch, kind):
    from safetensors import SafetensorError

    trainer = make_trainer(small("grpo"), steps=3, checkpoint_every=1)
    trainer.step()
    trainer.checkpoint()
    weights = {name: value.clone() for name, value in trainer.policy.state_dict().items()}
    full = {
        "OSError": OSError(errno.ENOSPC, "No space left on device"),
        "SafetensorError": SafetensorError("I/O error: No space left on device (os error 28)"),
    }[kind]

    def save_file(tensors: Any, path: Any) -> None:
        path.write_bytes(b"half a ")
        raise full

    monkeypatch.setattr(run_directory, "save_file", save_file)
    with pytest.raises(BrokenRunError) as caught:
        trainer.run()
    assert "checkpoint step-2 could not be written" in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert f"the last complete checkpoint is {trainer.run_directory.path / 'checkpoints' / 'step-1'}" in str(
        caught.value
    )
    monkeypatch.undo()
    [left] = (trainer.run_directory.path / "checkpoints").iterdir()
    assert left.name == "step-1"
    for name, value in trainer.run_directory.load().tensors["policy"].items():
        assert torch.equal(value, weights[name])


def test_a_disk_that_is_full_from_the_start_says_that_there_is_no_checkpoint(make_trainer, small, monkeypatch):
    trainer = make_trainer(small("grpo"), steps=1, checkpoint_every=1)

    def save_file(tensors: Any, path: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_directory, "save_file", save_file)
    with pytest.raises(BrokenRunError, match="there is no checkpoint yet"):
        trainer.run()


def test_a_model_that_cannot_be_written_leaves_the_one_before(make_trainer, small, monkeypatch):
    trainer = make_trainer(small("grpo"), steps=1)
    trainer.run()
    before = (trainer.run_directory.path / "model" / "model.safetensors").read_bytes()

    def save(directory: Any, card: str) -> None:
        (directory / "model.safetensors").write_bytes(b"half a ")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer.policy, "save", save)
    with pytest.raises(BrokenRunError, match=r"the model could not be written \(No space left on device\)"):
        trainer._save_model({})
    assert (trainer.run_directory.path / "model" / "model.safetensors").read_bytes() == before


def test_a_run_in_which_every_episode_is_lost_waits_saves_stops_and_says_so(
    make_trainer, make_world, chatter, small, monkeypatch
):
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(
        loop, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0], perf_counter=lambda: now[0])
    )

    def fault(called: str, index: int, turn: int) -> None:
        if called == "step" and index >= 6:
            raise OSError("connection lost")

    trainer = make_trainer(small("grpo"), world=make_world(chatter(fault=fault)), steps=50)
    with (
        pytest.warns(UserWarning, match="no episode was of use"),
        pytest.raises(BrokenRunError, match=r"no episode of 3 batches in a row .*samples\.jsonl"),
    ):
        trainer.run()
    # Two batches of three start states were good.
    assert trainer.run_directory.load().state["step"] == 5
    assert sum(waited) == pytest.approx(sum(loop.WAITS)), "a second after the first lost batch, ten after the next"


def test_a_run_that_waits_for_a_service_stops_when_asked(make_trainer, make_world, chatter, small):
    def fault(called: str, index: int, turn: int) -> None:
        if called == "step":
            raise OSError("connection lost")

    trainer = make_trainer(small("grpo"), world=make_world(chatter(fault=fault)), steps=50)
    began = time.monotonic()
    threading.Timer(0.5, trainer.stop).start()
    with pytest.warns(UserWarning, match="no episode was of use"), pytest.raises(loop.Interrupted):
        trainer.run()
    assert trainer.run_directory.load().state["step"] <= 2
    assert time.monotonic() - began < sum(loop.WAITS)


# ---- reward parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spoiled(Reward):
    """A reward that does not work for start state 1: it raises, or makes the group's first return NaN."""

    raises: bool = False
    hopeless: bool = False

    def __call__(self, x):
        bad = x.task_id == 1
        if self.hopeless or (self.raises and bool(bad.any())):
            raise ZeroDivisionError("no reference")
        reward = x.reward.clone()
        reward[x.group_of_trajectory.first()[bad]] = math.nan
        return x.replace(reward=reward)


def test_a_reward_part_that_raises_on_a_group_costs_that_group(make_trainer, small):
    trainer = make_trainer(small("grpo").replace(rewards=(_Spoiled(raises=True),)), steps=1)
    with pytest.warns(UserWarning, match="a reward part raised ZeroDivisionError: no reference"):
        trainer.run()
    [row] = trainer.run_directory.rows("metrics.jsonl")
    assert (row["batch/trajectories"], row["batch/dropped_trajectories"], row["optimizer_steps"]) == (8, 4, 1)


def test_a_return_that_a_reward_part_makes_nan_costs_that_trajectory(make_trainer, small):
    trainer = make_trainer(small("grpo").replace(rewards=(_Spoiled(),)), steps=1)
    trainer.run()
    [row] = trainer.run_directory.rows("metrics.jsonl")
    assert (row["batch/trajectories"], row["batch/dropped_trajectories"], row["optimizer_steps"]) == (11, 1, 1)


def test_a_reward_part_that_never_works_ends_the_run_with_its_own_error(make_trainer, small):
    trainer = make_trainer(small("grpo").replace(rewards=(_Spoiled(hopeless=True),)), steps=1)
    with pytest.warns(UserWarning), pytest.raises(ZeroDivisionError, match="no reference"):
        trainer.run()
