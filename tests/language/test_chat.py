import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import PreTrainedTokenizerFast

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat

MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]

STRIPS_THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
TRIMS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONE_TURN_ONLY = (
    "{% if messages | length > 1 %}{{ raise_exception('one message only') }}{% endif %}{{ messages[0]['content'] }}"
)


def test_opening_is_the_templates_own_rendering(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = ChatFormat(tokenizer).opening(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    )
    assert tokenizer.decode(tokens) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("ended", [True, False])
def test_opening_answer_followup_is_the_whole_conversation(tokenizer: PreTrainedTokenizerFast, ended: bool) -> None:
    chat = ChatFormat(tokenizer)
    answer = tokenizer("go north", add_special_tokens=False)["input_ids"] + [chat.end_token_ids[0]] * ended
    tokens = (
        chat.opening([{"role": "user", "content": "dark room"}]) + answer + chat.followup(" you see\na key ", ended)
    )
    whole = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "dark room"},
            {"role": "assistant", "content": "go north"},
            {"role": "user", "content": " you see\na key "},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert tokenizer.decode(tokens) == whole
    assert chat.append_only


def test_end_token_is_the_one_the_template_closes_a_turn_with(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ChatFormat(tokenizer).end_token_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_a_template_that_rewrites_history_still_gives_its_followup(make_tokenizer_with: MakeTokenizer) -> None:
    tokenizer = make_tokenizer_with(STRIPS_THINKING)
    chat = ChatFormat(tokenizer)
    assert not chat.append_only
    assert tokenizer.decode(chat.followup("a key", ended=True)) == (
        "\n<|im_start|>user\na key<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_a_template_that_trims_trims_followups(make_tokenizer_with: MakeTokenizer) -> None:
    tokenizer = make_tokenizer_with(TRIMS)
    chat = ChatFormat(tokenizer)
    assert chat.append_only
    assert "user\na key<|im_end|>" in tokenizer.decode(chat.followup("  a key \n", ended=False))


def test_plain_format_without_a_template(make_tokenizer_with: MakeTokenizer) -> None:
    tokenizer = make_tokenizer_with(None)
    chat = ChatFormat(tokenizer)
    assert tokenizer.decode(chat.opening([{"role": "user", "content": "dark room"}])) == "dark room\n"
    assert tokenizer.decode(chat.followup("a key", ended=True)) == "\na key\n"
    assert chat.followup("a key", ended=True) == chat.followup("a key", ended=False)
    assert chat.end_token_ids == (tokenizer.eos_token_id,)


def test_an_unusable_template_is_refused_in_one_line(make_tokenizer_with: MakeTokenizer) -> None:
    with pytest.raises(InputError, match=r"cannot render user, assistant, user: one message only") as caught:
        ChatFormat(make_tokenizer_with(ONE_TURN_ONLY))
    assert "\n" not in str(caught.value)


def test_an_empty_opening_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="at least one message"):
        ChatFormat(tokenizer).opening([])


def test_a_demonstration_ends_a_turn_as_the_template_does(tokenizer: PreTrainedTokenizerFast) -> None:
    assert ChatFormat(tokenizer).end_tokens == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_threads_may_share_a_format(tokenizer: PreTrainedTokenizerFast) -> None:
    """A tokenizer that changed its settings from call to call would be "already borrowed" here."""
    chat, patience = ChatFormat(tokenizer), sys.getswitchinterval()

    def talk(number: int) -> list[object]:
        opening = chat.opening([{"role": "user", "content": f"take key {number}"}])
        return [opening, chat.followup(f"door {number} " * 20, ended=True), chat.said(opening)]

    alone = [talk(number) for number in range(200)]
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(talk, range(200)))
    finally:
        sys.setswitchinterval(patience)
    assert together == alone
