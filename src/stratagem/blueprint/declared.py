"""What everything that a blueprint declares has in common, and how text becomes plain data without losing a key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
"""Letters, digits, ``_``, ``.`` and ``-``, beginning with a letter or ``_``, at most 64."""

Reference = Annotated[str, StringConstraints(pattern=r"^[^:\s][^:]*:[A-Za-z_][A-Za-z0-9_.]*$")]
"""``package.module:name``, or ``file.py:name`` beside the blueprint."""


class Declared(BaseModel):
    """Immutable plain data of which every field is known: another field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def plain_json(text: str) -> Any:
    """JSON as plain data. Raises ``ValueError`` for what is no JSON, and for a key that stands twice."""
    return json.loads(text, object_pairs_hook=_once)


def plain_yaml(text: str) -> Any:
    """YAML as plain data. Raises ``ValueError`` for what is no YAML, and for a key that stands twice."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1}: not valid YAML" if mark else "not valid YAML") from None


class _Loader(yaml.SafeLoader):
    """Safe, and strict about keys."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    pairs = [(loader.construct_object(key, True), loader.construct_object(value, True)) for key, value in node.value]
    return _once(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _once(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"key {key!r}: must be a text")
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found
