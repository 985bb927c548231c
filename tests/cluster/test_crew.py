"""Threads, faults and fairness, with an engine that only counts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.cluster import EnginePool, LocalWorkers, PoolSettings, start_pool
from stratagem.cluster.local import LocalWorker
from stratagem.errors import BrokenRunError, InputError
from stratagem.language.engine import Completion, Request, WeightMismatchError, WeightSource
from stratagem.language.sampling import SamplingParams
from stratagem.language.stops import check_requests
from stratagem.seeding import derive


def sampled(context: Sequence[int], seed: int, most: int) -> tuple[list[int], bool]:
    """Tokens that follow from what was read and a seed, and whether the turn has ended; any weights say the same."""
    said: list[int] = []
    while len(said) < most:
        said.append(derive(seed, sum(context) + len(context), len(said), *said[-1:]) % 1000)
        if said[-1] % 9 == 0:
            return said, True
    return said, False


def expected(context: Sequence[int], seed: int, most: int, piece: int | None) -> list[int]:
    """The same turn in slices, each with the seed that a pool gives it."""
    said: list[int] = []
    ended = False
    while not ended and len(said) < most:
        own = derive(seed, "slice", len(said)) if said else seed
        more, ended = sampled([*context, *said], own, min(most - len(said), piece or most))
        said += more
    return said


class Counting:
    """An engine that notes what it is asked; its tokens are those of :func:`sampled`."""

    def __init__(self) -> None:
        self.version = self.prefilled = self.taken_over = 0
        self.sessions: dict[int, list[int]] = {}
        self.opened = 0
        self.calls: list[list[int]] = []
        self.kept: list[int] = []

    def open(self, count: int) -> list[int]:
        numbers = list(range(self.opened, self.opened + count))
        self.opened += count
        self.sessions |= {number: [] for number in numbers}
        return numbers

    def close(self, sessions: Sequence[int]) -> None:
        for number in sessions:
            del self.sessions[number]

    def keeping(self, most: int) -> Any:
        self.kept.append(most)
        return nullcontext()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        check_requests(requests, {number: len(tokens) for number, tokens in self.sessions.items()})
        for request in requests:
            if request.params.stop == ("refuse",):
                raise InputError("stop: refused")
        self.calls.append([request.seed for request in requests])
        completions = []
        for request in requests:
            held = self.sessions[request.session]
            held += request.tokens
            self.prefilled += len(request.tokens)
            said, ended = sampled(held, request.seed, request.params.max_new_tokens)
            held += said
            completions.append(Completion(said, [0.5] * len(said), "stop" if ended else "length", self.version, "text"))
        return completions

    def load_weights(self, policy: WeightSource, version: int) -> None:
        if [name for name, _ in policy.weights()] != ["w"]:
            raise WeightMismatchError("the engine has only w")
        self.version = version


class Weights:
    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors or {"w": torch.ones(3)}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._tensors.items()


Fault = Callable[[int, str], None]
"""Told the worker's number and what was called, before it does it and after (``generate``, ``after generate``)."""


class Failing(LocalWorkers):
    """Workers whose calls fail where ``fault`` raises; launched: which were started, in order."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.launched = fault, list[int]()

    def launch(self, number: int) -> LocalWorker:
        self.launched.append(number)
        return _Worker(self, number)


class _Worker(LocalWorker):
    def __init__(self, workers: Failing, number: int) -> None:
        super().__init__()
        self.workers, self.number = workers, number

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        self.workers.fault(self.number, method)
        answer = super().call(method, *arguments, timeout=timeout)
        self.workers.fault(self.number, f"after {method}")
        return answer


class Once:
    """Raises at the given calls, each counted for itself over all workers."""

    def __init__(self, *, at: dict[str, Sequence[int]], error: type[Exception] = ConnectionError) -> None:
        self.at, self.error, self.seen = at, error, dict[str, int]()
        self.lock = threading.Lock()

    def __call__(self, number: int, method: str) -> None:
        with self.lock:
            place = self.seen.get(method, 0)
            self.seen[method] = place + 1
        if place in self.at.get(method, ()):
            raise self.error(f"{method} number {place} went wrong\nin two lines")


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[EnginePool, list[Counting]]]]:
    """``start(count, fault=None, **settings)``: a pool, and the engines its workers built so far."""
    pools: list[EnginePool] = []

    def make(count: int, fault: Fault | None = None, **chosen: Any) -> tuple[EnginePool, list[Counting]]:
        engines: list[Counting] = []

        def build() -> Counting:
            engines.append(Counting())
            return engines[-1]

        workers = LocalWorkers() if fault is None else Failing(fault)
        pools.append(start_pool(build, workers, count, PoolSettings(**chosen)))
        return pools[-1], engines

    yield make
    for pool in pools:
        pool.shut_down()


def asked(session: int, seed: int, most: int = 20, tokens: Sequence[int] = (1, 2), **params: Any) -> Request:
    return Request(session, list(tokens), seed, SamplingParams(most, **params))


# ---- where sessions go ----------------------------------------------------------------------------------------------


def test_sessions_go_in_blocks_to_the_workers_with_the_fewest(start):
    pool, _ = start(3)
    crew = pool._crew
    first = pool.open(7)
    assert [pool._sessions[number].place for number in first] == [0, 0, 0, 1, 1, 2, 2]
    pool.close(first[:3])
    assert [pool._sessions[number].place for number in pool.open(4)] == [0, 0, 0, 1]
    assert [one.pinned for one in crew.dispatchers] == [3, 3, 2]


def test_more_sessions_than_workers_hold_are_refused(start):
    pool, _ = start(2, max_sessions=3)
    pool.open(4)
    with pytest.raises(InputError, match="3 sessions beside the 4 open ones exceed max_sessions=3 for each of 2"):
        pool.open(3)
    assert len(pool.open(2)) == 2


def test_closed_sessions_are_closed_at_the_worker(start):
    pool, [engine] = start(1)
    sessions = pool.open(3)
    pool.generate([asked(session, session) for session in sessions])
    assert len(engine.sessions) == 3
    pool.close(sessions[:2])
    pool.generate([asked(sessions[2], 5)])
    assert len(engine.sessions) == 1


def test_of_several_keepings_the_largest_counts_at_every_worker(start):
    pool, engines = start(2)
    session = pool.open(2)

    def turn() -> None:
        pool.generate([asked(number, number) for number in session])

    with pool.keeping(3):
        turn()
        with pool.keeping(8):
            turn()
            with pool.keeping(2):
                turn()
        turn()
    turn()
    assert [engine.kept for engine in engines] == [[3, 8], [3, 8]]
    assert all(not one.worker.served._keeping for one in pool._crew.dispatchers)


# ---- many at once ---------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    workers=st.integers(1, 3),
    piece=st.sampled_from([None, 1, 3, 7]),
    most_running=st.integers(1, 6),
    faulty=st.booleans(),
)
def test_every_request_of_every_thread_is_answered_once_and_rightly(seed, workers, piece, most_running, faulty):
    """Threads open, sample and close while weights change and workers die, before their work and after it."""
    chance = random.Random(seed)
    places = chance.sample(range(40), 4) if faulty else []
    at = {"generate": places[:2], "after generate": places[2:], "load": places[:1], "after start": [workers]}
    fault = Once(at=at if faulty else {})
    engines: list[Counting] = []

    def build() -> Counting:
        engines.append(Counting())
        return engines[-1]

    chosen = PoolSettings(most_running=most_running, slice_tokens=piece, most_restarts=10)
    pool = start_pool(build, Failing(fault), workers, chosen)
    wrong: list[str] = []
    said: list[int] = []
    seeds = iter(range(10**6))

    def play(source: random.Random) -> None:
        contexts: dict[int, list[int]] = {}
        for _ in range(5):
            contexts |= {number: [] for number in pool.open(source.randint(1, 4))}
            chosen = source.sample(sorted(contexts), source.randint(1, len(contexts)))
            requests = [
                asked(number, next(seeds), source.randint(1, 25), [source.randint(1, 99)] * source.randint(1, 5))
                for number in chosen
            ]
            for request, completion in zip(requests, pool.generate(requests), strict=True):
                context = contexts[request.session]
                context += request.tokens
                right = expected(context, request.seed, request.params.max_new_tokens, piece)
                versions = completion.versions or [completion.version]
                if completion.tokens != right or len(completion.logp) != len(right) or versions != sorted(versions):
                    wrong.append(f"{completion} instead of {right}")
                context += completion.tokens
                said.append(len(completion.tokens))
            closed = source.sample(sorted(contexts), source.randint(0, len(contexts)))
            pool.close(closed)
            contexts = {number: tokens for number, tokens in contexts.items() if number not in closed}
        pool.close(list(contexts))

    def guarded(source: random.Random) -> None:
        try:
            play(source)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=[random.Random(seed + 1 + n)], daemon=True) for n in range(4)]
    try:
        for thread in threads:
            thread.start()
        for version in range(1, 6):
            pool.load_weights(Weights(), version)
            assert pool.version == version
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
        assert not wrong
        served = sum(worker["sampled"] for worker in pool.workers)
        assert served == sum(said), "an answer was counted twice or lost"
        assert max(len(call) for engine in engines for call in engine.calls) <= most_running
        assert all(one.pinned == 0 and not one.waiting and not one._flying for one in pool._crew.dispatchers)
        assert len(engines) == workers + pool.restarts
        if not faulty:
            assert pool.restarts == pool.reread == 0
    finally:
        pool.shut_down()


def test_a_flood_of_long_turns_does_not_keep_a_short_one_waiting(start):
    begun, go = threading.Event(), threading.Event()

    def fault(number: int, method: str) -> None:
        if method == "generate":
            begun.set()
            go.wait(timeout=30)

    pool, [engine] = start(1, fault, most_running=2, slice_tokens=1)
    flood, [short] = pool.open(6), pool.open(1)
    long = threading.Thread(target=pool.generate, args=[[asked(number, 100 + number, 400) for number in flood]])
    long.start()
    begun.wait(timeout=30)
    brief = threading.Thread(target=pool.generate, args=[[asked(short, 7, 1)]])
    brief.start()
    while not any(turn.request.session == short for turn in list(pool._crew.dispatchers[0].waiting)):
        time.sleep(0.001)
    go.set()
    for thread in (long, brief):
        thread.join(timeout=60)
        assert not thread.is_alive()
    # Two of the six were running when it came, four waited before it.
    place = next(n for n, seeds in enumerate(engine.calls) if 7 in seeds)
    assert place == 3
    assert len(engine.calls) > 4
    turns = [seed for call in engine.calls[:3] for seed in call]
    assert turns == [100 + number for number in flood]


def test_a_session_takes_one_turn_at_a_time(start):
    begun, go = threading.Event(), threading.Event()

    def fault(number: int, method: str) -> None:
        if method == "generate":
            begun.set()
            go.wait(timeout=30)

    pool, _ = start(1, fault)
    [session] = pool.open(1)
    thread = threading.Thread(target=pool.generate, args=[[asked(session, 1)]])
    thread.start()
    begun.wait(timeout=30)
    try:
        with pytest.raises(InputError, match="has a turn running"):
            pool.generate([asked(session, 2)])
        with pytest.raises(InputError, match="has a turn running"):
            pool.close([session])
    finally:
        go.set()
        thread.join(timeout=30)
    pool.close([session])


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_what_an_engine_refuses_arrives_as_itself_and_leaves_sessions_as_they_were(start):
    pool, engines = start(2)
    sessions = pool.open(4)
    first = pool.generate([asked(number, number) for number in sessions])
    bad = [asked(number, 10, stop=("refuse",) if number == sessions[3] else ()) for number in sessions]
    with pytest.raises(InputError, match=r"^stop: refused$"):
        pool.generate(bad)
    again = pool.generate([asked(number, 20 + number, tokens=[5]) for number in sessions])
    for number, before, after in zip(sessions, first, again, strict=True):
        assert after.tokens == expected([1, 2, *before.tokens, 5], 20 + number, 20, None)
    assert pool.restarts == 0 and len(engines) == 2
    pool.close(sessions)
    # A turn at each worker, before which it closes what is to be closed.
    pool.generate([asked(number, number) for number in pool.open(2)])
    assert [len(engine.sessions) for engine in engines] == [1, 1], "what was refused stayed open somewhere"


def test_a_bad_request_is_told_to_its_own_caller_alone(start):
    begun, go = threading.Event(), threading.Event()

    def fault(number: int, method: str) -> None:
        if method == "generate" and not begun.is_set():
            begun.set()
            go.wait(timeout=30)

    pool, _ = start(1, fault)
    sessions = pool.open(3)
    found: dict[int, Any] = {}

    def ask(place: int, **params: Any) -> None:
        try:
            found[place] = pool.generate([asked(sessions[place], place, **params)])[0].tokens
        except InputError as error:
            found[place] = str(error)

    threads = [threading.Thread(target=ask, args=[0])]
    threads[0].start()
    begun.wait(timeout=30)
    threads.append(threading.Thread(target=ask, args=[1]))
    threads.append(threading.Thread(target=ask, args=[2], kwargs={"stop": ("refuse",)}))
    for thread in threads[1:]:
        thread.start()
    while len(pool._crew.dispatchers[0].waiting) < 2:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(timeout=30)
    assert found == {0: expected([1, 2], 0, 20, None), 1: expected([1, 2], 1, 20, None), 2: "stop: refused"}
    assert pool.restarts == 0


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"slice_tokens": 0}, "pool.slice_tokens must be at least 1, got 0"),
        ({"most_running": 0}, "pool.most_running must be at least 1, got 0"),
        ({"most_restarts": -1}, "pool.most_restarts must be at least 0, got -1"),
        ({"timeout": 0.0}, "pool.timeout must be above 0 and finite, got 0.0"),
    ],
)
def test_wrong_settings_are_named(chosen, message):
    with pytest.raises(InputError, match=message):
        PoolSettings(**chosen)


def test_a_pool_without_workers_is_refused():
    with pytest.raises(InputError, match="at least 1 worker, got 0"):
        start_pool(Counting, LocalWorkers(), 0)


# ---- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["generate", "after generate"])
@pytest.mark.parametrize("error", [ConnectionError, TimeoutError])
@pytest.mark.parametrize("piece", [None, 2])
def test_a_worker_that_dies_changes_no_completion(start, method, error, piece):
    def turns(pool: EnginePool) -> list[Completion]:
        sessions = pool.open(4)
        first = pool.generate([asked(number, 70 + number) for number in sessions])
        return first + pool.generate([asked(number, 80 + number, tokens=[4, 4, 4]) for number in sessions])

    whole, _ = start(2, slice_tokens=piece)
    broken, engines = start(2, Once(at={method: [2]}, error=error), slice_tokens=piece)
    assert turns(broken) == turns(whole)
    assert broken.restarts == 1 and len(engines) == 3
    assert whole.restarts == whole.reread == 0
    # Whoever had been read before and was asked of afterwards was read again.
    assert broken.reread > 0


def test_tokens_of_finished_slices_are_kept(start):
    seen: list[int] = []

    def fault(number: int, method: str) -> None:
        if method == "generate":
            seen.append(number)
            if len(seen) == 4:
                raise ConnectionError("gone")

    pool, engines = start(1, fault, slice_tokens=2)
    seed = next(seed for seed in range(100) if len(expected([1, 2], seed, 12, 2)) == 12)
    [said] = pool.generate([asked(*pool.open(1), seed, 12)])
    assert said.tokens == expected([1, 2], seed, 12, 2)
    assert [len(engine.calls) for engine in engines] == [3, 3]
    assert pool.reread == 2 + 6 and engines[1].prefilled == 8


def test_what_a_dead_worker_had_begun_comes_before_what_waited(start):
    pool, engines = start(1, Once(at={"generate": [1]}), most_running=2)
    pool.generate([asked(number, number) for number in pool.open(6)])
    assert engines[0].calls + engines[1].calls == [[0, 1], [2, 3], [4, 5]]


def test_a_worker_started_again_serves_the_last_weights_and_keeps_as_before(start):
    pool, engines = start(1, Once(at={"generate": [1]}))
    pool.load_weights(Weights(), 4)
    [session] = pool.open(1)
    with pool.keeping(6):
        versions = [pool.generate([asked(session, seed)])[0].version for seed in (1, 2)]
    assert versions == [4, 4] and [engine.version for engine in engines] == [4, 4]
    assert engines[1].kept == [6]


def test_beyond_the_restarts_a_workers_sessions_go_to_the_others(start):
    dead: set[int] = set()

    def fault(number: int, method: str) -> None:
        if number in dead:
            raise ConnectionError("its node is gone")

    pool, _ = start(3, fault, most_restarts=2, slice_tokens=4)
    sessions = pool.open(6)
    first = pool.generate([asked(number, number) for number in sessions])
    dead.add(1)
    again = pool.generate([asked(number, 40 + number, tokens=[9]) for number in sessions])
    for number, before, after in zip(sessions, first, again, strict=True):
        assert after.tokens == expected([1, 2, *before.tokens, 9], 40 + number, 20, 4)
    assert pool.restarts == 2 and [worker["alive"] for worker in pool.workers] == [True, False, True]
    assert pool.reread == sum(2 + len(first[place].tokens) for place in (2, 3))
    pool.load_weights(Weights(), 3)
    assert pool.version == 3
    assert {pool._sessions[number].place for number in pool.open(5)} == {0, 2}
    pool.close(sessions)


def test_with_no_worker_left_the_run_is_broken_and_says_why(start):
    dead: list[int] = []

    def fault(number: int, method: str) -> None:
        if method in dead or (dead and number in dead):
            raise ConnectionError("its node\nis gone")

    pool, _ = start(2, fault, most_restarts=1)
    sessions = pool.open(2)
    dead += [0, 1]
    with pytest.raises(BrokenRunError) as caught:
        pool.generate([asked(number, number) for number in sessions])
    text = str(caught.value)
    assert "\n" not in text and text.startswith("worker ") and "its node is gone" in text
    assert "no worker is left, 1 of 1 restarts were used" in text
    for use in (
        lambda: pool.generate([asked(sessions[0], 1)]),
        lambda: pool.open(1),
        lambda: pool.load_weights(Weights(), 1),
    ):
        with pytest.raises(BrokenRunError, match="no worker is left"):
            use()
    pool.close(sessions)


def test_workers_that_never_start_break_the_pool():
    with pytest.raises(BrokenRunError, match=r"ConnectionError: start number . went wrong in two lines; no worker"):
        start_pool(Counting, Failing(Once(at={"start": range(9)})), 2, PoolSettings(most_restarts=1))


def test_an_engine_that_cannot_be_built_is_the_users_error():
    def build() -> Counting:
        raise InputError("model nowhere: no such folder")

    workers = Failing(lambda number, method: None)
    with pytest.raises(InputError, match="model nowhere"):
        start_pool(build, workers, 2)
    assert sorted(set(workers.launched)) == sorted(workers.launched), "a worker was started again"


@pytest.mark.parametrize(("name", "version"), [("stratagem", "0.0.1"), ("python", "3.1.7")])
def test_a_worker_of_another_version_is_refused(name, version):
    class Old(_Worker):
        def call(self, method: str, *arguments: Any, timeout: float) -> Any:
            answer = super().call(method, *arguments, timeout=timeout)
            return {**answer, "node": "far", name: version} if method == "hello" else answer

    class Mixed(Failing):
        def launch(self, number: int) -> LocalWorker:
            return Old(self, number) if number else super().launch(number)

    with pytest.raises(InputError) as caught:
        start_pool(Counting, Mixed(lambda number, method: None), 2)
    shown = version if name == "stratagem" else "3.1"
    assert "worker 1 on far (pid " in str(caught.value)
    assert f"has {name} {shown}, the driver " in str(caught.value)
    assert f"install the same version of {name} on every node" in str(caught.value)


def test_a_pool_that_was_shut_down_says_so(start):
    pool, _ = start(1)
    [session] = pool.open(1)
    pool.shut_down()
    with pytest.raises(BrokenRunError, match="shut down"):
        pool.generate([asked(session, 1)])


# ---- what it measures -----------------------------------------------------------------------------------------------


def test_utilization_is_a_share_since_the_last_ask(start):
    pool, _ = start(2)
    sessions = pool.open(2)
    said = pool.generate([asked(number, number) for number in sessions])
    first = pool.utilization()
    assert all(0 < share <= 1 for share in first)
    assert pool.utilization() == [0.0, 0.0]
    assert [worker["sampled"] for worker in pool.workers] == [len(one.tokens) for one in said]
    assert pool.prefilled == 4
