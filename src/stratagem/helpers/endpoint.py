"""A helper behind an OpenAI-compatible HTTP address: bounded in time and tries, with the server's words in failures."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from stratagem.errors import InputError
from stratagem.helpers.helper import Question, Reply, Wording, one_line
from stratagem.seeding import derive
from stratagem.validation import validate_fields

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "STRATAGEM_HELPER_KEY"
"""Environment variable that is looked in for a key, unless another is named."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST = 4 * 2**20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_MODEST = 3


@dataclass(frozen=True)
class _Tried:
    """How one try ended: a reply, or a failure that may pass, perhaps after as many seconds as the server asks."""

    reply: Reply
    passing: bool = False
    wait: float = 0.0


@dataclass
class Endpoint:
    """``POST address/chat/completions``; the answer is the content of the first choice.

    A try that cannot connect, breaks off, takes longer than ``timeout`` seconds or is answered 408, 425, 429 or a
    server error is made again, at most ``retries`` times, after ``backoff``, ``2 backoff``, ``4 backoff`` ... seconds
    (between a half and all of it, by the question's seed), or the time the server asks for, if that is longer. After
    ``deadline`` seconds in all the question has failed. Any other status and an answer that cannot be read fail at
    once. A server that falls silent in the middle of an answer is noticed after at most twice ``timeout``. After three
    failed questions in a row a question gets one try, until one succeeds: a server that is gone costs a run one
    time-out a question.

    The key is the value of an environment variable, ``key`` its name; without that variable none is sent. It is in no
    recording, log or message. An address is ``http://`` or ``https://`` without user, query or fragment. Redirections
    are not followed.

    address: up to the version, such as ``http://127.0.0.1:8000/v1``.  model: as the server calls it.
    parallel: questions of one call that are asked at the same time.

    Raises :class:`InputError` for a malformed address and a value out of range.
    """

    address: str
    model: Annotated[str, Field(min_length=1)]
    wording: Wording = field(default_factory=Wording)
    timeout: Annotated[float, Field(gt=0, le=3600)] = 20.0
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    backoff: Annotated[float, Field(ge=0, le=60)] = 0.5
    deadline: Annotated[float, Field(gt=0, le=36_000)] = 25.0
    parallel: Annotated[int, Field(ge=1, le=256)] = 8
    key: str = KEY_VARIABLE
    _client: Any = field(default=None, init=False, repr=False)
    _owner: int = field(default=0, init=False, repr=False)
    _failures: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.address = _checked(self.address)
        if not _VARIABLE.fullmatch(self.key):
            # Not shown, since it may be the key itself.
            raise InputError(f"helper 'endpoint:{self.address}': key is no name of an environment variable")
        validate_fields(self, f"helper 'endpoint:{self.address}'")

    @property
    def identity(self) -> Mapping[str, Any]:
        """Without the address: the same model is the same helper wherever it is served."""
        wording = self.wording
        return {
            "kind": "endpoint",
            "model": self.model,
            "temperature": wording.temperature,
            "top_p": wording.top_p,
            "max_tokens": wording.max_tokens,
            "seeded": wording.seeded,
        }

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        if len(questions) < 2:
            return [self._answer(question) for question in questions]
        with ThreadPoolExecutor(min(self.parallel, len(questions))) as pool:
            return list(pool.map(self._answer, questions))

    def _answer(self, question: Question) -> Reply:
        end = time.monotonic() + self.deadline
        tries = 1 + (self.retries if self._failures < _MODEST else 0)
        for number in range(tries):
            tried = self._try(question, end)
            if not tried.passing or number + 1 == tries:
                break
            pause = max(self.backoff * 2**number * _share(question.seed, number), tried.wait)
            if time.monotonic() + pause >= end:
                break
            time.sleep(pause)
        with self._lock:
            self._failures = self._failures + 1 if tried.reply.text is None else 0
        return tried.reply

    def _try(self, question: Question, end: float) -> _Tried:
        import httpx  # slow, and of use to those alone who ask

        limit = min(end, time.monotonic() + self.timeout)
        seconds = max(limit - time.monotonic(), 0.01)
        url = f"{self.address}/chat/completions"
        try:
            with self._connection().stream(
                "POST", url, json=self._body(question), headers=self._headers(), timeout=httpx.Timeout(seconds)
            ) as response:
                content = _read(response, limit)
        except (httpx.TimeoutException, TimeoutError):
            return _Tried(self._failed(f"no answer within {seconds:.3g} s"), passing=True)
        except httpx.ConnectError as error:
            return _Tried(self._failed(f"cannot connect ({one_line(error)})"), passing=True)
        except (httpx.TransportError, OSError) as error:
            return _Tried(self._failed(f"connection broke ({type(error).__name__}: {one_line(error)})"), passing=True)
        except (httpx.DecodingError, _TooLongError) as error:
            return _Tried(self._failed(f"answer cannot be read ({one_line(error)})"))
        if response.status_code != 200:
            return self._refused(response, content)
        return _Tried(self._read_answer(content))

    def _refused(self, response: httpx.Response, content: bytes) -> _Tried:
        status = response.status_code
        reply = self._failed(f"status {status}: {_words(content) or response.reason_phrase or 'no reason given'}")
        wait = response.headers.get("retry-after", "")
        return _Tried(reply, status in _PASSING, float(wait) if wait.isdecimal() else 0.0)

    def _read_answer(self, content: bytes) -> Reply:
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            shown = one_line(content.decode("utf-8", "replace"), 80)
            return self._failed(f"answer holds no choices[0].message.content: {shown or 'it is empty'}")
        if not isinstance(text, str):
            return self._failed(f"the content of the answer is {type(text).__name__} instead of text")
        return Reply(text)

    def _failed(self, reason: str) -> Reply:
        key = self._key()
        reason = reason.replace(key, "***") if key else reason
        return Reply(None, f"{self.address}, model {self.model}: {reason}")

    def _body(self, question: Question) -> dict[str, Any]:
        wording = self.wording
        body = {
            "model": self.model,
            "messages": [dict(message) for message in question.messages],
            "temperature": wording.temperature,
            "top_p": wording.top_p,
            "max_tokens": wording.max_tokens,
        }
        # Servers keep a seed in 32 bits.
        return body | ({"seed": question.seed % 2**31} if wording.seeded else {})

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        return os.environ.get(self.key, "").strip()

    def _connection(self) -> Any:
        with self._lock:
            # A process that was forked must not go on with its parent's connections.
            if self._client is None or self._owner != os.getpid():
                import httpx

                limits = httpx.Limits(max_connections=self.parallel)
                self._client, self._owner = httpx.Client(limits=limits), os.getpid()
            return self._client


class _TooLongError(Exception):
    """An answer without an end."""


def _checked(address: str) -> str:
    """The address without a slash at its end."""
    must = "write http://HOST[:PORT]/PATH, without user, query or fragment"
    try:
        parts = urlsplit(address)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        raise InputError(f"helper address {address!r} is malformed; {must}") from None
    if parts.username is not None or parts.password is not None:
        # The address is not shown, for it holds a secret.
        raise InputError(f"helper address with a user or password; {must}, and keep keys in an environment variable")
    if wrong or parts.query or parts.fragment or any(sign.isspace() for sign in address):
        raise InputError(f"helper address {address!r} is malformed; {must}")
    return address.rstrip("/")


def _read(response: httpx.Response, limit: float) -> bytes:
    """The body; a server that sends it in drops is held to the same time as one that is silent."""
    pieces, size = [], 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise _TooLongError(f"longer than {_LARGEST} bytes")
        if time.monotonic() > limit:
            raise TimeoutError
    return b"".join(pieces)


def _words(content: bytes) -> str:
    """What a server says of an error: the message of its JSON, or its text."""
    text = content.decode("utf-8", "replace")
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text)
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return one_line(said if isinstance(said, str) else json.dumps(said))


def _share(seed: int, number: int) -> float:
    """Between a half and 1."""
    return 0.5 + 0.5 * derive(seed, "backoff", number) / 2**63
