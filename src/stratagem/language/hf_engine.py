"""The in-process engine: batched decoding of a Hugging Face model, with a cache kept between the turns of a session."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stratagem.errors import InputError, unknown
from stratagem.language.attention import Layout, run_trunk
from stratagem.language.engine import Completion, FinishReason, Request, WeightSource, Written, copy_weights, exclusive
from stratagem.language.fused import fuse
from stratagem.language.kv_cache import CachedSequences, KVCache, NextTokens
from stratagem.language.policy import ComputeType, LanguagePolicy, native_bfloat16
from stratagem.language.prefixes import Known, rounds
from stratagem.language.sampling import Sampler
from stratagem.language.stops import Endings, check_open, check_requests
from stratagem.sampling.growth import Growth
from stratagem.seeding import derive

# A prefill is cut into pieces of at most this many new tokens and this many attention scores per head.
_PREFILL_TOKENS = 2**14
_PREFILL_SCORES = 2**24


@dataclass(eq=False)
class _Session:
    """A conversation: its tokens, how many of them are in the cache, and in which row."""

    row: int
    tokens: list[int] = field(default_factory=list)
    cached: int = 0


@dataclass(eq=False)
class _Turn:
    """A request being served. path: its number, where it is a path of a tree."""

    request: Request
    session: _Session
    budget: int
    ends: frozenset[int]
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    path: int = -1


class HFEngine:
    """Serves a copy of a policy's weights (see :class:`~stratagem.language.engine.Engine`).

    Sessions keep their keys and values between turns, so a turn computes only what is new; turns that finish leave
    the running batch. What new sessions begin with is computed once for all of them, and taken over from an open
    session that begins alike (or, within :meth:`keeping`, from one that was closed): a branch of a conversation reads
    only what is new in it. Weights that change invalidate all of it. Threads may share it; they take turns.

    policy: whose model and tokenizer to serve; the engine has its own copy of the weights, adapters merged.
    max_sessions: most sessions open at once.
    dtype: compute type of the copy. "float32" agrees with a float32 learner to about 1e-6; "bfloat16" is faster where
        native; "auto" takes the latter there.
    version: of the policy's present weights.
    device: where the copy is, and computes; None: with the policy. Of a policy that is elsewhere only one tensor at a
        time comes there beside the copy. CUDA was not tried with a policy in main memory.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        max_sessions: int = 4096,
        dtype: ComputeType = "float32",
        version: int = 0,
        device: torch.device | None = None,
    ) -> None:
        if max_sessions < 1:
            raise InputError(f"max_sessions must be at least 1, got {max_sessions}")
        if dtype not in ("auto", "float32", "bfloat16"):
            raise unknown("dtype", dtype, ("auto", "float32", "bfloat16"))
        device = policy.device if device is None else device
        low = dtype == "bfloat16" or (dtype == "auto" and native_bfloat16(device))
        self._model = _served_copy(policy.model, torch.bfloat16 if low else torch.float32, device)
        self._fused = fuse(self._model)
        self._head = cast(nn.Module, self._model.get_output_embeddings())
        self._limit = int(self._model.config.max_position_embeddings)
        self._max_sessions = max_sessions
        self._lock = threading.RLock()
        self._sessions: dict[int, _Session] = {}
        self._rows: list[_Session] = []
        self._kept: list[_Session] = []
        self._keeping = 0
        self._opened = 0
        self._prefilled = self._taken_over = 0
        self._cache = _cache_for(self._model)
        self._endings = Endings(policy.tokenizer)
        self.load_weights(policy, version)

    @property
    def version(self) -> int:
        """Of the weights being served."""
        return self._version

    @property
    def vocabulary(self) -> int:
        """Tokens it chooses among, those without a meaning included."""
        return int(cast(nn.Linear, self._head).weight.shape[0])

    @property
    def prefilled(self) -> int:
        """Tokens computed so far that were read and not sampled."""
        return self._prefilled

    @property
    def taken_over(self) -> int:
        """Tokens so far that a session read and another one had computed."""
        return self._taken_over

    @contextmanager
    def keeping(self, most: int) -> Iterator[None]:
        """While it lasts, what closed sessions computed stays, for new ones that begin with the same tokens.

        most: sessions kept, those closed first; and fewer where ``max_sessions`` would be held in all.
        """
        before, self._keeping = self._keeping, most
        try:
            yield
        finally:
            with self._lock:
                self._keeping = before
                self._forget(self._kept[before:])

    @exclusive
    def open(self, count: int) -> list[int]:
        """Start ``count`` empty sessions. Raises :class:`InputError` beyond ``max_sessions``."""
        if len(self._sessions) + count > self._max_sessions:
            raise InputError(
                f"{count} sessions beside the {len(self._sessions)} open ones exceed max_sessions={self._max_sessions}"
            )
        too_many = len(self._rows) + count - self._max_sessions
        if too_many > 0:
            self._forget(self._kept[-too_many:])
        numbers = list(range(self._opened, self._opened + count))
        self._opened += count
        for number in numbers:
            session = _Session(row=len(self._rows))
            self._sessions[number] = session
            self._rows.append(session)
        return numbers

    @exclusive
    def close(self, sessions: Sequence[int]) -> None:
        """Forget these sessions. The cache's memory is given back with the last one."""
        closed = list(dict.fromkeys(self._session(number) for number in sessions))
        for number in sessions:
            self._sessions.pop(number, None)
        kept = [session for session in closed if session.cached][: max(self._keeping - len(self._kept), 0)]
        self._kept += kept
        self._forget([session for session in closed if session not in kept])

    @torch.inference_mode()
    def _forget(self, sessions: Sequence[_Session]) -> None:
        """Give up the rows of these sessions, which are no longer open."""
        gone = set(sessions)
        self._kept = [session for session in self._kept if session not in gone]
        if not self._sessions and not self._kept:
            self._rows.clear()
            self._cache.free()
            return
        left = len(self._rows) - len(gone)
        holes = sorted(session.row for session in gone if session.row < left)
        movers = [session for session in self._rows[left:] if session not in gone]
        if any(session.cached for session in movers):
            self._cache.reserve(len(self._rows), self._cache.capacity)
            self._cache.move([session.row for session in movers], holes, self._cache.capacity)
        for hole, session in zip(holes, movers, strict=True):
            self._rows[hole], session.row = session, hole
        del self._rows[left:]

    @exclusive
    @torch.no_grad()
    def load_weights(self, policy: WeightSource, version: int) -> None:
        """Serve the policy's weights from now on; open sessions are computed anew from their tokens at their next turn.

        Raises :class:`WeightMismatchError` unless every served tensor has the fingerprint of the policy's.
        """
        copy_weights(policy, self._model.state_dict())
        self._forget(self._kept)
        for session in self._rows:
            session.cached = 0
        self._version = version

    @exclusive
    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One turn of each of these sessions, in the order of the requests.

        Raises :class:`InputError` for a session that is not open, occurs twice or has nothing to continue from.
        """
        check_requests(requests, {number: len(session.tokens) for number, session in self._sessions.items()})
        turns = [self._begin(request) for request in requests]
        running = sorted((turn for turn in turns if turn.budget > 0), key=lambda turn: turn.session.row)
        if running:
            self._to_front(running)
            self._decode(running)
        return [self._completion(turn) for turn in turns]

    @exclusive
    @torch.inference_mode()
    def grow(self, requests: Sequence[Request], paths: Sequence[int], growth: Growth) -> list[Written]:
        """One turn of each of these paths and of all that come off them (:class:`~.engine.TreeEngine`).

        What a path takes over is copied and not computed again. Raises :class:`InputError` as :meth:`generate` does,
        and when the paths of a turn, cut ones included, are more than ``max_sessions``.
        """
        check_requests(requests, {number: len(session.tokens) for number, session in self._sessions.items()})
        turns = [self._begin(request) for request in requests]
        for turn, path in zip(turns, paths, strict=True):
            turn.path = path
        every = list(turns)
        running = sorted((turn for turn in turns if turn.budget > 0), key=lambda turn: turn.session.row)
        if running:
            self._to_front(running)
            self._decode(running, growth, every)
        return [Written(t.path, t.request.session, t.request.seed, self._completion(t)) for t in every]

    # ---- one turn -------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> _Turn:
        session = self._session(request.session)
        room = self._limit - len(session.tokens) - len(request.tokens)
        if room > 0:
            session.tokens.extend(request.tokens)
        ends = self._endings.tokens(request.params)
        return _Turn(request, session, min(request.params.max_new_tokens, max(room, 0)), ends)

    def _completion(self, turn: _Turn) -> Completion:
        text = self._endings.text(turn.request, turn.tokens)
        return Completion(turn.tokens, turn.logp, turn.finish_reason, self._version, text)

    def _decode(self, turns: list[_Turn], growth: Growth | None = None, every: list[_Turn] | None = None) -> None:
        """Sample all turns, which sit in the first rows of the cache, to their end.

        growth: decides which are cut and which go on in several ways.  every: gets those that come off others.
        """
        device = self._model.device
        sampler = Sampler([t.request.params for t in turns], [t.request.seed for t in turns], device)
        logits = self._prefill(turns)
        lengths = torch.tensor([turn.session.cached for turn in turns], device=device)
        index = 0
        while True:
            steered = None
            if growth is not None and every is not None:
                turns, logits, lengths, steered = self._decided(turns, growth, every, sampler, logits, lengths)
                if not turns:
                    return
            tokens, logp = sampler.sample(logits, index)
            if steered is not None:
                tokens = torch.where(steered >= 0, steered, tokens)
                logp = torch.log_softmax(sampler.tempered(logits), -1).gather(1, tokens.unsqueeze(1)).squeeze(1)
            if finished := self._record(turns, tokens.tolist(), logp.tolist()):
                turns, kept = self._retire(turns, finished)
                if not turns:
                    return
                keep = torch.tensor(kept, device=device)
                sampler.keep(keep)
                tokens, lengths = tokens[keep], lengths[keep]
                longest = max(turn.session.cached for turn in turns) + index
            elif index == 0:
                longest = int(lengths.max())
            self._cache.reserve(len(self._rows), longest + 1)
            logits = self._logits(self._trunk(tokens, NextTokens(self._cache, lengths, longest)))
            lengths, longest, index = lengths + 1, longest + 1, index + 1

    def _decided(
        self,
        turns: list[_Turn],
        growth: Growth,
        every: list[_Turn],
        sampler: Sampler,
        logits: Float[Tensor, "turns vocabulary"],
        lengths: Int[Tensor, " turns"],
    ) -> tuple[list[_Turn], Tensor, Tensor, Int[Tensor, " turns"]]:
        """Turns that go on once it was decided what becomes of each, their logits and lengths, and what they must say.

        The last is -1 for those that may say what they like.
        """
        said = torch.log_softmax(sampler.tempered(logits), -1)
        step = growth.shown(torch.tensor([turn.path for turn in turns]), said)
        steered = torch.cat([step.token, step.first]).to(logits.device)
        if len(step.path):
            place = step.place.to(logits.device)
            fresh = self._come_off(turns, step.place.tolist(), step.path.tolist(), int(lengths.max()))
            sampler.fork(place, [turn.request.seed for turn in fresh])
            logits, lengths = torch.cat([logits, logits[place]]), torch.cat([lengths, lengths[place]])
            turns = [*turns, *fresh]
            every += fresh
        cut = torch.nonzero(step.cut).squeeze(1).tolist()
        if cut:
            for number in cut:
                turns[number].finish_reason = "cut"
            turns, kept = self._retire(turns, cut)
            keep = torch.tensor(kept, dtype=torch.int64, device=logits.device)
            sampler.keep(keep)
            logits, lengths, steered = logits[keep], lengths[keep], steered[keep]
        return turns, logits, lengths, steered

    def _come_off(self, turns: list[_Turn], places: list[int], paths: list[int], held: int) -> list[_Turn]:
        """Turns that begin as those in these places do, in the rows behind them; each row holds ``held`` tokens."""
        numbers = self.open(len(places))
        wanted = range(len(turns), len(turns) + len(places))
        rows = [self._sessions[number].row for number in numbers]
        holes = [row for row in wanted if row not in rows]
        self._exchange(list(zip(holes, [row for row in rows if row not in wanted], strict=True)))
        numbers.sort(key=lambda number: self._sessions[number].row)
        self._cache.reserve(len(self._rows), self._cache.capacity)
        self._cache.move([turns[place].session.row for place in places], wanted, held)
        fresh = []
        for count, (place, path, session) in enumerate(zip(places, paths, numbers, strict=True)):
            parent, own = turns[place], self._sessions[session]
            own.tokens, own.cached = list(parent.session.tokens), parent.session.cached
            seed = derive(parent.request.seed, "branch", len(parent.tokens), places[:count].count(place))
            request = replace(parent.request, session=session, seed=seed)
            said = list(parent.tokens), list(parent.logp)
            fresh.append(_Turn(request, own, parent.budget, parent.ends, *said, path=path))
        return fresh

    def _record(self, turns: list[_Turn], tokens: list[int], logp: list[float]) -> list[int]:
        """Append what was sampled; the places of the turns that are thereby finished."""
        finished = []
        for place, (turn, token, value) in enumerate(zip(turns, tokens, logp, strict=True)):
            turn.tokens.append(token)
            turn.logp.append(value)
            stop = turn.request.params.stop
            if token in turn.ends or (stop and self._endings.spelled([*turn.request.said, *turn.tokens], stop)):
                turn.finish_reason = "stop"
                finished.append(place)
            elif len(turn.tokens) == turn.budget:
                finished.append(place)
        return finished

    def _retire(self, turns: list[_Turn], finished: list[int]) -> tuple[list[_Turn], list[int]]:
        """Move finished turns behind the running ones; who still runs, in row order, and their former places."""
        for place in finished:
            turn = turns[place]
            turn.session.tokens.extend(turn.tokens)
            # The last sampled token has not been read by the model yet.
            turn.session.cached = len(turn.session.tokens) - 1
        left = len(turns) - len(finished)
        gone = set(finished)
        holes = [place for place in finished if place < left]
        movers = [place for place in range(left, len(turns)) if place not in gone]
        order = list(range(left))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self._exchange(list(zip(holes, movers, strict=True)))
        return [turns[place] for place in order], order

    # ---- the model ------------------------------------------------------------------------------------------------

    def _prefill(self, turns: list[_Turn]) -> Float[Tensor, "turns vocabulary"]:
        """Bring every turn's session into the cache; the logits of its next token."""
        sessions = [turn.session for turn in turns]
        self._cache.reserve(len(self._rows), max(len(session.tokens) for session in sessions))
        leaders, followed = _distinct(sessions)
        read: list[_Session] = []
        logits = []
        for some in self._rounds(leaders):
            for piece in _pieces(some):
                read += piece
                logits.append(self._read(piece))
        place = {session: number for number, session in enumerate(read)}
        self._copy([(leaders[to], session) for to, session in zip(followed, sessions, strict=True)])
        return torch.cat(logits)[torch.tensor([place[leaders[to]] for to in followed], device=logits[0].device)]

    def _rounds(self, sessions: list[_Session]) -> Iterator[list[_Session]]:
        """Sessions in the order in which to read them; new ones are given what others have read of theirs before."""
        fresh = [(tuple(session.tokens), session.row) for session in sessions if not session.cached]
        begun = [session for session in sessions if session.cached]
        known = Known()
        for session in self._rows if fresh else ():
            if session.cached:
                known.add(tuple(session.tokens[: session.cached]), session.row)
        for some in rounds(fresh, known):
            for one in some:
                if one.source is not None:
                    self._cache.move([one.source], [one.owner], one.shared)
                    self._rows[one.owner].cached = one.shared
                    self._taken_over += one.shared
            yield begun + [self._rows[one.owner] for one in sorted(some, key=lambda one: one.owner)]
            begun = []
        if begun:
            yield begun

    def _read(self, sessions: list[_Session]) -> Float[Tensor, "sessions vocabulary"]:
        starts = [session.cached for session in sessions]
        fresh = [session.tokens[session.cached :] for session in sessions]
        counts = [len(tokens) for tokens in fresh]
        layout = CachedSequences(self._cache, [session.row for session in sessions], starts, counts)
        token_ids = torch.tensor([token for tokens in fresh for token in tokens], device=self._model.device)
        hidden = self._trunk(token_ids, layout)
        self._prefilled += len(token_ids)
        for session in sessions:
            session.cached = len(session.tokens)
        return self._logits(hidden[torch.tensor(counts, device=hidden.device).cumsum(0) - 1])

    def _copy(self, pairs: list[tuple[_Session, _Session]]) -> None:
        """Give the second of each pair all that the first has read, which is the same."""
        pairs = [(leader, follower) for leader, follower in pairs if leader is not follower]
        while pairs:
            length = len(pairs[0][0].tokens)
            some = [pair for pair in pairs if len(pair[0].tokens) == length][: max(_PREFILL_TOKENS // length, 1)]
            self._cache.move([leader.row for leader, _ in some], [follower.row for _, follower in some], length)
            for _, follower in some:
                follower.cached = length
                self._taken_over += length
            pairs = [pair for pair in pairs if not pair[1].cached]

    def _trunk(
        self, token_ids: Int[Tensor, " positions"], layout: CachedSequences | NextTokens
    ) -> Float[Tensor, "positions hidden"]:
        if self._fused is not None:
            return self._fused(token_ids, layout.positions, layout)
        return run_trunk(self._model, token_ids, layout.positions, cast(Layout, layout))

    def _logits(self, hidden: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocabulary"]:
        logits: Tensor = self._head(hidden)
        return logits.float()

    # ---- rows -----------------------------------------------------------------------------------------------------

    def _session(self, number: int) -> _Session:
        check_open(number, self._sessions)
        return self._sessions[number]

    def _to_front(self, turns: list[_Turn]) -> None:
        """Give the turns the first rows; ``turns`` comes and stays in row order."""
        inside = [turn for turn in turns if turn.session.row < len(turns)]
        outside = turns[len(inside) :]
        taken = {turn.session.row for turn in inside}
        holes = [row for row in range(len(turns)) if row not in taken]
        self._exchange([(hole, turn.session.row) for hole, turn in zip(holes, outside, strict=True)])
        turns.sort(key=lambda turn: turn.session.row)

    def _exchange(self, pairs: list[tuple[int, int]]) -> None:
        """Swap the sessions in each pair of rows, with what the cache holds of them."""
        pairs = [(first, second) for first, second in pairs if first != second]
        if not pairs:
            return
        for first, second in pairs:
            self._rows[first], self._rows[second] = self._rows[second], self._rows[first]
            self._rows[first].row, self._rows[second].row = first, second
        held = max(self._rows[row].cached for pair in pairs for row in pair)
        firsts, seconds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if held:
            # Sessions opened since the last turn have no rows in the cache yet.
            self._cache.reserve(len(self._rows), self._cache.capacity)
            self._cache.move(firsts + seconds, seconds + firsts, self._cache.capacity)


def _served_copy(model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A frozen copy of the model without adapters, for inference, whose weights are made in their type at once."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to(device, dtype, copy=True), requires_grad=False)
        for parameter in model.parameters()
    }
    served = copy.deepcopy(model, memo).requires_grad_(False).eval()
    for name, module in list(served.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
            parent, _, leaf = name.rpartition(".")
            setattr(served.get_submodule(parent), leaf, module.base_layer)
    return cast(PreTrainedModel, served.to(device=device, dtype=dtype))


def _cache_for(model: PreTrainedModel) -> KVCache:
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # CPU attention computes in float32 (see explicit_attention); a bfloat16 cache would be converted at every step.
    dtype = torch.float32 if model.device.type == "cpu" else model.dtype
    return KVCache(config.num_hidden_layers, heads, dim, dtype, model.device)


def _pieces(sessions: list[_Session]) -> Iterator[list[_Session]]:
    """Cut a prefill so that each piece holds a bounded number of new tokens and attention scores."""
    piece: list[_Session] = []
    new = visible = 0
    for session in sessions:
        next_new = max(new, len(session.tokens) - session.cached)
        next_visible = max(visible, len(session.tokens))
        rows = len(piece) + 1
        if piece and (rows * next_new > _PREFILL_TOKENS or rows * next_new * next_visible > _PREFILL_SCORES):
            yield piece
            piece, next_new, next_visible = [], len(session.tokens) - session.cached, len(session.tokens)
        piece.append(session)
        new, visible = next_new, next_visible
    yield piece


def _distinct(sessions: list[_Session]) -> tuple[list[_Session], list[int]]:
    """Sessions to compute, and for each session which of them holds its result.

    New sessions of the same tokens need computing once.
    """
    places: dict[tuple[int, ...], int] = {}
    leaders: list[_Session] = []
    followed = []
    for session in sessions:
        place = len(leaders) if session.cached else places.setdefault(tuple(session.tokens), len(leaders))
        if place == len(leaders):
            leaders.append(session)
        followed.append(place)
    return leaders, followed
