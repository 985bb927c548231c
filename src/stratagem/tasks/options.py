"""How the options of a task are checked: dataclass fields with pydantic constraints, one line when a value is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from stratagem.errors import InputError, unknown
from stratagem.tasks.task import AnyTask, Task

_Kind = TypeVar("_Kind", bound=Task)


def configure(task: type[_Kind], argument: str | None, options: Mapping[str, Any]) -> _Kind:
    """Build a dataclass task that takes no argument from the options of a task specification.

    Values may be the strings of a command line; the task's own :func:`validate` converts them.

    Raises :class:`InputError` for an argument, an unknown option or a value outside its range.
    """
    names = list(_adapters(task))
    if argument is not None:
        raise InputError(f"task {task.name!r} takes no argument, got {argument!r}; its options: {', '.join(names)}")
    check_names(task.name, options, names)
    return task(**options)


def check_names(task: str, options: Mapping[str, Any], names: list[str]) -> None:
    """Raise :class:`InputError` when ``options`` holds a name that is not among ``names``."""
    for name in options:
        if name not in names:
            raise unknown(f"option of task {task!r}", name, names)


def validate(task: AnyTask) -> None:
    """Convert and check every field of a dataclass task against its annotation; called from ``__post_init__``.

    Raises :class:`InputError` naming the task, the field, the value and what is allowed.
    """
    for name, adapter in _adapters(type(task)).items():
        value = getattr(task, name)
        try:
            object.__setattr__(task, name, adapter.validate_python(value))
        except ValidationError as error:
            allowed = error.errors()[0]["msg"].removeprefix("Input ")
            raise InputError(f"task {task.name!r}: {name}={value!r} is not allowed; it {allowed}") from None


@cache
def _adapters(task: type[Any]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(task, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(task) if field.init}
