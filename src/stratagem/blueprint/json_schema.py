"""JSON schemas: whether one is sound, what is wrong with a value, and a value of which texts were meant as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stratagem.tasks.adapter import require


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema itself, in one line; None when it is sound."""
    jsonschema = require("jsonschema", "agents")
    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        return _line(error.message)
    return None


def problem(schema: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value, in one line (the first fault by its place); None when it fits the schema.

    References are only followed within the schema: one that leads elsewhere is a fault, nothing is fetched.
    """
    jsonschema = require("jsonschema", "agents")
    try:
        faults = sorted(jsonschema.Draft202012Validator(dict(schema)).iter_errors(value), key=lambda e: e.json_path)
    except Exception as error:  # an unresolvable reference, or a schema that no library can follow to its end
        return _line(f"the schema cannot be followed ({type(error).__name__})")
    return _line(f"{faults[0].json_path}: {faults[0].message}") if faults else None


def with_types(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, where a text stands for a number, a truth value, a list or an object that is wanted, read as such.

    What a language model most often gets wrong. Only properties of the schema's first level are looked at.
    """
    properties = schema.get("properties", {})
    return {name: _typed(properties.get(name), value) for name, value in arguments.items()}


def _typed(schema: Any, value: Any) -> Any:
    if not isinstance(value, str) or not isinstance(schema, Mapping) or problem(schema, value) is None:
        return value
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return read if problem(schema, read) is None else value


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
