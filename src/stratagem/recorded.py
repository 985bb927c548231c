"""Files of results: JSON with a version, read back into the dataclass it was written from or refused in one line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from stratagem.errors import InputError

_Recorded = TypeVar("_Recorded")


def read_recorded(path: Path, kind: type[_Recorded], version: int, what: str) -> _Recorded | None:
    """The ``kind`` in this file, whose format must be of ``version``; None when there is no such file.

    what: the file is, in an error's words. Fields of the file that ``kind`` does not have are passed over.
    Raises :class:`InputError` when it is broken or of another version.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: is not {what} (not valid JSON)") from None
    found = plain.get("version") if isinstance(plain, dict) else None
    if found != version:
        raise InputError(f"{path}: is of version {found}; this is Stratagem's version {version} of the format")
    try:
        recorded: _Recorded = _adapter(kind).validate_python(plain)  # type: ignore[arg-type]  # a type is hashable
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    return recorded


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
