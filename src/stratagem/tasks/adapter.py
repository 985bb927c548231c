"""What adapters to other people's environments share: imports only when needed, and separate seeds for the splits."""

from __future__ import annotations

import importlib
from typing import Any

from stratagem.errors import InputError
from stratagem.tasks.task import Split


def require(module: str, extra: str) -> Any:
    """Import ``module`` when it is needed; an ``InputError`` names the extra that installs it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        package = module.partition(".")[0]
        raise InputError(f"{package} cannot be imported ({missing}); pip install 'stratagem[{extra}]'") from missing


def episode_seed(split: Split, index: int) -> int:
    """The seed of an episode of an environment that only a seed tells apart: even for training, odd for testing."""
    return 2 * index + (split == "test")
