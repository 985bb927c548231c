"""Labels of sampled tokens by the part of the turn in which they lie, found on the decoded text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.language.plans import plan_reader, token_spans
from stratagem.spans import Span
from stratagem.tasks import KeyDoorTask, StructuredTask
from stratagem.tasks.mixture import Mixture
from stratagem.tasks.structured import read_plan
from stratagem.tasks.task import Observation

WHOLE = "<switch>SWITCH</switch><subgoal>open the door</subgoal><action>north</action>"
TASK = StructuredTask(KeyDoorTask())


@pytest.fixture(name="chat")
def _chat(tokenizer) -> ChatFormat:
    return ChatFormat(tokenizer)


def labelled(tokenizer, chat: ChatFormat, tokens: list[int]) -> dict[Span, str]:
    """What the tokens of each span say, one after the other."""
    text = chat.said(tokens)
    spans = token_spans(tokens, text, read_plan(text), chat.said)
    assert len(spans) == len(tokens)
    return {
        span: tokenizer.decode([token for token, own in zip(tokens, spans, strict=True) if own == span])
        for span in Span
    }


def letters(text: str, tokenizer) -> list[int]:
    """One token for each letter, or more for its bytes, as a policy may well sample a text."""
    return [token for character in text for token in tokenizer(character, add_special_tokens=False)["input_ids"]]


def test_tokens_of_a_plan_are_labelled_to_the_letter(tokenizer, chat):
    found = labelled(tokenizer, chat, letters(WHOLE, tokenizer))
    assert found[Span.SWITCH] == "SWITCH"
    assert found[Span.SUBGOAL] == "open the door"
    assert found[Span.ACTION] == "north"
    assert found[Span.NONE] == "<switch></switch><subgoal></subgoal><action></action>"


def test_a_token_that_holds_a_character_of_a_part_belongs_to_it():
    # Tokens are words here, two of which run over the edge of their part.
    words = ["<switch>", "KE", "EP</", "switch><action>no", "rth", "</action>", ""]
    decode = lambda tokens: "".join(words[token] for token in tokens)  # noqa: E731
    text = "".join(words)
    assert token_spans(range(7), text, read_plan(text), decode) == [-1, 2, 2, 0, 0, -1, -1]


def test_an_end_token_is_of_no_part(tokenizer, chat):
    tokens = [*letters("<action>north", tokenizer), *chat.end_tokens]
    text = chat.said(tokens)
    assert set(token_spans(tokens, text, read_plan(text), chat.said)) == {-1}
    tokens = [*letters("<action>north</action>", tokenizer), *chat.end_tokens]
    spans = token_spans(tokens, chat.said(tokens), read_plan(chat.said(tokens)), chat.said)
    assert spans[-1] == -1 and spans.count(0) == len("north")


@settings(deadline=None)
@given(st.text(alphabet="añ€😀 k", min_size=1, max_size=12).filter(str.strip))
def test_characters_of_several_bytes_are_of_one_part(tokenizer, goal):
    chat = ChatFormat(tokenizer)
    tokens = letters(f"<subgoal>{goal}</subgoal><action>{goal}</action>", tokenizer)
    text = chat.said(tokens)
    spans = token_spans(tokens, text, read_plan(text), chat.said)
    assert spans.count(Span.SUBGOAL) == spans.count(Span.ACTION) == len(letters(goal, tokenizer))
    first, last = spans.index(Span.SUBGOAL), len(spans) - 1 - spans[::-1].index(Span.SUBGOAL)
    outside = chat.said(tokens[:first]), chat.said(tokens[last + 1 :])
    assert outside[0].startswith("<subgoal>") and outside[1].startswith("</subgoal>")


def test_a_batch_of_a_structured_task_is_labelled(tokenizer, chat):
    def turn(text: str) -> Turn:
        action = letters(text, tokenizer)
        return Turn(Observation("room", 1), [1], action, [-1.0] * len(action), text)

    keeps = WHOLE.replace("SWITCH", "KEEP")
    episodes = [[Episode(0, 0, 0, [turn(WHOLE), turn(keeps)])], [Episode(1, 0, 0, [turn(keeps), turn("north")])]]
    x = to_experience(episodes, TASK.reward_names, 1, TASK.reward_weights, plans=plan_reader(TASK, chat.said))
    assert x.segment_start.tolist() == [True, False, False, False]
    counts = [x.turn_of_token.sum((x.span == span).long()).tolist() for span in (2, 1, 0)]
    assert counts == [[6, 4, 4, 0], [13, 13, 13, 0], [5, 5, 5, 0]]
    assert x.segment_of_turn.size().tolist() == [2, 2]


def test_turns_of_a_task_without_plans_are_all_action(chat):
    assert plan_reader(KeyDoorTask(), chat.said) is None
    mixed = plan_reader(Mixture([KeyDoorTask(), TASK]), chat.said)
    assert mixed is not None
    assert mixed(0, [5, 6]) == ([0, 0], False)
    assert mixed(1, [5, 6]) == ([-1, -1], False)


def test_labels_follow_their_tokens_through_selection_and_concatenation(tokenizer, chat):
    action = letters(WHOLE, tokenizer)
    episode = Episode(0, 0, 0, [Turn(Observation("room", 1), [1], action, [-1.0] * len(action), WHOLE)])
    x = to_experience([[episode]], TASK.reward_names, 1, TASK.reward_weights, plans=plan_reader(TASK, chat.said))
    twice = x.concatenate([x, x])
    assert torch.equal(twice.span, torch.cat([x.span, x.span]))
    assert torch.equal(twice.select(torch.tensor([1])).span, x.span)
