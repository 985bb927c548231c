"""Environments in workers: the same episodes as in this process, whatever becomes of the workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stratagem.cluster.environment_host import Origin
from stratagem.cluster.environments import RemoteTask, around, remote
from stratagem.errors import BrokenRunError, InputError
from stratagem.sampling import Demonstrations, Rollouts, Windows
from stratagem.skills import Skill, SkillBank, Skilled
from stratagem.tasks import registry
from stratagem.tasks.mixture import Mixture, domain_of, owner
from stratagem.tasks.task import Task
from stratagem.watched import CallFailed, Outcome, Watch

NEAR: dict[str, list[Any]] = {}
"""What was collected without workers, by specification."""


# ---- the same episodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["key_door:max_turns=8", "sokoban:max_turns=6", "calculator", "structured:key_door:max_turns=8"]
)
def test_episodes_are_those_of_this_process(in_workers, agree, batches, spec):
    task = registry.make(spec)
    far, pool, fakes = in_workers(task)
    agree(batches(far, threads=8), batches(task))
    assert pool.counters.restarts == pool.counters.replayed == 0
    assert sorted(fakes.started) == [0, 1] and all(fakes.asked.values())
    assert not any(worker.host._environments for worker in fakes.living)
    assert all(seconds > 0 for seconds in pool.busy) and pool.metrics()["environments/utilization"] > 0


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    spec=st.sampled_from(["key_door:max_turns=8", "sokoban:max_turns=6"]),
    gaps=st.lists(st.integers(2, 9), min_size=1, max_size=12),
    workers=st.integers(1, 3),
    threads=st.sampled_from([1, 3, 16]),
)
def test_workers_that_die_at_any_time_change_no_episode(in_workers, agree, batches, spec, gaps, workers, threads):
    deaths = set(accumulate(gaps))
    task = registry.make(spec)
    far, pool, fakes = in_workers(task, workers=workers, dies=lambda number, asked: asked in deaths)
    if spec not in NEAR:
        NEAR[spec] = batches(task)
    agree(batches(far, threads=threads), NEAR[spec])
    died = sum(asked > death for asked in fakes.asked.values() for death in deaths)
    assert pool.counters.restarts == died > 0
    assert pool.counters.deadly == pool.counters.nondeterministic == pool.counters.given_up == 0
    assert not any(worker.host._environments for worker in fakes.living)


def test_when_a_worker_starts_no_more_the_others_take_over(in_workers, agree, batches):
    task = registry.make("key_door:max_turns=8")
    far, pool, fakes = in_workers(task, dies=lambda number, asked: number == 1 and asked == 5, most_restarts=2)
    fakes.refuses = lambda number: True
    agree(batches(far, threads=4), batches(task))
    assert (pool.counters.given_up, pool.counters.restarts, fakes.started[1]) == (1, 0, 3)
    assert pool.counters.replayed > 0 and len(fakes.living) == 1


def test_without_a_worker_left_the_run_breaks(in_workers, batches):
    far, pool, fakes = in_workers(registry.make("key_door:max_turns=8"), dies=lambda number, asked: asked == 4)
    fakes.refuses = lambda number: True
    with pytest.raises(BrokenRunError, match="no environment worker is left: OSError: no such node"):
        batches(far, threads=4)
    assert pool.counters.given_up == 2 and not fakes.living
    with pytest.raises(BrokenRunError, match="no environment worker is left"):
        batches(far, sampler=Demonstrations(prompts_per_step=1))


def test_demonstrations_and_windows_are_played_there_too(in_workers, agree, batches):
    task = registry.make("key_door:max_turns=12")
    far, pool, _ = in_workers(task, dies=lambda number, asked: asked in (3, 9))
    for sampler in (Demonstrations(prompts_per_step=3), Windows(prompts_per_step=3, tokens=8)):
        agree(batches(far, sampler, threads=4), batches(task, sampler))
    assert pool.counters.replayed_steps > 0


# ---- faults of environments -----------------------------------------------------------------------------------------


def test_an_environment_that_remembers_other_things_than_it_was_told_is_found_out(in_workers, batches, chatter):
    made: list[int] = []

    class Fickle(chatter):
        def environment(self, split: Any, index: int) -> Any:
            made.append(index)
            return super().environment(split, index + 1000 * made.count(index))

    far, pool, _ = in_workers(Fickle(turns=6), workers=1, dies=lambda number, asked: asked == 6)
    sampler = Rollouts(prompts_per_step=3, group_size=1, refill_rounds=0)
    world_batches = batches(far, sampler, threads=3)
    assert pool.counters.nondeterministic >= 1
    assert sum(batch.metrics["episodes/failed"] for batch in world_batches) == pool.counters.nondeterministic


def test_what_differed_is_said(in_workers, chatter):
    made: list[int] = []

    class Fickle(chatter):
        def environment(self, split: Any, index: int) -> Any:
            made.append(index)
            return super().environment(split, index + 5 * len(made))

    far, pool, _ = in_workers(Fickle(), workers=1, dies=lambda number, asked: asked == 1)
    environment = far.environment("train", 0)
    environment.reset()
    with pytest.raises(CallFailed, match=r"the environment is not deterministic: .* otherwise at its reset: .* became"):
        environment.step("hello")
    environment.close()
    assert pool.counters.nondeterministic == 1


def test_an_environment_that_raises_fails_its_episode_with_the_same_words(in_workers, agree, batches, chatter):
    class Unpicklable(Exception):
        def __init__(self, words: str) -> None:
            super().__init__(words)
            self.lock = threading.Lock()

    def fault(call: str, index: int, turn: int) -> Any:
        if (call, index % 3, turn) == ("step", 1, 1):
            raise Unpicklable("the verifier is down")
        if (call, index % 3) == ("reset", 2):
            raise OSError("gone")
        if call == "close":
            raise ValueError("already closed")

    task = chatter(fault=fault)
    near = batches(task)
    far, pool, _ = in_workers(chatter(fault=fault))
    there = batches(far, threads=5)
    agree(there, near)
    assert near[0].metrics["episodes/failed"] > 0
    failures = [sample["failure"] for batch in there for sample in batch.samples]
    assert failures == [sample["failure"] for batch in near for sample in batch.samples]
    assert pool.counters.restarts == 0


def test_the_words_of_a_failure_reach_the_episode(in_workers, chatter):
    def fault(call: str, index: int, turn: int) -> Any:
        if call == "step":
            raise ValueError("boom")

    far, _, _ = in_workers(chatter(fault=fault))
    environment = far.environment("train", 0)
    environment.reset()
    watch = Watch(5.0)
    assert watch.run([lambda: environment.step("hello")]) == [Outcome(failure="ValueError: boom")]
    watch.close()
    environment.close()


def test_a_value_that_cannot_be_sent_is_the_failure_of_its_call(in_workers, chatter):
    far, _, _ = in_workers(chatter(fault=lambda call, index, turn: (lambda: 0) if call == "step" else None))
    environment, other = far.environment("train", 0), far.environment("train", 1)
    environment.reset()
    with pytest.raises(CallFailed, match=r"pickle|local object"):
        environment.step("hello")
    assert other.reset().text == "topic 1"
    for one in (environment, other):
        one.close()


def test_a_reward_service_that_is_down_for_a_while_costs_attempts_and_nothing_else(in_workers, batches, chatter):
    down = [True] * 4

    def fault(call: str, index: int, turn: int) -> Any:
        if call == "step" and down:
            down.pop()
            raise ConnectionError("no reward")

    far, pool, _ = in_workers(chatter(fault=fault))
    first, second = batches(far, Rollouts(prompts_per_step=3, group_size=4, refill_rounds=2), threads=6)
    assert first.metrics["episodes/failed"] == 4 and second.metrics["episodes/failed"] == 0
    assert first.x.trajectories == second.x.trajectories == 12
    assert pool.counters.restarts == 0


@pytest.fixture
def hang() -> Iterator[Callable[[], None]]:
    """A call that comes back only when the test is over."""
    over = threading.Event()
    yield lambda: over.wait(20)
    over.set()


def test_a_hung_environment_fails_its_episode_as_here_and_its_worker_is_started_again(
    in_workers, agree, batches, chatter, hang
):
    def fault(call: str, index: int, turn: int) -> Any:
        if (call, index, turn) == ("step", 1, 2):
            hang()

    sampler = Rollouts(prompts_per_step=3, group_size=1, refill_rounds=0)
    near = batches(chatter(turns=4, fault=fault), sampler, timeout=0.5)
    far, pool, fakes = in_workers(chatter(turns=4, fault=fault), timeout=0.5)
    # The time-out of the world does not count for environments in workers.
    there = batches(far, sampler, timeout=0.01, threads=3)
    agree(there, near)
    assert pool.counters.hung == pool.counters.restarts == 1 and near[0].metrics["episodes/failed"] == 1
    assert pool.counters.replayed >= pool.counters.nondeterministic == 0
    assert len(fakes.living) == 2


def test_a_hung_call_is_a_hung_outcome_and_costs_the_watch_no_thread(in_workers, chatter, hang):
    task = chatter(fault=lambda call, index, turn: hang() if (call, index) == ("step", 0) else None)
    far, _, _ = in_workers(task, timeout=0.3)
    watch = Watch(0.05, threads=2)
    environment, other = far.environment("train", 0), far.environment("train", 1)
    assert all(outcome.value is not None for outcome in watch.run([environment.reset, other.reset]))
    outcomes = watch.run([lambda: environment.step("hello"), lambda: other.step("hello")])
    assert outcomes[0] == Outcome(failure="no answer within 0.3 s", hung=True)
    assert outcomes[1].value is not None and watch.abandoned == 0
    with pytest.raises(CallFailed, match="closed, or hung"):
        environment.step("again")
    environment.close()
    other.close()
    watch.close()


def test_a_call_of_which_its_worker_dies_fails_its_own_episode(in_workers, chatter):
    far, pool, fakes = in_workers(chatter(turns=9), workers=1, dies=lambda number, asked: deadly())

    def deadly() -> bool:
        return any(call.action == "segfault" for call in fakes.batches[-1])

    environments = [far.environment("train", index) for index in range(4)]
    watch = Watch(5.0, threads=4)
    watch.run([environment.reset for environment in environments])
    said = ["hello", "segfault", "hello", "hello"]
    outcomes = watch.run([lambda e=e, s=s: e.step(s) for e, s in zip(environments, said, strict=True)])
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True, True]
    assert outcomes[1].failure.startswith("its worker died of it: killed")
    assert (pool.counters.deadly, pool.counters.given_up) == (1, 0)
    watch.run([environment.close for environment in environments])
    watch.close()


def test_a_worker_that_does_not_move_is_given_up_with_the_call_it_hangs_in(in_workers, chatter):
    from stratagem.cluster.environment_host import WorkerLost

    far, _, fakes = in_workers(chatter(turns=9), workers=1, timeout=0.5)

    def stuck(number: int, asked: int) -> bool:
        if any(call.action == "stop the world" for call in fakes.batches[-1]):
            raise WorkerLost("it does not move", hung=True)
        return False

    fakes.dies = stuck
    environments = [far.environment("train", index) for index in range(3)]
    watch = Watch(5.0, threads=3)
    watch.run([environment.reset for environment in environments])
    said = ["hello", "stop the world", "hello"]
    outcomes = watch.run([lambda e=e, s=s: e.step(s) for e, s in zip(environments, said, strict=True)])
    assert outcomes[1] == Outcome(failure="no answer within 0.5 s", hung=True)
    assert outcomes[0].value is not None and outcomes[2].value is not None
    watch.run([environments[0].close, environments[2].close])
    watch.close()


# ---- closing --------------------------------------------------------------------------------------------------------


def test_environments_are_closed_exactly_once(in_workers, batches, chatter):
    def fault(call: str, index: int, turn: int) -> Any:
        if (call, index) == ("step", 1):
            raise OSError("gone")

    task = chatter(fault=fault)
    far, _, _ = in_workers(task)
    batches(far, Rollouts(prompts_per_step=3, group_size=2, refill_rounds=1), threads=4)
    called = [call for call, _, _ in task.calls]
    assert called.count("close") == called.count("reset") > 12
    environment = far.environment("train", 0)
    environment.reset()
    environment.close()
    environment.close()
    far.environment("train", 0).close()
    assert [call for call, _, _ in task.calls].count("close") == called.count("close") + 1


def test_an_environment_lost_with_its_worker_is_not_made_again_to_be_closed(in_workers, chatter):
    task = chatter(turns=9)
    far, pool, _ = in_workers(task, workers=1, dies=lambda number, asked: asked == 2)
    one, other = far.environment("train", 0), far.environment("train", 1)
    one.reset()
    other.reset()
    one.step("hello")
    other.close()
    one.close()
    assert pool.counters.replayed == 1
    assert [call for call, index, _ in task.calls if index == 1] == ["reset"]


def test_a_closed_pool_ends_its_threads_and_whatever_waits(in_workers, chatter):
    before = threading.active_count()
    far, pool, fakes = in_workers(chatter())
    environment = far.environment("train", 0)
    environment.reset()
    pool.close()
    assert not fakes.living
    with pytest.raises(BrokenRunError, match="it was closed"):
        environment.step("hello")
    environment.close()
    deadline = time.perf_counter() + 5
    while threading.active_count() > before and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


# ---- a task like any other ------------------------------------------------------------------------------------------


def test_all_but_environments_is_answered_by_the_task_itself(in_workers):
    task = registry.make("key_door:size=5,step_cost=0.5")
    far, _, fakes = in_workers(task)
    for name in ("name", "description", "max_turns", "max_new_tokens", "stop", "system", "reward_names"):
        assert getattr(far, name) == getattr(task, name)
    assert list(far.solution("train", 3)) == list(task.solution("train", 3))
    assert list(far.corrupted("train", 3)) == list(task.corrupted("train", 3))
    assert far.subgoals("train", 0, ["north"]) == task.subgoals("train", 0, ["north"])
    assert far.start_states("train") == task.start_states("train")
    assert far.answer(" x ") == task.answer(" x ") and far.plan("") is None
    with pytest.raises(NotImplementedError):
        far.candidates("train", 0)
    with pytest.raises(NotImplementedError, match="no attempts"):
        far.after("train", 0, ())
    assert not fakes.batches
    assert far.check(3).solutions_accepted == 3


def test_a_mixture_keeps_its_domains_and_rules(in_workers, agree, batches, chatter):
    task = Mixture([chatter(turns=2), chatter(turns=4, system="Be brief.")])
    far, _, _ = in_workers(task)
    assert [domain_of(far, index) for index in range(4)] == [0, 1, 0, 1]
    assert owner(far, 3) is task.tasks[1]
    agree(batches(far, threads=4), batches(task))


def test_attempts_are_improved_there(in_workers):
    task = registry.make("improve:calculator:max_turns=1")
    far, _, _ = in_workers(task)
    shown = [of.after("train", 0, ("5", "6")).reset() for of in (task, far)]
    assert shown[0] == shown[1] and len(shown[1].opening) > 2


def test_skills_are_shown_here_around_environments_there(in_workers, make_policy):
    inner = registry.make("key_door")
    task = Skilled(inner, SkillBank([Skill("order", "Take the key first.")]))
    far, _, _ = in_workers(inner)
    outside = around(task, far)
    assert isinstance(outside, Skilled) and outside.bank is task.bank and task.of is inner
    assert outside.environment("train", 0).reset() == task.environment("train", 0).reset()
    assert around(inner, far) is far


def test_a_task_that_is_not_played_in_text_is_refused():
    with pytest.raises(InputError, match=r"task 'lab:.*': is not played in text \(family lab\)"):
        remote(registry.make("lab:errand"), 2)


def test_a_task_without_a_connection_is_refused():
    ray = pytest.importorskip("ray")
    assert not ray.is_initialized()
    with pytest.raises(InputError, match="no connection to a Ray cluster"):
        remote("key_door", 2)


def test_a_task_that_is_remote_is_not_made_so_again(in_workers):
    far, _, _ = in_workers(registry.make("key_door"))
    with pytest.raises(InputError, match="in workers already"):
        remote(far, 2)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"most_restarts": -1}, {"timeout": 0.0}])
def test_numbers_out_of_range_are_refused(in_workers, chatter, wrong):
    with pytest.raises(InputError, match=f"environment pool: {next(iter(wrong))} = "):
        in_workers(chatter(), **wrong)


def test_workers_of_which_one_does_not_start_are_none(chatter):
    from stratagem.cluster.environment_pool import EnvironmentPool

    killed: list[int] = []

    class Started:
        def __init__(self, number: int) -> None:
            if number == 2:
                raise InputError("the task cannot be made in a worker")
            self.number = number

        def kill(self) -> None:
            killed.append(self.number)

    with pytest.raises(InputError, match="cannot be made"):
        EnvironmentPool(Started, 3)
    assert sorted(killed) == [0, 1]


def test_nobody_waits_for_a_worker_whose_calls_cannot_be_sent(in_workers, chatter):
    far, _, fakes = in_workers(chatter(), workers=1)

    def broken(number: int, asked: int) -> bool:
        raise TypeError("cannot be sent")

    fakes.dies = broken
    with pytest.raises(BrokenRunError, match="environment worker 0: TypeError: cannot be sent"):
        far.environment("train", 0).reset()


def test_an_origin_makes_what_the_task_would(chatter):
    task = chatter()
    assert Origin("test", 3).make(task).reset() == task.environment("test", 3).reset()
    with pytest.raises(NotImplementedError):
        Origin("train", 0, ("a",)).make(task)


def test_calls_that_wait_go_to_a_worker_together(in_workers, chatter):
    entered, leave = threading.Event(), threading.Event()

    def fault(call: str, index: int, turn: int) -> Any:
        if (call, index) == ("reset", 0):
            entered.set()
            leave.wait(20)

    far, _, fakes = in_workers(chatter(fault=fault), workers=1)
    environments = [far.environment("train", index) for index in range(9)]
    watch = Watch(30.0, threads=9)
    threading.Thread(target=lambda: (entered.wait(20), time.sleep(0.3), leave.set())).start()
    outcomes = watch.run([environment.reset for environment in environments])
    assert all(outcome.failure is None for outcome in outcomes)
    assert sum(map(len, fakes.batches)) == 9 and len(fakes.batches) < 6
    watch.run([environment.close for environment in environments])
    watch.close()


def test_a_remote_task_is_a_task(in_workers, chatter):
    far, pool, _ = in_workers(chatter())
    assert isinstance(far, Task) and isinstance(far, RemoteTask) and far.family == "text" and far.pool is pool
