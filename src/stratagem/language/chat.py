"""How a conversation becomes tokens that only ever grow: openings and follow-ups from the tokenizer's own template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from stratagem.errors import InputError

Message = dict[str, str]

# Texts no template will produce by itself.
_QUESTION, _ANSWER, _REPLY = "Qq0question", "Qq1answer", "Qq2reply"


class ChatFormat:
    """Tokens of the opening of a conversation, and of what follows a turn of the model.

    A conversation is opening + sampled tokens + followup + sampled tokens + ...: what the model sampled is never
    encoded again. The follow-up is what the tokenizer's chat template puts behind an assistant message: its end, the
    user's message, the next generation prompt.

    ``append_only``: whether the template renders the whole conversation as exactly this sum, checked when built. A
    template that rewrites what was said before (say, strips earlier thinking or adds it to the generation prompt) is
    used all the same: its follow-up is appended and the history stays as it was sampled, so a model trained here reads
    its own earlier turns unabridged.

    Without a chat template the format is plain: each message and each observation on lines of their own.

    ``end_token_ids``: tokens with which the model may end its turn; pass them as ``stop_token_ids``.
    ``end_tokens``: what a demonstration ends a turn with: the template's own end token, else the tokenizer's, if any.

    Raises :class:`InputError` when the template cannot render user, assistant, user.
    """

    append_only: bool
    end_token_ids: tuple[int, ...]
    end_tokens: tuple[int, ...]

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._plain = not getattr(tokenizer, "chat_template", None)
        self._before, self._after, self._trims, self.append_only = (
            ("\n", "\n", False, True) if self._plain else self._from_template()
        )
        closing = self._encode(self._before)
        self._closing = closing[0] if closing and closing[0] in set(self._tokenizer.all_special_ids) else None
        end = self._tokenizer.eos_token_id if self._closing is None else self._closing
        self.end_tokens = () if end is None else (int(end),)
        ends = {self._closing, self._tokenizer.eos_token_id} - {None}
        self.end_token_ids = tuple(sorted(int(end) for end in ends))

    def opening(self, messages: list[Message]) -> list[int]:
        """Tokens of these messages and of the prompt for the model's first turn."""
        if not messages:
            raise InputError("a conversation opens with at least one message")
        if not self._plain:
            return self._encode(self._render(messages))
        start = self._tokenizer.bos_token_id
        text = "".join(f"{message['content']}\n" for message in messages)
        return ([] if start is None else [start]) + self._encode(text)

    def followup(self, text: str, ended: bool) -> list[int]:
        """Tokens after the model's turn: its end unless the model ``ended`` it itself, ``text`` as the user, a prompt.

        ``ended``: whether the last sampled token was an end token (of ``end_token_ids``).
        """
        tokens = self._encode(self._before + (text.strip() if self._trims else text) + self._after)
        return tokens[1:] if ended and self._closing is not None else tokens

    def said(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens as an environment is shown it: without end token and other special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _from_template(self) -> tuple[str, str, bool, bool]:
        """What stands before and after the user's reply, whether replies are trimmed, whether history is kept."""
        prompt = self._render([_user(_QUESTION)])
        whole = self._render([_user(_QUESTION), {"role": "assistant", "content": _ANSWER}, _user(f" {_REPLY} ")])
        if whole.count(_ANSWER) != 1 or whole.count(_REPLY) != 1:
            raise InputError("the chat template does not show each message of user, assistant, user once")
        continuation = whole[whole.index(_ANSWER) + len(_ANSWER) :]
        trims = f" {_REPLY} " not in continuation
        before, after = continuation.split(_REPLY if trims else f" {_REPLY} ")
        return before, after, trims, whole == prompt + _ANSWER + continuation

    def _render(self, messages: list[Message]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            roles = ", ".join(message.get("role", "?") for message in messages)
            raise InputError(f"the chat template cannot render {roles}: {str(error).splitlines()[0]}") from error
        return text

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
