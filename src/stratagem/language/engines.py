"""Policies and engines by name: what a run is asked for, loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from stratagem.errors import InputError
from stratagem.language.engine import Engine
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.team import Team, TeamEngine, read_role
from stratagem.language.vllm_engine import VLLMEngine

Precision = Literal["auto", "float32", "bfloat16"]

TINY = "tiny"
"""Name of the base model that ships with the package."""


def _hf(policy: LanguagePolicy, precision: Precision, device: torch.device) -> Engine:
    return HFEngine(policy, dtype=precision, device=device)


def _vllm(policy: LanguagePolicy, precision: Precision, device: torch.device) -> Engine:
    return VLLMEngine(policy, dtype=precision, device=device)


ENGINES: dict[str, Callable[[LanguagePolicy, Precision, torch.device], Engine]] = {"hf": _hf, "vllm": _vllm}
"""What samples text, by name: made for a policy, wherever that is, on this device."""


def make_engine(name: str, policy: LanguagePolicy | Team, precision: Precision) -> Engine:
    """The engine of this name for a policy, or one for each member of a team."""
    make = ENGINES[name]
    if isinstance(policy, Team):
        return TeamEngine(policy, [make(member, precision, member.device) for member in policy.members])
    return make(policy, precision, policy.device)


def load_policy(
    model: str | Mapping[str, str] | None,
    precision: Precision = "auto",
    lora: int | None = None,
    gradient_checkpointing: bool = False,
) -> LanguagePolicy | Team:
    """A model, a team of models by role, or a team that was saved, all with critics.

    model: folder or hub name; ``tiny``, the model that ships.  lora: rank of low-rank adapters, None to train all
    weights. Raises :class:`InputError` for a model that cannot be loaded.
    """
    adapters = None if lora is None else {"rank": lora, "alpha": 2.0 * lora}
    # The critic is one row of zeros: it costs nothing, and any recipe may ask for values.
    options: dict[str, Any] = {
        "value_head": True,
        "dtype": precision,
        "lora": adapters,
        "gradient_checkpointing": gradient_checkpointing,
    }

    def one(path: str | None) -> LanguagePolicy:
        return LanguagePolicy.from_path(str(tiny_model_path() if path == TINY else path), **options)

    if isinstance(model, Mapping):
        return Team({read_role(name): one(path) for name, path in model.items()})
    if model is not None and Team.is_saved(model):
        return Team.from_directory(model, **options)
    return one(model)


def member_models(model: str | Mapping[str, str] | None) -> list[str]:
    """Where the model of each member of the policy lies that :func:`load_policy` makes of this, in their order."""
    if isinstance(model, Mapping):
        named = sorted((read_role(name) is None, read_role(name) or 0, path) for name, path in model.items())
        return [path for _, _, path in named]
    if model is not None and Team.is_saved(model):
        folders = Team.folders(model)
        named = sorted((role is None, role or 0, str(folder)) for role, folder in folders.items())
        return list(dict.fromkeys(folder for _, _, folder in named))
    return [TINY if model is None else model]


def find_device(name: str) -> torch.device:
    """The device of this name. Raises :class:`InputError` when torch does not have it here."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name}: not available here ({str(error).splitlines()[0]})") from None
    return device
