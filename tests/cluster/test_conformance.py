"""A pool does what every engine must do."""

from __future__ import annotations

from typing import ClassVar

from stratagem.cluster import EnginePool, LocalWorkers, PoolSettings, start_pool
from stratagem.language.conformance import EngineConformance
from stratagem.language.engine import Engine
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy


class TestPoolOfTwo(EngineConformance):
    limit = 128
    settings: ClassVar[PoolSettings] = PoolSettings(max_sessions=64)
    workers: ClassVar[int] = 2

    @classmethod
    def build(cls, policy: LanguagePolicy) -> Engine:
        pool = start_pool(lambda: HFEngine(policy), LocalWorkers(), cls.workers, cls.settings)
        pool.load_weights(policy, 0)
        return pool

    @classmethod
    def tear_down(cls, engine: Engine) -> None:
        assert isinstance(engine, EnginePool)
        assert engine.restarts == 0
        engine.shut_down()


class TestPoolThatSamplesInSlices(TestPoolOfTwo):
    settings = PoolSettings(max_sessions=64, slice_tokens=3, most_running=5)
