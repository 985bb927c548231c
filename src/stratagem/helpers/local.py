"""A helper that is a language model in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stratagem.errors import InputError
from stratagem.helpers.helper import Question, Reply, Wording, one_line

if TYPE_CHECKING:
    from stratagem.language.chat import ChatFormat
    from stratagem.language.engine import Completion, Engine, Request
    from stratagem.language.sampling import SamplingParams


@dataclass
class LocalModel:
    """A model from a folder or of a hub name, read when it is first asked, and never trained.

    All questions of a call are answered as one batch of the engine. What a question is answered depends on its messages
    and seed alone, up to rounding.

    Raises :class:`InputError` from :meth:`ask` when there is no such model: that is no fault of the moment.
    """

    path: str
    wording: Wording = field(default_factory=Wording)
    _served: tuple[Engine, ChatFormat] | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        wording = self.wording
        return {
            "kind": "model",
            "model": self.path,
            "temperature": wording.temperature,
            "top_p": wording.top_p,
            "max_tokens": wording.max_tokens,
        }

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        # An engine answers one batch at a time.
        with self._lock:
            engine, chat = self._serve()
            sessions = engine.open(len(questions))
            try:
                requests, failures = self._requests(questions, sessions, chat)
                answers = dict(zip((r.session for r in requests), engine.generate(requests), strict=True))
            finally:
                engine.close(sessions)
        return [failures.get(session) or _reply(answers[session]) for session in sessions]

    def _serve(self) -> tuple[Engine, ChatFormat]:
        from stratagem.language.chat import ChatFormat
        from stratagem.language.hf_engine import HFEngine
        from stratagem.language.policy import LanguagePolicy
        from stratagem.language.pretrain import tiny_model_path

        if self._served is None:
            policy = LanguagePolicy.from_path(tiny_model_path() if self.path == "tiny" else self.path)
            self._served = HFEngine(policy), ChatFormat(policy.tokenizer)
        return self._served

    def _requests(
        self, questions: Sequence[Question], sessions: Sequence[int], chat: ChatFormat
    ) -> tuple[list[Request], dict[int, Reply]]:
        from stratagem.language.engine import Request

        params, requests, failures = self._params(chat), list[Request](), dict[int, Reply]()
        for session, question in zip(sessions, questions, strict=True):
            try:
                tokens = chat.opening([dict(message) for message in question.messages])
            except InputError as error:
                failures[session] = Reply(None, one_line(f"model {self.path}: {error}"))
                continue
            requests.append(Request(session, tokens, question.seed, params))
        return requests, failures

    def _params(self, chat: ChatFormat) -> SamplingParams:
        from stratagem.language.sampling import SamplingParams

        wording = self.wording
        greedy = wording.temperature == 0
        return SamplingParams(
            max_new_tokens=wording.max_tokens,
            temperature=1.0 if greedy else wording.temperature,
            top_p=1.0 if greedy else wording.top_p,
            stop_token_ids=chat.end_token_ids,
            greedy=greedy,
        )


def _reply(completion: Completion) -> Reply:
    if not completion.tokens:
        return Reply(None, "the question fills the model's context")
    return Reply(completion.text)
