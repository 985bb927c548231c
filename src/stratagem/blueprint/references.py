"""Functions that a blueprint names: imported when they are needed, never when a blueprint is only read."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from stratagem.errors import InputError


def resolve(reference: str, folder: Path | None = None) -> Any:
    """What ``package.module:name`` or ``file.py:name`` names; files are looked for in ``folder`` (default: here).

    Raises :class:`InputError` when it cannot be imported or is not there. Importing runs the module's code.
    """
    place, _, name = reference.rpartition(":")
    try:
        found: Any = _file(((folder or Path()) / place).resolve()) if place.endswith(".py") else _module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except InputError:
        raise
    except AttributeError:
        raise InputError(f"reference {reference!r}: {place} has no {name}") from None
    except Exception as error:
        raise InputError(f"reference {reference!r}: cannot be imported ({type(error).__name__}: {error})") from error
    return found


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _file(path: Path) -> ModuleType:
    """A module of its own for every file, imported once."""
    name = f"_blueprint_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None or not path.is_file():
        raise InputError(f"reference: no file {path}")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
