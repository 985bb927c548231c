"""A pool of real engines says what one engine says, and each of its tokens has the weights that it names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from stratagem.cluster import EnginePool, EngineSpec, LocalWorkers, PoolSettings, TreePool, start_pool
from stratagem.cluster.local import LocalWorker
from stratagem.errors import InputError
from stratagem.language.conformance import learner_logp, small_policy, texts
from stratagem.language.engine import Completion, Engine, Request, TreeEngine
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams
from stratagem.language.team import Team, TeamEngine
from stratagem.language.world import LanguageWorld
from stratagem.sampling import BranchWhere, OnlineTree, PruneWhere, Rollouts, Windows

Start = Callable[..., Any]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(policy, count, workers=None, **settings)``: a pool that serves the policy at version 0."""
    pools: list[EnginePool] = []

    def make(policy: LanguagePolicy, count: int, workers: Any = None, **settings: Any) -> EnginePool:
        chosen = PoolSettings(**settings)
        pools.append(start_pool(lambda: HFEngine(policy), workers or LocalWorkers(), count, chosen))
        pools[-1].load_weights(policy, 0)
        return pools[-1]

    yield make
    for pool in pools:
        pool.shut_down()


def conversation(engine: Engine, turns: int = 3, sessions: int = 7) -> list[Completion]:
    """Turns of some sessions, the first of which all begin alike."""
    opening = texts([40], 0)[0]
    said: list[Completion] = []
    opened = engine.open(sessions)
    for turn in range(turns):
        active = [number for place, number in enumerate(opened) if turn == 0 or (place + turn) % 3]
        read = texts([3 + (5 * turn + 7 * place) % 20 for place in range(len(active))], turn)
        params = SamplingParams(12, temperature=1.1)
        requests = [
            Request(number, [*(opening if turn == 0 else []), *tokens], 50 * turn + opened.index(number), params)
            for number, tokens in zip(active, read, strict=True)
        ]
        said += engine.generate(requests)
    engine.close(opened)
    return said


def same(first: Sequence[Completion], second: Sequence[Completion]) -> None:
    assert [one.tokens for one in first] == [one.tokens for one in second]
    assert [(one.finish_reason, one.text, one.versions) for one in first] == [
        (one.finish_reason, one.text, one.versions) for one in second
    ]
    for one, other in zip(first, second, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-5)


# ---- the same as one engine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pool_says_what_its_engine_says(start, count):
    policy = small_policy()
    engine, pool = HFEngine(policy), start(policy, count)
    same(conversation(pool), conversation(engine))
    assert pool.taken_over > 0 and pool.restarts == 0


def test_slices_of_a_turn_are_the_same_in_every_pool_and_after_every_death(start):
    class Dying(LocalWorkers):
        """Of which every sixth call to sample is lost after its work."""

        calls = 0

        def launch(self, number: int) -> LocalWorker:
            outer = self

            class Worker(LocalWorker):
                def call(self, method: str, *arguments: Any, timeout: float) -> Any:
                    answer = super().call(method, *arguments, timeout=timeout)
                    outer.calls += method == "generate"
                    if method == "generate" and outer.calls % 6 == 0:
                        raise ConnectionError("gone")
                    return answer

            return Worker()

    policy = small_policy()
    plain = conversation(start(policy, 1, slice_tokens=5))
    pool = start(policy, 2, Dying(), slice_tokens=5, most_restarts=100)
    same(conversation(pool), plain)
    assert pool.restarts >= 2 and pool.reread > 0


def test_a_team_has_a_pool_for_each_member(start):
    members = {0: small_policy(0), None: small_policy(1)}
    members[None].tokenizer = members[0].tokenizer
    team = Team(members)
    pools = TeamEngine(team, [start(member, 2) for member in team.members])
    engines = TeamEngine(team, [HFEngine(member) for member in team.members])
    pools.load_weights(team, 3)
    engines.load_weights(team, 3)
    said = []
    for engine in (pools, engines):
        sessions = engine.open(3)
        params = SamplingParams(6)
        said.append([])
        for role in (0, 1, 0):
            asked = [Request(s, [30 + role], 7 * role + n, params, role=role) for n, s in enumerate(sessions)]
            said[-1] += engine.generate(asked)
    same(*said)


# ---- in a world -----------------------------------------------------------------------------------------------------


def collected(world: LanguageWorld, sampler: Any, steps: int = 2) -> list[Any]:
    found = []
    for step in range(steps):
        world.serve(step)
        found.append(world.collect(sampler, step))
    return found


OFTEN = BranchWhere(entropy=0.5, confidence=None, rise=-10.0, after=2, widest=3)
STRICT = PruneWhere(floor=None, tail=None, rise=0.0, steps=2)


@pytest.mark.parametrize(
    "sampler",
    [
        Rollouts(prompts_per_step=3, group_size=4),
        Windows(prompts_per_step=4, tokens=7),
        OnlineTree(prompts_per_step=3, group_size=6, roots=2, branch=OFTEN, prune=STRICT),
    ],
    ids=["rollouts", "windows", "trees"],
)
def test_a_world_collects_the_same_from_a_pool(start, make_policy, chatter, sampler):
    policy = make_policy()
    engines = [HFEngine(policy), start(policy, 3)]
    worlds = [LanguageWorld(chatter(max_new_tokens=8), policy, engine, 5) for engine in engines]
    try:
        for ours, pools in zip(*(collected(world, sampler) for world in worlds), strict=True):
            assert pools.tokens == ours.tokens and pools.samples == ours.samples
            for name in ("action", "version", "turn_reward", "seed", "episode", "mask", "taken_over"):
                expected = getattr(ours.x, name)
                found = getattr(pools.x, name)
                assert found is expected is None or torch.equal(found, expected), name
            torch.testing.assert_close(pools.x.behavior_logp, ours.x.behavior_logp, rtol=0, atol=1e-5)
            if isinstance(sampler, OnlineTree):
                trees = {name: value for name, value in ours.metrics.items() if name.startswith("tree/")}
                assert trees["tree/branches"] > 0
                assert {name: pools.metrics[name] for name in trees} == pytest.approx(trees)
    finally:
        for world in worlds:
            world.close()
    assert engines[1]._sessions == {}


def test_a_tree_is_grown_the_same_after_a_death(start, make_policy, chatter):
    class Dying(LocalWorkers):
        def __init__(self) -> None:
            self.left = 2

        def launch(self, number: int) -> LocalWorker:
            outer = self

            class Worker(LocalWorker):
                def call(self, method: str, *arguments: Any, timeout: float) -> Any:
                    answer = super().call(method, *arguments, timeout=timeout)
                    if method == "grow" and outer.left:
                        outer.left -= 1
                        raise ConnectionError("gone")
                    return answer

            return Worker()

    policy = make_policy()
    sampler = OnlineTree(prompts_per_step=2, group_size=5, roots=2, branch=OFTEN, prune=STRICT)
    pool = start(policy, 2, Dying(), most_restarts=1)
    worlds = [LanguageWorld(chatter(max_new_tokens=8), policy, engine, 5) for engine in (HFEngine(policy), pool)]
    ours, pools = (collected(world, sampler, 1)[0] for world in worlds)
    assert pools.samples == ours.samples and torch.equal(pools.x.action, ours.x.action)
    assert pool.restarts == 1 and sum(worker["alive"] for worker in pool.workers) == 1
    for world in worlds:
        world.close()


def test_only_a_pool_of_tree_engines_grows_trees(start):
    policy = small_policy()
    pool = start(policy, 1)
    assert isinstance(pool, TreePool) and isinstance(pool, TreeEngine)
    assert pool.vocabulary == HFEngine(policy).vocabulary

    class Plain:
        """An engine that shows nothing."""

        version = 0

    plain = start_pool(Plain, LocalWorkers(), 1)
    plain.shut_down()
    assert isinstance(plain, EnginePool) and not isinstance(plain, TreeEngine)


# ---- weights between slices -----------------------------------------------------------------------------------------


def moved(policy: LanguagePolicy, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=source)


def test_weights_loaded_between_slices_are_told_apart_token_by_token(start):
    """Each token's log-probability is the learner's under the weights of the version it names."""
    slices, loaded = threading.Semaphore(0), threading.Semaphore(0)

    class Stepped(LocalWorkers):
        """Whose third and later slices wait until weights were given."""

        def launch(self, number: int) -> LocalWorker:
            class Worker(LocalWorker):
                asked = 0

                def call(self, method: str, *arguments: Any, timeout: float) -> Any:
                    answer = super().call(method, *arguments, timeout=timeout)
                    if method == "generate":
                        self.asked += 1
                        if self.asked == 2:
                            slices.release()
                            assert loaded.acquire(timeout=30)
                    return answer

            return Worker()

    policy, before = small_policy(), small_policy()
    pool = start(policy, 1, Stepped(), slice_tokens=4)
    sessions = pool.open(3)
    read = texts([12, 30, 5], 1)
    params = SamplingParams(16, temperature=0.9)
    asked = [Request(s, tokens, s, params) for s, tokens in zip(sessions, read, strict=True)]
    found: list[list[Completion]] = []
    sampling = threading.Thread(target=lambda: found.append(pool.generate(asked)))
    sampling.start()
    assert slices.acquire(timeout=30)
    moved(policy, 3)
    loading = threading.Thread(target=pool.load_weights, args=[policy, 7])
    loading.start()
    while pool._crew.update.version != 7:
        time.sleep(0.001)
    loaded.release()
    for thread in (sampling, loading):
        thread.join(timeout=60)
    [said] = found
    whole = [one for one in said if len(one.tokens) == 16]
    assert whole, "no turn was long enough to be of both versions"
    for tokens, one in zip(read, said, strict=True):
        versions = one.versions or [one.version] * len(one.tokens)
        assert versions == [0] * min(8, len(versions)) + [7] * (len(versions) - 8)
        assert one.version == versions[-1] and (one.versions is None) == (len(set(versions)) == 1)
        by_version = {0: before, 7: policy}
        of = {v: learner_logp(p, [(tokens, False), (one.tokens, True)], 0.9) for v, p in by_version.items()}
        assert one.logp == pytest.approx([of[v][n] for n, v in enumerate(versions)], abs=1e-4)
    gap = max(abs(a - b) for a, b in zip(of[0], of[7], strict=True))
    assert gap > 1e-2, "the weights are too much alike to be told apart"


def test_versions_of_a_turn_come_to_the_learner(make_policy, chatter):
    """From a completion into the batch, and into a turn that is gone on with."""

    class Mixed:
        """An engine whose completions have tokens of two versions."""

        def __init__(self, engine: HFEngine) -> None:
            self._engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

        def generate(self, requests: Sequence[Request]) -> list[Completion]:
            said = self._engine.generate(requests)
            versions = [[3] + [4] * (len(one.tokens) - 1) for one in said]
            return [
                Completion(one.tokens, one.logp, one.finish_reason, 4, one.text, own)
                for one, own in zip(said, versions, strict=True)
            ]

    policy = make_policy()
    world = LanguageWorld(chatter(), policy, Mixed(HFEngine(policy)), 5)
    x = world.collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    first = x.turn_of_token.position() == 0
    assert torch.equal(x.version, torch.where(first, 3, 4))
    world.close()
    windows = LanguageWorld(chatter(max_new_tokens=8), policy, Mixed(HFEngine(policy)), 5)
    x = [windows.collect(Windows(prompts_per_step=2, tokens=3), step).x for step in range(2)][-1]
    assert x.version[:6].tolist() == [3, 4, 4, 3, 4, 4]
    windows.close()


# ---- engines by name ------------------------------------------------------------------------------------------------


def test_a_worker_builds_its_engine_from_a_model_by_name(tmp_path):
    policy = small_policy()
    policy.save(tmp_path / "model")
    pool = start_pool(EngineSpec(str(tmp_path / "model"), precision="float32", device="cpu"), LocalWorkers(), 2)
    try:
        assert pool.version == 0
        same(conversation(pool), conversation(HFEngine(policy)))
    finally:
        pool.shut_down()


def test_a_model_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        start_pool(EngineSpec(str(tmp_path / "nowhere")), LocalWorkers(), 1)
    with pytest.raises(InputError, match="engine 'fast': must be one of hf, vllm"):
        EngineSpec("tiny", engine="fast")
