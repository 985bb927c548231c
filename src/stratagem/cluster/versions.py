"""Versions of a process, and whether it goes together with another one."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

import torch

import stratagem
from stratagem.errors import InputError

Greeting = Mapping[str, str | int]
"""Where a process runs, and versions: plain data, which a process of another version can read."""


def hello() -> dict[str, str | int]:
    """Of this process."""
    return {
        "node": platform.node(),
        "pid": os.getpid(),
        "stratagem": stratagem.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def check_versions(name: str, theirs: Greeting) -> None:
    """Raise :class:`InputError` when a process has another stratagem or another minor version of Python than this one.

    name: of the process, with its node.
    """
    ours = {"stratagem": stratagem.__version__, "python": _minor(platform.python_version())}
    found = {"stratagem": str(theirs["stratagem"]), "python": _minor(str(theirs["python"]))}
    for package, version in ours.items():
        if found[package] != version:
            raise InputError(
                f"{name}: has {package} {found[package]}, the driver {version}; install the same version of {package} "
                "on every node"
            )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
