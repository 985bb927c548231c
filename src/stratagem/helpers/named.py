"""Helpers by name: ``endpoint:ADDRESS#MODEL``, ``model:PATH`` or ``python:module:function``, with options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from stratagem.errors import InputError, unknown
from stratagem.helpers.endpoint import Endpoint
from stratagem.helpers.helper import Counted, Helper, Wording
from stratagem.helpers.local import LocalModel
from stratagem.helpers.recording import Recording
from stratagem.helpers.scripted import scripted

_WORDING = tuple(entry.name for entry in fields(Wording))
_ENDPOINT = tuple(entry.name for entry in fields(Endpoint) if entry.init and entry.name not in ("address", "model"))
_RECORDING = ("record", "mode")


@cache
def helper(spec: str) -> Counted:
    """The helper of a specification ``KIND:WHERE[;option=value...]``; equal ones are one and the same in a process.

    ``endpoint:http://127.0.0.1:8000/v1#model-name``: a server. Options: those of :class:`Wording` and of
    :class:`Endpoint`. ``model:PATH``: a model in this process, ``tiny`` the one that ships with the package. Options:
    those of :class:`Wording`. ``python:module:function``: called as ``function(messages, seed)``. All of them take
    ``record=PATH`` and ``mode=record|replay|refresh`` (see :class:`Recording`).

    Raises :class:`InputError` in one line for anything that is wrong with it. Nobody is asked yet, and a model is read
    when it is.
    """
    named, *pieces = spec.strip().split(";")
    kind, _, where = named.partition(":")
    if kind not in _KINDS or not where:
        if kind and where and "://" not in named[: len(kind) + 3]:
            raise unknown("kind of helper", kind, _KINDS)
        raise InputError(
            f"helper {spec!r} is malformed; write endpoint:ADDRESS#MODEL, model:PATH or python:module:function"
        )
    options = _options(spec, pieces)
    recorded = {name: options.pop(name) for name in _RECORDING if name in options}
    made = _KINDS[kind](spec, where, options)
    if "mode" in recorded and "record" not in recorded:
        raise InputError(f"helper {spec!r}: mode needs record=PATH")
    if "record" in recorded:
        made = Recording(made, recorded["record"], recorded.get("mode", "record"))  # type: ignore[arg-type]
    return Counted(made, named)


def _endpoint(spec: str, where: str, options: Mapping[str, str]) -> Helper:
    _known(options, (*_WORDING, *(name for name in _ENDPOINT if name != "wording")))
    address, _, model = where.partition("#")
    if not model:
        raise InputError(f"helper {spec!r} names no model; write endpoint:ADDRESS#MODEL")
    own: dict[str, Any] = {name: value for name, value in options.items() if name not in _WORDING}
    return Endpoint(address, model, _wording(options), **own)


def _model(spec: str, where: str, options: Mapping[str, str]) -> Helper:
    _known(options, tuple(name for name in _WORDING if name != "seeded"))
    return LocalModel(where, _wording(options))


def _python(spec: str, where: str, options: Mapping[str, str]) -> Helper:
    _known(options, ())
    return scripted(where)


_KINDS = {"endpoint": _endpoint, "model": _model, "python": _python}


def _wording(options: Mapping[str, Any]) -> Wording:
    return Wording(**{name: options[name] for name in _WORDING if name in options})


def _known(options: Mapping[str, str], names: tuple[str, ...]) -> None:
    for name in options:
        if name not in names:
            raise unknown("option of a helper", name, (*names, *_RECORDING))


def _options(spec: str, pieces: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"helper {spec!r}: {piece!r} is no option; write option=value")
        if name.strip() in options:
            raise InputError(f"helper {spec!r}: option {name.strip()!r} is given twice")
        options[name.strip()] = value.strip()
    return options
