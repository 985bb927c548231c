"""Language policies and engines: models, tokens, chat formats, sampling."""

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Completion, Engine, Request, WeightMismatchError, fingerprint
from stratagem.language.hf_engine import HFEngine
from stratagem.language.inputs import TokenInputs
from stratagem.language.internal import NoiseLevels, entropy_by_layer, noise_levels
from stratagem.language.policy import LanguagePolicy, LoRA, ReferencePolicy, native_bfloat16
from stratagem.language.sampling import SamplingParams
from stratagem.language.team import Team, TeamEngine
from stratagem.language.vllm_engine import VLLMEngine

__all__ = [
    "ChatFormat",
    "Completion",
    "Engine",
    "HFEngine",
    "LanguagePolicy",
    "LoRA",
    "NoiseLevels",
    "ReferencePolicy",
    "Request",
    "SamplingParams",
    "Team",
    "TeamEngine",
    "TokenInputs",
    "VLLMEngine",
    "WeightMismatchError",
    "entropy_by_layer",
    "fingerprint",
    "native_bfloat16",
    "noise_levels",
]
