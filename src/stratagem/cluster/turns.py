"""Sessions as the pool keeps them, and the turns that are being sampled in them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stratagem.cluster.rollout_worker import Answer
from stratagem.language.engine import Completion, Request
from stratagem.sampling.growth import Growth
from stratagem.seeding import derive


@dataclass(eq=False)
class Session:
    """A conversation: its tokens, and what the worker it is pinned to holds of it.

    place: number of the worker.  key: the worker's name for it, None where it has not got it.  life: of the worker that
    has it; a worker that was started again is in another life and has nothing.  held: first tokens that the worker has.
    known: first tokens that some worker has had.  busy: the call that a turn of it belongs to.
    """

    place: int
    tokens: list[int] = field(default_factory=list)
    key: int | None = None
    life: int = 0
    held: int = 0
    known: int = 0
    busy: Call | None = None


@dataclass(eq=False)
class Turn:
    """A request being served, perhaps slice by slice."""

    request: Request
    session: Session
    call: Call
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    last: Completion | None = None

    def asked(self, slice_tokens: int | None) -> Request:
        """What to ask of the session's worker, which holds ``session.held`` tokens; its first slice is the request.

        The seed of a further slice follows from the request's and from how many tokens were said.
        """
        session, request, said = self.session, self.request, len(self.tokens)
        new, had = [*request.tokens, *self.tokens], session.held - len(session.tokens)
        tokens = [*session.tokens[session.held :], *new] if had < 0 else new[had:]
        assert session.key is not None
        left = request.params.max_new_tokens - said
        return Request(
            session.key,
            tokens,
            derive(request.seed, "slice", said) if said else request.seed,
            replace(request.params, max_new_tokens=left if slice_tokens is None else min(left, slice_tokens)),
            [*request.said, *self.tokens] if said else request.said,
            request.role,
        )

    def heard(self, asked: Request, completion: Completion) -> bool:
        """Enter what was sampled when this was asked; whether the turn has thereby ended."""
        self.tokens += completion.tokens
        self.logp += completion.logp
        self.versions += [completion.version] * len(completion.tokens)
        self.last = completion
        cut = completion.finish_reason == "length" and len(completion.tokens) == asked.params.max_new_tokens
        return not cut or len(self.tokens) == self.request.params.max_new_tokens

    @property
    def completion(self) -> Completion:
        """The whole turn, once it has ended."""
        assert self.last is not None
        if len(self.tokens) == len(self.last.tokens):
            return self.last
        versions = self.versions if len(set(self.versions)) > 1 else None
        said = replace(self.last, tokens=self.tokens, logp=self.logp, version=self.versions[-1])
        return replace(said, versions=versions)


@dataclass(eq=False)
class Growing:
    """A tree that one worker is to grow from the turns of these paths, whole.

    answer: what came of it.  fresh: sessions of the paths that came off others, in their order.
    """

    turns: list[Turn]
    paths: Sequence[int]
    growth: Growth
    answer: Answer | None = None
    fresh: list[Session] = field(default_factory=list)

    def grown(self, answer: Answer, place: int, life: int) -> None:
        """Enter what a worker in this life made of it, before the turns end."""
        assert answer.written is not None and answer.growth is not None
        self.answer = answer
        roots = dict(zip(self.paths, self.turns, strict=True))
        parent = answer.growth.paths.parent.tolist()
        for written in answer.written[len(self.turns) :]:
            path = written.path
            while path not in roots:
                path = parent[path]
            turn = roots[path]
            tokens = [*turn.session.tokens, *turn.request.tokens, *written.completion.tokens]
            self.fresh.append(Session(place, tokens, written.session, life, len(tokens), len(tokens)))


class Call:
    """What one caller waits for: turns that are sampled wherever their sessions are.

    It ends when no worker has anything of it any more. If something went wrong, it ends with ``error``.
    """

    def __init__(self, requests: Sequence[Request], sessions: Sequence[Session]) -> None:
        self.turns = [Turn(request, session, self) for request, session in zip(requests, sessions, strict=True)]
        self.left = len(self.turns)
        self.error: BaseException | None = None
        self.ended = threading.Event()
        for session in sessions:
            session.busy = self

    def fail(self, error: BaseException) -> None:
        """Give up; the first error counts."""
        self.error = self.error or error
