"""What runs when: graphs of tasks, calls begun early, and the clock on which that is measured."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.blueprint import TaskGraph, simulated, speculate
from stratagem.errors import InputError

DIAMOND = TaskGraph({"a": (), "b": (), "c": ("a", "b")})
SECONDS = {"a": 2.0, "b": 3.0, "c": 4.0}


# ---- graphs ---------------------------------------------------------------------------------------------------------


def test_independent_tasks_run_at_the_same_time():
    assert DIAMOND.makespan(SECONDS, workers=2) == 7.0
    assert DIAMOND.makespan(SECONDS, workers=1) == 9.0
    assert DIAMOND.makespan(SECONDS) == 7.0


@given(st.lists(st.tuples(st.integers(1, 9), st.sets(st.integers(0, 6))), min_size=1, max_size=7))
def test_with_workers_enough_the_makespan_is_the_critical_path(tasks: list[tuple[int, set[int]]]):
    after = {str(n): tuple(str(m) for m in earlier if m < n) for n, (_, earlier) in enumerate(tasks)}
    seconds = {str(n): float(duration) for n, (duration, _) in enumerate(tasks)}
    end: dict[str, float] = {}
    for name, earlier in after.items():
        end[name] = seconds[name] + max((end[other] for other in earlier), default=0.0)
    graph = TaskGraph(after)
    assert graph.makespan(seconds) == max(end.values())
    assert graph.makespan(seconds, workers=1) == sum(seconds.values())


def test_a_cycle_and_a_task_that_is_not_there_are_rejected_before_anything_runs():
    with pytest.raises(InputError, match="wait for each other"):
        TaskGraph({"a": ("c",), "b": ("a",), "c": ("b",)})
    with pytest.raises(InputError, match="'a' comes after 'z'"):
        TaskGraph({"a": ("z",)})
    with pytest.raises(InputError, match="at least 1"):
        DIAMOND.makespan(SECONDS, workers=0)


def test_when_a_task_raises_the_others_are_cancelled():
    ended: list[str] = []

    async def start(name: str) -> None:
        if name == "a":
            await asyncio.sleep(1)
            raise RuntimeError("a")
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(name)

    async def run() -> None:
        with pytest.raises(RuntimeError):
            await DIAMOND.run(start)
        await asyncio.sleep(0)

    assert simulated(run).seconds == 1.0 and ended == ["b"]


def test_a_graph_without_tasks_is_done():
    assert simulated(lambda: TaskGraph({}).run(asyncio.sleep)).value == {}  # type: ignore[arg-type]


# ---- calls begun early ----------------------------------------------------------------------------------------------


def speculated(decision: str, predicted: str | None, decide: float = 3.0, call: float = 2.0):
    called: list[str] = []

    async def choose() -> str:
        await asyncio.sleep(decide)
        return decision

    async def make(action: str) -> str:
        called.append(action)
        await asyncio.sleep(call)
        return f"did {action}"

    timed = simulated(lambda: speculate(choose(), predicted, make))
    return timed.seconds, timed.value, called


@pytest.mark.parametrize(
    ("predicted", "seconds", "hit", "called"),
    [("x", 3.0, True, ["x"]), ("y", 5.0, False, ["y", "x"]), (None, 5.0, None, ["x"])],
)
def test_a_right_prediction_saves_the_call_and_a_wrong_one_costs_no_time(predicted, seconds, hit, called):
    took, found, made = speculated("x", predicted)
    assert (took, found.decision, found.result, found.hit, made) == (seconds, "x", "did x", hit, called)


def test_a_call_longer_than_the_decision_is_waited_for():
    assert speculated("x", "x", decide=1.0, call=4.0)[0] == 4.0


def test_the_mean_time_is_that_of_the_formula():
    took = [speculated("x", "x" if n < 7 else "y")[0] for n in range(10)]
    assert sum(took) / 10 == pytest.approx(3.0 + (1 - 0.7) * 2.0)


def test_when_the_decision_fails_the_early_call_is_cancelled():
    cancelled = []

    async def fail() -> str:
        await asyncio.sleep(1)
        raise RuntimeError

    async def make(action: str) -> None:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            cancelled.append(action)
            raise

    async def run() -> None:
        with pytest.raises(RuntimeError):
            await speculate(fail(), "x", make)
        await asyncio.sleep(0)

    assert simulated(run).seconds == 1.0 and cancelled == ["x"]


# ---- the clock ------------------------------------------------------------------------------------------------------


def test_hours_pass_in_no_time_and_in_order():
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(asyncio.get_running_loop().time())

    async def run() -> None:
        await asyncio.gather(*(sleep(seconds) for seconds in (7200.0, 60.0, 3600.5)))

    begun = time.perf_counter()
    assert simulated(run).seconds == 7200.0
    assert woken == [60.0, 3600.5, 7200.0]
    assert time.perf_counter() - begun < 1.0


def test_time_stands_still_while_a_thread_works():
    from stratagem.blueprint import Action, Toolbox, ToolSpec, function_tool

    spec = ToolSpec.model_validate({"name": "work", "side_effect": "none", "timeout": 0.01})
    box = Toolbox.of([function_tool(spec, lambda: time.sleep(0.05))])
    timed = simulated(lambda: box.call(Action("work")))
    assert timed.value.ok and timed.seconds == 0.0
