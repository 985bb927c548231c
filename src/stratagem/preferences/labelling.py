"""A page on this machine where a person says which of two answers, or two trajectories, is better."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from stratagem.errors import InputError
from stratagem.seeding import derive

VERDICTS = ("left", "right", "tie", "skip")

LARGEST_REQUEST = 4096
"""Bytes of what the page may send."""

_EXAMPLE = '{"prompt": "2 + 3?", "first": "5", "second": "6"}'


@dataclass(frozen=True)
class Question:
    """One pair: what was asked, and two answers, each a text or ``{"frames": [text, ...]}``.

    key: of its content, by which labels are found again.  line: in the file, from 1.
    """

    key: str
    prompt: str
    first: str | dict[str, Any]
    second: str | dict[str, Any]
    line: int


def read_questions(path: Path) -> list[Question]:
    """The pairs of a file with lines ``{"prompt": text, "first": answer, "second": answer}``.

    An answer is a text, or a trajectory, ``{"frames": [...]}``, whose frames are texts or images as ``data:image/``
    addresses. A pair that occurs again is asked once. Raises :class:`InputError` naming path and line for a line of
    another kind, and for a file without pairs.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason})") from None
    found: dict[str, Question] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            question = _question(f"{path}, line {number}", line, number)
            found.setdefault(question.key, question)
    if not found:
        raise InputError(f"{path}: there are no pairs; a line is like {_EXAMPLE}")
    return list(found.values())


def _question(where: str, line: str, number: int) -> Question:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: is not JSON ({error.msg}); a line is like {_EXAMPLE}") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise InputError(f"{where}: prompt must be a text; a line is like {_EXAMPLE}")
    first: Any = record.get("first")
    second: Any = record.get("second")
    for name, answer in (("first", first), ("second", second)):
        frames = answer.get("frames") if isinstance(answer, dict) else None
        shown = isinstance(frames, list) and frames and all(isinstance(frame, str) for frame in frames)
        if not isinstance(answer, str) and not shown:
            raise InputError(f'{where}: {name} must be a text or {{"frames": [text, ...]}}; a line is like {_EXAMPLE}')
    if first == second:
        raise InputError(f"{where}: first and second are the same answer")
    content = json.dumps([record["prompt"], first, second], sort_keys=True)
    return Question(hashlib.sha256(content.encode()).hexdigest()[:16], record["prompt"], first, second, number)


class Labelling:
    """The questions of a file and one person's labels, written to another as they are given.

    A label is a line ``{"prompt", "chosen", "rejected", "tie", "annotator", "question", "left"}``: ``tie`` where it is
    true, ``question`` its key, ``left`` which of ``first`` and ``second`` was on the left, by chance, so that a habit
    of the hand favours neither. It is on the disk before the next question is shown. Whoever starts again with the
    same files goes on where they stopped; a line that a crash cut short is removed (``torn``).

    Raises :class:`InputError` for files that cannot be read or written, or a file of labels that is something else.
    """

    def __init__(self, questions: Path, labels: Path, annotator: str = "me") -> None:
        if not annotator.strip():
            raise InputError("--annotator: must be a name")
        if labels.resolve() == questions.resolve():
            raise InputError(f"--out {labels}: is the file of questions")
        self.path, self.annotator, self.torn = labels, annotator, 0
        self.questions = {question.key: question for question in read_questions(questions)}
        done = self._resume()
        self.done = len(done)
        self._waiting = deque(key for key in self.questions if key not in done)
        self._given: list[tuple[str, int, int]] = []
        self._lock = threading.Lock()

    # ---- what the page asks ----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How far it is, and the question to be shown; None when all are labelled."""
        shown = None
        if self._waiting:
            question = self.questions[self._waiting[0]]
            left, right = self._sides(question)
            sides = {"left": getattr(question, left), "right": getattr(question, right)}
            shown = {"key": question.key, "prompt": question.prompt, **sides}
        return {"done": self.done, "total": len(self.questions), "undo": bool(self._given), "question": shown}

    def label(self, key: str, verdict: str) -> dict[str, Any]:
        """Take a verdict on the question that is shown; returns the new state.

        ``skip`` puts it behind the others. One on another question, as from a second window, changes nothing.
        Raises :class:`InputError` for a verdict there is not, or labels that cannot be written.
        """
        if verdict not in VERDICTS:
            raise InputError(f"verdict {verdict!r}: must be one of {', '.join(VERDICTS)}")
        with self._lock:
            if self._waiting and self._waiting[0] == key:
                if verdict == "skip":
                    self._waiting.rotate(-1)
                else:
                    self._given.append((key, *self._append(self._line(self.questions[key], verdict))))
                    self._waiting.popleft()
                    self.done += 1
            return self.state()

    def undo(self) -> dict[str, Any]:
        """Take the last label of this session back and ask again; returns the new state.

        Raises :class:`InputError` when somebody else has written to the file since.
        """
        with self._lock:
            if self._given:
                key, start, end = self._given[-1]
                if self.path.stat().st_size != end:
                    raise InputError(f"{self.path}: has changed since; the last label cannot be taken back")
                os.truncate(self.path, start)
                self._given.pop()
                self._waiting.appendleft(key)
                self.done -= 1
            return self.state()

    # ---- the file --------------------------------------------------------------------------------------------------

    def _sides(self, question: Question) -> tuple[str, str]:
        """Which answer is shown left, and which right."""
        swapped = derive(int(question.key, 16), "left", self.annotator) % 2
        return ("second", "first") if swapped else ("first", "second")

    def _line(self, question: Question, verdict: str) -> dict[str, Any]:
        left, right = self._sides(question)
        better, worse = (right, left) if verdict == "right" else (left, right)
        line = {
            "prompt": question.prompt,
            "chosen": getattr(question, better),
            "rejected": getattr(question, worse),
            "annotator": self.annotator,
            "question": question.key,
            "left": left,
        }
        return line | ({"tie": True} if verdict == "tie" else {})

    def _append(self, line: Mapping[str, Any]) -> tuple[int, int]:
        """Write a line; where it begins and ends."""
        try:
            with self.path.open("ab") as file:
                start = file.tell()
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
                return start, file.tell()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None

    def _resume(self) -> set[str]:
        """The questions of ours that this person has labelled."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be written ({error.strerror})") from None
        *lines, rest = content.split(b"\n")
        records = [self._read(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if rest:
            # Only what was cut short has no end of line.
            os.truncate(self.path, len(content) - len(rest))
            self.torn = 1
        return {
            record["question"]
            for record in records
            if record.get("annotator") == self.annotator and record.get("question") in self.questions
        }

    def _read(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not {"prompt", "chosen", "rejected"} <= record.keys():
            raise InputError(f"--out {self.path}, line {number}: is no label; name another file")
        return record


# ---- the server -----------------------------------------------------------------------------------------------------


def serve(labelling: Labelling, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page on 127.0.0.1; ``serve_forever`` runs it.

    Nobody else can reach it: it listens on loopback alone, and answers only requests to that address, in JSON where
    they change something, which pages of other origins cannot send.

    port: 0: any that is free. Raises :class:`InputError` for one that is not.
    """

    class Handler(_Handler):
        pass

    Handler.labelling = labelling
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be listened on ({error})") from None


class _Handler(BaseHTTPRequestHandler):
    labelling: ClassVar[Labelling]

    def do_GET(self) -> None:
        """The page and its state."""
        if not self._ours():
            return
        if self.path == "/":
            page = Path(__file__).with_name("labelling.html").read_bytes()
            self._send(HTTPStatus.OK, page, "text/html; charset=utf-8")
        elif self.path == "/state":
            self._said(HTTPStatus.OK, self.labelling.state())
        else:
            self._said(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})

    def do_POST(self) -> None:
        """A verdict, or taking one back."""
        if not self._ours():
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if self.headers.get_content_type() != "application/json" or not 0 <= length <= LARGEST_REQUEST:
                raise ValueError("it must be a little JSON")
            asked = json.loads(self.rfile.read(length))
            if self.path == "/label":
                said = self.labelling.label(str(asked["key"]), str(asked["verdict"]))
            elif self.path == "/undo":
                said = self.labelling.undo()
            else:
                self._said(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
                return
        except InputError as error:
            self._said(HTTPStatus.CONFLICT, {"error": str(error)})
        except (ValueError, KeyError, TypeError) as error:
            self._said(HTTPStatus.BAD_REQUEST, {"error": f"not understood: {error}"})
        else:
            self._said(HTTPStatus.OK, said)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal is the person's."""

    def _ours(self) -> bool:
        """Whether the request is to this address; a name that was made to point here is not."""
        _, port = self.connection.getsockname()
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self._said(HTTPStatus.FORBIDDEN, {"error": "this page is on 127.0.0.1 alone"})
        return False

    def _said(self, status: HTTPStatus, said: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(said).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
        self.send_header("Content-Security-Policy", f"{policy}; connect-src 'self'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(body)
