"""Batches collected ahead: never older than allowed, in their order, each episode once, however threads are timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.sampling import Improving, Rollouts
from stratagem.schedules import FrontGain, LinearRamp
from stratagem.tasks import registry
from stratagem.training.ledger import PER_GROUP, audit_run
from stratagem.training.loop import Interrupted, Trainer
from stratagem.training.pipeline import Pipelined
from stratagem.training.world import PROBED, Collected, Evaluation

MEASURED = ("timing/", "memory/", "pipeline/", "prefill/")
SAMPLER = Rollouts(prompts_per_step=2, group_size=2)


def rows(trainer: Any, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Logged rows without what a clock or the memory of the process said."""
    logged = trainer.run_directory.rows(name)
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in logged]


class Turns:
    """A world whose episodes take as many turns as their number says, each of the weights served at that time."""

    task_name = "turns"
    policy: Any = None

    def __init__(self, delays: Sequence[float] = (0.0,), fails: Callable[[int], bool] = lambda step: False) -> None:
        self.delays, self.fails = cycle(delays), fails
        self.version, self.next = -1, 0
        self.begun: list[int] = []
        self.at_once = self.most_at_once = 0
        self.interrupted = threading.Event()
        self.closed = False

    def adapt(self, recipe: Any) -> Any:
        return recipe

    def serve(self, version: int) -> None:
        self.version = version

    def collect(self, sampler: Any, step: int) -> Collected:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.begun.append(step)
        groups = range(self.next, self.next + sampler.prompts_per_step)
        self.next += sampler.prompts_per_step
        versions: list[int] = []
        lengths = [1 + group % 3 for group in groups]
        for _ in range(sum(lengths)):
            if self.interrupted.wait(next(self.delays)):
                raise BrokenRunError("given up")
            versions.append(self.version)
        self.at_once -= 1
        if self.fails(step):
            raise RuntimeError(f"the simulator of batch {step} is down")
        numbers = [group * PER_GROUP for group in groups]
        x = Experience.from_lengths(
            [1] * len(versions),
            lengths,
            [1] * len(lengths),
            version=torch.tensor(versions),
            episode=torch.tensor(numbers),
            task_id=torch.tensor(groups),
        )
        return Collected(x, len(versions), {"reward": float(step)}, [{"step": step}], numbers)

    def evaluate(self, episodes: int, mode: Any, first: int = 0) -> Evaluation:
        assert self.at_once == 0
        return Evaluation(mode, episodes, None, (0.0, 0.0), float(self.version), 0.0, 1.0)

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {}, {"next": self.next}

    def load_state_dict(self, tensors: Any, plain: Any) -> None:
        self.next = plain["next"]

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pipelined() -> Iterator[Callable[..., Pipelined]]:
    """``pipelined(world, staleness)``; closed when the test ends."""
    made: list[Pipelined] = []

    def make(world: Any, staleness: int, **options: Any) -> Pipelined:
        made.append(Pipelined(world, staleness, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


def until(what: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


# ---- order, age and back-pressure -----------------------------------------------------------------------------------

DELAYS = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004]), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), DELAYS, DELAYS)
def test_no_token_is_older_than_allowed_and_batches_come_whole_and_in_order(staleness, batches, rolls, learns):
    world = Turns(rolls)
    pipeline = Pipelined(world, staleness, batches)
    try:
        for step, pause in zip(range(batches), cycle(learns)):
            pipeline.serve(step)
            collected = pipeline.collect(SAMPLER, step)
            assert collected.metrics["reward"] == step and collected.samples == [{"step": step}]
            # Whole groups, as they were planned: the long ones too.
            assert collected.x.task_id.tolist() == [2 * step, 2 * step + 1]
            assert collected.x.trajectory_of_turn.size().tolist() == [1 + 2 * step % 3, 1 + (2 * step + 1) % 3]
            age = step - collected.x.version
            assert int(age.min()) >= 0 and int(age.max()) <= staleness
            assert collected.metrics["pipeline/staleness_max"] == int(age.max())
            assert collected.metrics["pipeline/staleness"] == pytest.approx(float(age.double().mean()))
            assert len(world.begun) <= step + 1 + staleness
            time.sleep(pause)
    finally:
        pipeline.close()
    assert world.begun == list(range(batches)) and world.most_at_once == 1


def test_collecting_waits_while_the_learner_is_behind(pipelined):
    world = Turns()
    pipeline = pipelined(world, 2)
    pipeline.serve(0)
    pipeline.collect(SAMPLER, 0)
    until(lambda: len(world.begun) == 3)
    time.sleep(0.05)
    assert world.begun == [0, 1, 2]
    pipeline.serve(1)
    second = pipeline.collect(SAMPLER, 1)
    until(lambda: world.begun == [0, 1, 2, 3])
    assert second.metrics["pipeline/waiting"] == 2 and second.metrics["pipeline/staleness"] == 1
    assert second.metrics["timing/idle_rollouts"] >= 0.04 and second.metrics["timing/idle_learner"] < 10
    assert second.metrics["pipeline/utilization_rollouts"] < 0.9


def test_weights_served_within_a_batch_act_from_the_next_turn_on(pipelined):
    world = Turns()
    pipeline = pipelined(world, 1)
    pipeline.serve(0)
    pipeline.collect(Rollouts(prompts_per_step=30, group_size=1), 0)
    until(lambda: len(world.begun) == 2)
    world.delays = cycle([0.002])
    pipeline.serve(1)
    second = pipeline.collect(SAMPLER, 1)
    assert second.metrics["pipeline/staleness_max"] <= 1
    pipeline.serve(2)
    third = pipeline.collect(SAMPLER, 2)
    assert set(third.x.version.tolist()) <= {1, 2}


def test_no_batch_beyond_the_last_one_is_begun_unless_it_is_asked_for(pipelined):
    world = Turns()
    pipeline = pipelined(world, 4, batches=2)
    pipeline.collect(SAMPLER, 0)
    pipeline.collect(SAMPLER, 1)
    time.sleep(0.05)
    assert world.begun == [0, 1]
    assert pipeline.collect(SAMPLER, 2).metrics["reward"] == 2


def test_batches_that_are_measured_and_evaluations_wait_and_nothing_is_collected_meanwhile(pipelined):
    world = Turns([0.002])
    pipeline = pipelined(world, 3)
    pipeline.serve(0)
    for step in range(4):
        pipeline.collect(SAMPLER, step)
        pipeline.serve(step + 1)
        assert pipeline.evaluate(3, "greedy").mean_return == step + 1
        measured = pipeline.collect(SAMPLER, PROBED + step)
        assert set(measured.x.version.tolist()) == {step + 1} and "pipeline/staleness" not in measured.metrics
    assert world.most_at_once == 1
    seen = [step for step in world.begun if step < PROBED]
    assert seen == list(range(len(seen)))


def test_what_breaks_in_the_thread_is_raised_where_its_batch_is_asked_for(pipelined):
    world = Turns(fails=lambda step: step == 2)
    pipeline = pipelined(world, 4)
    assert [pipeline.collect(SAMPLER, step).metrics["reward"] for step in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the simulator of batch 2 is down"):
            pipeline.collect(SAMPLER, 2)
    assert world.begun == [0, 1, 2]
    assert pipeline.evaluate(1, "greedy").episodes == 1


def test_closing_ends_what_is_being_collected_and_whoever_waits_for_it(pipelined):
    world = Turns([0.0] * 9 + [600.0])
    pipeline = pipelined(world, 1)
    waiting: list[BaseException] = []

    def learn() -> None:
        try:
            for step in range(9):
                pipeline.collect(SAMPLER, step)
        except BrokenRunError as error:
            waiting.append(error)

    learner = threading.Thread(target=learn)
    learner.start()
    until(lambda: len(world.begun) == 3)
    pipeline.close()
    learner.join(20)
    assert not learner.is_alive() and world.closed
    assert "the pipeline is closed" in str(waiting[0])


def test_a_staleness_below_zero_is_refused():
    with pytest.raises(InputError, match="staleness = -1: must be at least 0"):
        Pipelined(Turns(), -1)


def test_a_recipe_that_takes_stale_tokens_for_fresh_ones_is_warned_of(pipelined, small, recwarn):
    assert pipelined(Turns(), 0).adapt(small("grpo")).name == "grpo"
    assert pipelined(Turns(), 2).adapt(small("decoupled_ppo")).name == "decoupled_ppo"
    assert not recwarn
    with pytest.warns(UserWarning, match="recipe grpo does not look at behavior_logp: with staleness = 2"):
        pipelined(Turns(), 2).adapt(small("grpo"))


# ---- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
def test_batches_that_wait_are_in_the_state_and_those_in_flight_are_collected_again(pipelined, after):
    world = Turns()
    pipeline = pipelined(world, 2)
    pipeline.collect(SAMPLER, 0)
    until(lambda: len(pipeline._waiting) == 2)
    world.delays = cycle([0.05])
    seen = [0, pipeline.collect(SAMPLER, 1).x.task_id[0].item() // 2]
    until(lambda: len(world.begun) == 4)
    tensors, plain = pipeline.state_dict()
    assert len(plain["pipeline"]["waiting"]) == 1 and plain["pipeline"]["world"] == {"next": 6}
    fresh = Turns()
    resumed = pipelined(fresh, after)
    resumed.load_state_dict(tensors, plain)
    for step in range(2, 6):
        collected = resumed.collect(SAMPLER, step)
        assert collected.begun == [group * PER_GROUP for group in (2 * step, 2 * step + 1)]
        seen.append(int(collected.x.task_id[0]) // 2)
    assert seen == list(range(6))
    assert fresh.begun[:3] == [3, 4, 5]


def test_a_state_of_a_pipeline_is_refused_by_a_world_without_one(pipelined):
    pipeline = pipelined(Turns(), 2)
    pipeline.collect(SAMPLER, 0)
    with pytest.raises(KeyError):
        Turns().load_state_dict(*pipeline.state_dict())
    with pytest.raises(ValueError, match="has begun"):
        pipeline.load_state_dict({}, {"next": 0})


# ---- with a language policy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_without_staleness_all_numbers_are_those_of_the_plain_world(make_trainer, make_world, pipelined, small, name):
    plain = make_trainer(small(name), "plain", steps=3, evaluation_episodes=2)
    plain.run()
    through = make_trainer(small(name), "through", pipelined(make_world(), 0), steps=3, evaluation_episodes=2)
    through.run()
    for file in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl", "episodes.jsonl"):
        ours, theirs = (trainer.run_directory.rows(file) for trainer in (through, plain))
        assert [row.keys() for row in ours] == [row.keys() for row in theirs]
        assert rows(through, file) == rows(plain, file)
    first, second = (trainer.run_directory.load() for trainer in (through, plain))
    assert first.state["world"] == second.state["world"]
    assert all(torch.equal(v, second.tensors["policy"][name]) for name, v in first.tensors["policy"].items())


@pytest.mark.parametrize("staleness", [1, 3])
def test_every_episode_of_a_run_ahead_is_learned_from_once(make_trainer, make_world, pipelined, small, staleness):
    world = pipelined(make_world(), staleness, batches=6)
    recipe = small("dapo", optimization__learning_rate=1e-3)
    trainer = make_trainer(recipe, world=world, steps=6, evaluate_every=3, evaluation_episodes=2)
    trainer.run()
    found = audit_run(trainer.run_directory)
    assert found.proved and found.steps == 6, found
    logged = trainer.run_directory.rows("metrics.jsonl")
    assert found.begun == sum(row["episodes"] for row in logged)
    for row in logged:
        assert row["pipeline/staleness_max"] <= staleness
        assert 0 <= row["pipeline/utilization_learner"] <= 1 and 0 <= row["pipeline/utilization_rollouts"] <= 1
    assert logged[-1]["pipeline/staleness_max"] >= 1


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 0), (0, 2)])
def test_a_run_resumed_with_another_staleness_loses_and_repeats_nothing(
    make_trainer, make_world, pipelined, small, before, after
):
    recipe = small("grpo", **{"optimization__epochs": 2, "optimization__minibatches": 2})
    first = make_trainer(recipe, world=pipelined(make_world(), before, batches=8), steps=8)
    for _ in range(3):
        first.step()
    first.stop()
    with pytest.raises(Interrupted):
        first.step()
    first.world.close()
    resumed = Trainer(recipe, pipelined(make_world(), after, batches=8), first.run_directory, first.settings)
    resumed.resume(first.run_directory.load())
    resumed.run()
    found = audit_run(first.run_directory)
    assert found.proved and found.steps == 8 and found.learned == 8 * 12 - found.left_out.get("skipped", 0), found
    assert [row["step"] for row in rows(resumed)] == list(range(1, 9))


def test_what_a_sampler_remembers_is_up_to_date_with_the_batch_that_was_taken(make_world, make_policy, pipelined):
    """Histories that later groups begin behind are those of batches that were collected, wherever the learner is."""
    task = registry.make("improve:calculator:max_turns=1")
    sampler = Improving(prompts_per_step=3, group_size=3, priority="none")
    world = pipelined(make_world(task, policy=make_policy(context=2048)), 2, batches=4)
    starts: list[int] = []
    for step in range(3):
        world.serve(step)
        starts += world.collect(sampler, step).x.task_id.tolist()
        # The newest history is of the batch that was taken, not of one that was collected ahead.
        assert max(one.step for one in sampler.histories) == step
    until(lambda: len(world._waiting) == 1)
    tensors, plain = world.state_dict()
    assert int(tensors["memory.next"]) > int(sampler.memory()["next"])
    assert min(starts) < 0
    again = pipelined(make_world(task, policy=world.policy), 0)
    again.load_state_dict(tensors, plain)
    again.collect(sampler, 3)
    assert torch.equal(sampler.memory()["next"], tensors["memory.next"])


def test_schedules_reach_batches_that_are_begun_later(make_trainer, make_world, pipelined, small):
    ramp = LinearRamp("sampler.temperature", 1.0, 0.1, 2)
    world = pipelined(make_world(), 2)
    given: list[float] = []
    collect = world.world.collect
    world.world.collect = lambda sampler, step: given.append(sampler.temperature) or collect(sampler, step)
    trainer = make_trainer(small("grpo").replace(schedules=(ramp,)), world=world, steps=5)
    trainer.run()
    world.close()
    # Batches 0 to 2 may begin at once, batch 4 with what was given for batch 2.
    assert given[0] == 1.0 and given[4] < 0.56
    assert given == sorted(given, reverse=True)


def test_measured_batches_are_in_the_ledger(make_trainer, make_world, chatter, pipelined, small):
    front = FrontGain(sampler=Rollouts(prompts_per_step=2, group_size=2), knob="optimization.max_grad_norm")
    world = pipelined(make_world(chatter(reward_names=("reward", "other"))), 2, batches=4)
    trainer = make_trainer(small("grpo").replace(schedules=(front,)), world=world, steps=4)
    trainer.run()
    found = audit_run(trainer.run_directory)
    assert found.proved and found.left_out["measured"] > 0, found


@pytest.mark.slow
def test_a_policy_learns_from_batches_two_steps_old(make_trainer, make_world, pipelined):
    policy = LanguagePolicy.from_path(tiny_model_path(), dtype="float32")
    world = pipelined(make_world(registry.make("key_door"), policy=policy), 2, batches=10)
    recipe = catalogue.card("grpo").recipe().with_values({"optimization.learning_rate": 2e-4})
    trainer = make_trainer(recipe, world=world, steps=10)
    trainer.run()
    logged = trainer.run_directory.rows("metrics.jsonl")
    success = [row["success"] for row in logged]
    assert sum(success[-4:]) / 4 > sum(success[:3]) / 3 + 0.1, success
    assert max(row["pipeline/staleness_max"] for row in logged) == 2
    assert audit_run(trainer.run_directory).proved
