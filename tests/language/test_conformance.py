from stratagem.language.conformance import EngineConformance, small_policy
from stratagem.language.engine import Engine
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy


class TestHFEngine(EngineConformance):
    limit = 128

    @classmethod
    def build(cls, policy: LanguagePolicy) -> Engine:
        return HFEngine(policy, max_sessions=cls.limit)


class TestHFEngineOfATiedModel(TestHFEngine):
    @classmethod
    def make_policy(cls) -> LanguagePolicy:
        return small_policy(tied=True)
