"""What a batch owes to the words of its texts: tokens that plan, answers that say the same, and figures of both."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.grams import Grams
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.language.offsets import token_ends
from stratagem.language.wording import (
    planning_metrics,
    planning_tokens,
    shared_answers,
    step_starts,
    strategy_entropy,
    worded,
)
from stratagem.recipes.reasoning import ib_tpo
from stratagem.sampling import Rollouts
from stratagem.tasks import KeyDoorTask
from stratagem.tasks.task import Observation, answer_key

GRAMS = Grams((("go north and",), ("take the key",)))
SMALL = Rollouts(prompts_per_step=3, group_size=4)


@pytest.fixture(name="chat")
def _chat(tokenizer) -> ChatFormat:
    return ChatFormat(tokenizer)


def encoded(text: str, tokenizer) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- where tokens end -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 319), max_size=20))
def test_decoding_a_few_tokens_at_a_time_finds_what_decoding_all_of_them_does(tokenizer, action):
    # Any tokens: bytes that are no character, ends in the middle of one, special tokens.
    chat = ChatFormat(tokenizer)
    text = chat.said(action)
    ends = token_ends(action, text, chat.said)
    assert len(ends) == len(action) and ends == sorted(ends)
    assert not ends or ends[-1] == len(text)
    for place, end in enumerate(ends):
        said = chat.said(action[: place + 1])
        if "�" not in said:
            assert end == len(said)


def test_a_decoder_whose_pieces_do_not_add_up_is_asked_for_the_whole():
    words = ["so", "we", "try"]
    ends = token_ends([0, 1, 2], "so we try", lambda tokens: " ".join(words[token] for token in tokens))
    assert ends == [2, 5, 9]


def test_long_turns_are_decoded_a_few_tokens_at_a_time(tokenizer, chat):
    action, most = encoded("go north and take the key " * 50, tokenizer), 0
    text = chat.said(action)

    def decode(tokens):
        nonlocal most
        most = max(most, len(tokens))
        return chat.said(tokens)

    token_ends(action, text, decode)
    assert most <= 2 < len(action)


# ---- planning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "then ", "ñ€😀 "])
def test_every_token_with_a_letter_of_a_phrase_plans(tokenizer, chat, before):
    action = [*encoded(f"{before}Go  north and open the door", tokenizer), *chat.end_tokens]
    plans = planning_tokens(action, GRAMS, chat.said)
    said = tokenizer.decode([token for token, plan in zip(action, plans, strict=True) if plan])
    assert said.strip() == "Go  north and"
    assert len(plans) == len(action) and not plans[-1]


def test_overlapping_phrases_mark_their_union():
    words = ["a ", "b ", "c ", "d ", "e"]
    decode = lambda tokens: "".join(words[token] for token in tokens)  # noqa: E731
    grams = Grams((("a b c",), ("b c d",)))
    assert planning_tokens(range(5), grams, decode) == [True, True, True, True, False]


def test_without_a_phrase_nothing_plans(tokenizer, chat):
    assert not any(planning_tokens(encoded("go north", tokenizer), GRAMS, chat.said))
    assert planning_tokens([], GRAMS, chat.said) == []
    assert not any(planning_tokens(encoded("go north and", tokenizer), Grams(), chat.said))


# ---- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_marked_as_its_sampler_says(make_world, tmp_path):
    plain = make_world().collect(SMALL, 0)
    assert plain.x.planning is None and "planning" not in plain.metrics
    world = make_world()
    said = [
        world._stage.chat.said(turn.tolist()) for turn in plain.x.action.split(plain.x.turn_of_token.size().tolist())
    ]
    word = max((word for text in said for word in text.split() if word.isalpha() and word.isascii()), key=len)
    Grams(((word,),)).save(tmp_path / "grams.json")
    marked = world.collect(SMALL.replace(phrases=str(tmp_path / "grams.json")), 0)
    assert torch.equal(marked.x.action, plain.x.action)
    assert marked.x.planning.any() and not marked.x.planning.all()
    holds = marked.x.turn_of_token.sum(marked.x.planning.long()) > 0
    assert holds.tolist() == [bool(Grams(((word,),)).occurrences(text)) for text in said]
    metrics, x = marked.metrics, marked.x
    assert metrics["planning"] == pytest.approx(float(x.planning.float().mean()))
    assert metrics["entropy/planning"] == pytest.approx(-float(x.behavior_logp[x.planning].mean()))
    assert metrics["entropy/execution"] == pytest.approx(-float(x.behavior_logp[~x.planning].mean()))
    assert metrics["strategies/entropy"] == 0


def test_a_batch_without_a_phrase_is_all_execution_and_warns(make_world, tmp_path):
    (tmp_path / "grams.txt").write_text("nobody says this phrase")
    with pytest.warns(UserWarning, match="no phrase of .* is in this batch"):
        collected = make_world().collect(SMALL.replace(phrases=str(tmp_path / "grams.txt")), 0)
    assert not collected.x.planning.any()
    assert collected.metrics["planning"] == collected.metrics["strategies/entropy"] == 0
    assert "entropy/planning" not in collected.metrics


def test_demonstrations_beside_rollouts_are_marked_too(make_world, tmp_path):
    (tmp_path / "grams.txt").write_text("north")
    sampler = Rollouts(prompts_per_step=2, group_size=2, demonstrations=1, phrases=str(tmp_path / "grams.txt"))
    x = make_world(KeyDoorTask(max_turns=30)).collect(sampler, 0).x
    assert len(x.planning) == x.tokens
    assert x.planning[x.trajectory_of_token.spread(x.demonstrated)].any()


def test_a_missing_file_of_phrases_is_named(make_world):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        make_world().collect(SMALL.replace(phrases="none.json"), 0)


def test_figures_of_strategies_are_those_of_the_texts(tokenizer, chat, tmp_path):
    def episode(text: str) -> Episode:
        action = encoded(text, tokenizer)
        return Episode(0, 0, 0, [Turn(Observation("room", 1), [1], action, [-1.0] * len(action), text)])

    GRAMS.save(tmp_path / "grams.json")
    groups = [[episode("go north and take the key"), episode("open the door")], [episode("take the key. go north and")]]
    assert strategy_entropy(groups, str(tmp_path / "grams.json"), chat.said) == pytest.approx(math.log(2))


def test_a_batch_nobody_looked_at_has_no_figures(make_world):
    assert planning_metrics(make_world().collect(SMALL, 0).x) == {}


# ---- steps ----------------------------------------------------------------------------------------------------------


def steps(*pieces: str) -> list[str]:
    """What is said in each step of a turn whose tokens are these pieces."""
    decode = lambda tokens: "".join(pieces[token] for token in tokens)  # noqa: E731
    said: list[str] = []
    for piece, start in zip(pieces, step_starts(range(len(pieces)), decode), strict=True):
        said = [*said, piece] if start else [*said[:-1], said[-1] + piece]
    return said


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["one", " line", "\n", "another"], ["one line\nanother"]),
        (["a", "\n\n", "b"], ["a\n\n", "b"]),
        (["a", "\n", "\n", "b"], ["a\n\n", "b"]),
        # Several blank lines, and lines of spaces, are one border.
        (["a", "\n\n", "\n \t\n", "\n", "  b", " c"], ["a\n\n\n \t\n\n", "  b c"]),
        (["a", "\r\n", "\r\n", "b"], ["a\r\n\r\n", "b"]),
        # A token of both sides belongs to the one it begins in, unless it begins with the border.
        (["a.\n\nb", "c", "d"], ["a.\n\nb", "cd"]),
        (["a", ".\n\n", "b"], ["a.\n\n", "b"]),
        (["a", "\n\nb", "c"], ["a", "\n\nbc"]),
        # A step that lies within one token is part of it.
        (["a\n\nb", "\n\n", "c"], ["a\n\nb\n\n", "c"]),
        # Nothing before a border, or behind it, is no step.
        (["\n", "\n\n", "a", "\n\n", "b", "\n\n", " "], ["\n\n\na\n\n", "b\n\n "]),
        (["\n\n", "\n"], ["\n\n\n"]),
        (["a"], ["a"]),
    ],
)
def test_steps_of_a_turn_are_what_blank_lines_separate(pieces, expected):
    assert steps(*pieces) == expected


def test_a_turn_of_no_tokens_has_no_step():
    assert step_starts([], lambda tokens: "") == []


def test_a_step_begins_with_the_first_bytes_of_its_first_character(tokenizer, chat):
    before, after = encoded("go north\n\n", tokenizer), encoded("😀 door\n\n\ntake", tokenizer)
    assert len(encoded("😀", tokenizer)) > 1
    starts = step_starts([*before, *after, *chat.end_tokens], chat.said)
    places = [place for place, start in enumerate(starts) if start]
    assert places[:2] == [0, len(before)] and len(places) == 3
    assert chat.said(after[places[2] - len(before) :]).strip() == "take"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["a", "b c", "\n", "\n\n", " ", "x\n\ny", "\n\nz"]), max_size=12))
def test_single_characters_as_tokens_find_every_step_there_is(pieces):
    text = "".join(pieces)
    wanted = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    assert [said.strip() for said in steps(*text) if said.strip()] == wanted


def test_steps_are_marked_for_rollouts_that_ask_for_them_and_where_forks_are_made_at_them(make_world):
    assert make_world().collect(SMALL, 0).x.step_start is None
    for sampler in (SMALL.replace(mark_steps=True), ib_tpo(depth=3).sampler.replace(prompts_per_step=2)):
        world = make_world()
        x = world.collect(sampler, 0).x
        sizes = x.turn_of_token.size().tolist()
        expected = [step_starts(turn.tolist(), world._stage.chat.said) for turn in x.action.split(sizes)]
        assert x.step_start.tolist() == [start for turn in expected for start in turn]
        assert bool(x.step_start[x.turn_of_token.first()].all())
    assert ib_tpo(steps="turns").sampler.needs() == ib_tpo().sampler.needs() - {"step_start"}


def test_blank_lines_of_episodes_come_into_their_batch(tokenizer, chat, chatter):
    said = ("go\n\nnorth", "take the key")
    turns = [
        Turn(Observation("room", 1), [1], action, [-1.0] * len(action), text)
        for text in said
        for action in [encoded(text, tokenizer)]
    ]
    groups = [[Episode(0, 0, 0, turns)]]
    x = worded(to_experience(groups, ("reward",), 1), groups, SMALL.replace(mark_steps=True), chatter(), chat.said)
    first = len(turns[0].action)
    assert x.step_start[:first].sum() == 2 and x.step_start[first:].sum() == 1 and bool(x.step_start[first])
    assert Rollouts(mark_steps=True).needs() == {"step_start"}


# ---- answers --------------------------------------------------------------------------------------------------------


def answered(*texts: str | None) -> list[Episode]:
    return [
        Episode(
            0,
            0,
            0,
            [Turn(Observation("", 0), [1], [2], [0.0], text or "")],
            answer=answer_key(None if text is None else text.strip()),
        )
        for text in texts
    ]


def test_answers_worded_alike_share_a_key_and_unreadable_ones_none(chatter):
    group = answered("take the red key first", "First take the red key", "open a window", None, "open a window")
    keys = shared_answers(group, 0.7, chatter())
    assert keys[0] == keys[1] == group[0].answer
    assert keys[2] == keys[4] == group[2].answer != keys[0]
    assert keys[3] == -1
    assert shared_answers(answered(None, None), 0.7, chatter()) == [-1, -1]


def test_a_batch_shares_answers_where_its_sampler_asks(make_world):
    plain = make_world().collect(SMALL, 0).x
    shared = make_world().collect(SMALL.replace(similar_answers=0.01), 0).x
    assert torch.equal(plain.action, shared.action)
    kinds = [len(x.answer.unique()) for x in (plain, shared)]
    assert kinds[1] <= kinds[0]
    assert set(shared.answer.tolist()) <= set(plain.answer.tolist())


def test_what_is_not_looked_at_in_demonstrations_is_refused_with_them():
    with pytest.raises(InputError, match=r"similar_answers = 0\.9: must be None where there are demonstrations"):
        Rollouts(similar_answers=0.9, demonstrations=1)
