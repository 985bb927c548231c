"""How the options of a task are checked: dataclass fields with pydantic constraints, one line when a value is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from stratagem.errors import InputError, unknown
from stratagem.tasks.task import AnyTask, Task
from stratagem.validation import field_adapters, validate_fields

_Kind = TypeVar("_Kind", bound=Task)


def configure(task: type[_Kind], argument: str | None, options: Mapping[str, Any]) -> _Kind:
    """Build a dataclass task that takes no argument from the options of a task specification.

    Values may be the strings of a command line; the task's own :func:`validate` converts them.

    Raises :class:`InputError` for an argument, an unknown option or a value outside its range.
    """
    names = list(field_adapters(task))
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
    validate_fields(task, f"task {task.name!r}")
