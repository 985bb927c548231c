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
    from stratagem.run import evaluate, resume, train

__version__ = "0.1.0"

__all__ = [
    "BrokenRunError",
    "Experience",
    "InputError",
    "Loss",
    "Partition",
    "PolicyOutput",
    "Recipe",
    "evaluate",
    "recipes",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """``train``, ``resume`` and ``evaluate`` on first use: they bring in transformers, which takes seconds."""
    if name in ("evaluate", "resume", "train"):
        return getattr(import_module("stratagem.run"), name)
    raise AttributeError(f"module 'stratagem' has no attribute {name!r}")
