"""Stratagem: policy optimization in which papers are recipes and parts are concepts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stratagem import recipes
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.partition import Partition
from stratagem.recipe import Recipe

if TYPE_CHECKING:
    from stratagem import lab
    from stratagem.run import align, evaluate, resume, train
    from stratagem.study.compare import compare

__version__ = "0.1.0"

__all__ = [
    "BrokenRunError",
    "Experience",
    "InputError",
    "Loss",
    "Partition",
    "PolicyOutput",
    "Recipe",
    "align",
    "compare",
    "evaluate",
    "lab",
    "recipes",
    "resume",
    "train",
]

_LATE = {
    "align": "stratagem.run",
    "compare": "stratagem.study.compare",
    "evaluate": "stratagem.run",
    "resume": "stratagem.run",
    "train": "stratagem.run",
}


def __getattr__(name: str) -> Any:
    """``train``, ``compare`` and their like on first use: they bring in transformers or scipy, which take seconds."""
    if name == "lab":
        return import_module("stratagem.lab")
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'stratagem' has no attribute {name!r}")
