"""Answers of a helper kept in a file, so that a run can be repeated without it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from stratagem.errors import InputError, unknown
from stratagem.helpers.helper import Helper, Question, Reply
from stratagem.helpers.lines import append_lines, line_lock

Mode = Literal["record", "replay", "refresh"]


class Recording:
    """A helper whose answers are kept as JSON lines, each under a hash of helper, messages and seed.

    mode: ``record`` answers from the file and asks the helper what is not in it; ``replay`` never asks, what is not in
    the file is a failure; ``refresh`` asks everything once more in this process, and its answers replace older ones.

    Failures are not kept. Several processes may share a file: a line is appended whole under a lock, and in ``record``
    the first answer to a question is the answer for all. A line that a killed process left unfinished is passed over
    and counted in ``damaged``.

    Raises :class:`InputError` for an unknown mode, a file that cannot be read or written, and in ``replay`` for one
    that does not exist.
    """

    def __init__(self, helper: Helper, path: str | Path, mode: Mode = "record") -> None:
        if mode not in get_args(Mode):
            raise unknown("mode of a recording", mode, get_args(Mode))
        self.helper = helper
        self.path = Path(path).expanduser()
        self.mode = mode
        self.damaged = 0
        self._texts: dict[str, str] = {}
        self._fresh: set[str] = set()
        self._read_to = 0
        self._lock = threading.RLock()
        self._prepare()

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.helper.identity

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        identity = self.identity
        keys = [request_key(identity, question) for question in questions]
        known = self._known(keys)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        if missing and self.mode == "replay":
            failed = Reply(None, f"recording {self.path}: no answer to this question, and mode is replay")
            return [known.get(key, failed) for key in keys]
        asked = dict(zip(missing, self.helper.ask(list(missing.values())) if missing else [], strict=True))
        return [(known | self._kept(identity, missing, asked))[key] for key in keys]

    def _prepare(self) -> None:
        try:
            if self.mode == "replay":
                self._load()
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with line_lock(self.path):
                    self.path.touch()
                    self._load()
        except FileNotFoundError:
            raise InputError(f"recording {self.path}: no such file to replay from") from None
        except OSError as error:
            raise InputError(f"recording {self.path}: {error.strerror or error}") from None

    def _known(self, keys: Sequence[str]) -> dict[str, Reply]:
        with self._lock:
            if self.mode == "record" and any(key not in self._texts for key in keys):
                # Another process may have asked meanwhile.
                self._load()
            usable = self._fresh if self.mode == "refresh" else self._texts.keys()
            return {key: Reply(self._texts[key]) for key in keys if key in usable}

    def _kept(
        self, identity: Mapping[str, Any], asked: Mapping[str, Question], replies: Mapping[str, Reply]
    ) -> dict[str, Reply]:
        """The replies, after those that are answers are in the file, or the ones that are there already."""
        if not any(reply.text is not None for reply in replies.values()):
            return dict(replies)
        with self._lock, line_lock(self.path):
            self._load()
            found, lines = dict(replies), []
            for key, reply in replies.items():
                if self.mode == "record" and key in self._texts:
                    found[key] = Reply(self._texts[key])
                elif reply.text is not None:
                    lines.append(_line(key, identity, asked[key], reply.text))
                    self._fresh.add(key)
            append_lines(self.path, lines)
            self._load()
        return found

    def _load(self) -> None:
        """Read whole lines that were not read yet."""
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                key, text = entry["key"], entry["text"]
                if not (isinstance(key, str) and isinstance(text, str)):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                self.damaged += bool(line.strip())
                continue
            self._texts[key] = text


def request_key(identity: Mapping[str, Any], question: Question) -> str:
    """A hash of all that decides an answer, 64 hexadecimal digits; the same in every process."""
    return hashlib.sha256(_plain(_request(identity, question)).encode("utf-8", "surrogatepass")).hexdigest()


def _request(identity: Mapping[str, Any], question: Question) -> dict[str, Any]:
    messages = [dict(message) for message in question.messages]
    return {"helper": dict(identity), "messages": messages, "seed": question.seed}


def _line(key: str, identity: Mapping[str, Any], question: Question, text: str) -> str:
    return _plain({"key": key, "text": text, "request": _request(identity, question)}) + "\n"


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
