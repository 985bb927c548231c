"""What engines share about a turn: which requests are possible, what ends one, and the text of what was sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from stratagem.errors import InputError
from stratagem.language.engine import Request
from stratagem.language.sampling import SamplingParams


def check_requests(requests: Sequence[Request], held: Mapping[int, int]) -> None:
    """Raise :class:`InputError` for a session that is not open, occurs twice or has nothing to continue from.

    held: tokens of every open session.
    """
    seen: set[int] = set()
    for request in requests:
        check_open(request.session, held)
        if request.session in seen:
            raise InputError(f"session {request.session} occurs twice among the requests")
        if not held[request.session] and len(request.tokens) == 0:
            raise InputError(f"session {request.session} is empty and its request brings no tokens")
        seen.add(request.session)


def check_open(session: int, held: Mapping[int, Any]) -> None:
    """Raise :class:`InputError` unless ``held`` has this session."""
    if session not in held:
        raise InputError(f"session {session} is not open")


class Endings:
    """What ends a turn, and its text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        end = cast(Any, tokenizer).eos_token_id
        self._end: frozenset[int] = frozenset() if end is None else frozenset({int(end)})
        self._piece = lru_cache(maxsize=2**16)(self._uncached_piece)

    def tokens(self, params: SamplingParams) -> frozenset[int]:
        """Tokens that end a turn."""
        return self._end | frozenset(params.stop_token_ids)

    def spelled(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        """Whether the text of ``tokens`` contains one of ``stops``, given that without the last token it did not.

        Found across token boundaries, without decoding at every step.
        """
        piece = self._piece(tokens[-1])
        if "\ufffd" not in piece and not any(stop[-1] in piece for stop in stops):
            return False
        text = cast(str, self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
        return any(stop in text for stop in stops)

    def text(self, request: Request, tokens: Sequence[int]) -> str:
        """The turn decoded, of which ``tokens`` were sampled for this request, without what ended it."""
        ended = bool(tokens) and tokens[-1] in self.tokens(request.params)
        said = [*request.said, *(tokens[:-1] if ended else tokens)]
        return cast(str, self._tokenizer.decode(said, skip_special_tokens=True)) if said else ""

    def _uncached_piece(self, token: int) -> str:
        """The text a token can add. Twice, since many tokenizers strip the space before a first token."""
        return cast(str, self._tokenizer.decode([token, token], clean_up_tokenization_spaces=False))
