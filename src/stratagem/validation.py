"""How fields of dataclasses are checked: pydantic constraints in their annotations, one line when a value is wrong."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from stratagem.errors import InputError


def validate_fields(built: Any, who: str) -> None:
    """Convert and check every field of a dataclass against its annotation; called from ``__post_init__``.

    Raises :class:`InputError` naming ``who``, the field, the value and what is allowed.
    """
    for name, adapter in field_adapters(type(built)).items():  # type: ignore[arg-type]  # a class can be hashed
        value = getattr(built, name)
        try:
            object.__setattr__(built, name, adapter.validate_python(value))
        except ValidationError as error:
            allowed = error.errors()[0]["msg"].removeprefix("Input ")
            raise InputError(f"{who}: {name}={value!r} is not allowed; it {allowed}") from None


@cache
def field_adapters(kind: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """Of the fields a dataclass is built from, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(kind) if field.init}
