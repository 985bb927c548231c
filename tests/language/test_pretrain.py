"""Making a base model: its tokenizer, its shape, and that demonstrations teach it."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.language import warm_start
from stratagem.language.chat import ChatFormat
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import (
    END,
    TinyShape,
    demonstrated_mixture,
    new_policy,
    tiny_model_path,
    train_tokenizer,
)
from stratagem.tasks.key_door import KeyDoorTask

SHAPE = TinyShape(vocabulary=320, hidden=32, layers=1, heads=2, key_value_heads=1, intermediate=64, context=512)


def test_the_tokenizer_writes_any_text_and_reads_it_back(tiny_tokenizer):
    for text in ("key east 2 north 1", "naïve ☃ 東", "\n\t{}", ""):
        tokens = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tiny_tokenizer.decode(tokens) == text
    assert len(tiny_tokenizer) <= 320


def test_actions_of_its_task_are_single_tokens(tiny_tokenizer):
    for action in ("north", "south", "east", "west", "take", "open"):
        assert len(tiny_tokenizer(action, add_special_tokens=False)["input_ids"]) <= 2
    system = KeyDoorTask.system
    assert len(tiny_tokenizer(system, add_special_tokens=False)["input_ids"]) < len(system) / 2


def test_format_takes_three_tokens_of_a_turn(tiny_tokenizer):
    chat = ChatFormat(tiny_tokenizer)
    assert chat.append_only and chat.end_token_ids == (tiny_tokenizer.convert_tokens_to_ids(END),)
    word = tiny_tokenizer("key", add_special_tokens=False)["input_ids"]
    assert len(chat.followup("key", ended=True)) == 2 + len(word)
    assert len(chat.followup("key", ended=False)) == 3 + len(word)


def test_the_same_seed_makes_the_same_tokenizer_and_weights(tiny_tokenizer):
    again = train_tokenizer(KeyDoorTask(), 320, episodes=20)
    assert again.get_vocab() == tiny_tokenizer.get_vocab()
    first, second, other = (dict(new_policy(tiny_tokenizer, SHAPE, seed).weights()) for seed in (1, 1, 2))
    assert all(bool((first[name] == second[name]).all()) for name in first)
    assert not all(bool((first[name] == other[name]).all()) for name in first)


def test_a_policy_saved_and_loaded_says_the_same(tiny_tokenizer, tmp_path):
    policy = new_policy(tiny_tokenizer, SHAPE, 0)
    policy.save(tmp_path, "card")
    loaded = LanguagePolicy.from_path(tmp_path)
    for (name, value), (other, again) in zip(policy.weights(), loaded.weights(), strict=True):
        assert name == other and bool((value == again).all())
    assert ChatFormat(loaded.tokenizer).opening([{"role": "user", "content": "hi"}]) == ChatFormat(
        tiny_tokenizer
    ).opening([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("habit", [-0.1, 1.5])
def test_a_habit_is_a_share(habit):
    with pytest.raises(InputError, match=rf"habit = {habit}: must lie in \[0, 1\]"):
        demonstrated_mixture([KeyDoorTask()], habit, 0)


def test_a_missing_base_model_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr("stratagem.language.pretrain.files", lambda package: tmp_path)
    with pytest.raises(InputError, match="make it with: stratagem pretrain"):
        tiny_model_path()


def test_a_warm_start_lowers_the_loss_and_writes_a_model_with_its_card(tmp_path):
    losses = []
    scores = warm_start.make(
        tmp_path / "tiny",
        ["key_door:size=4"],
        steps=12,
        seed=0,
        habit=0.5,
        episodes=4,
        batch=8,
        learning_rate=1e-2,
        shape=SHAPE,
        progress=lambda step, metrics: losses.append(metrics["loss"]),
    )
    assert len(losses) == 12 and losses[-1] < 0.7 * losses[0]
    assert [evaluation.mode for evaluation in scores["key_door:size=4"]] == ["sampled", "greedy"]
    card = (tmp_path / "tiny" / "README.md").read_text()
    assert "stratagem pretrain --task key_door:size=4 --steps 12 --seed 0 --habit 0.5" in card
    LanguagePolicy.from_path(tmp_path / "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_model_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a model's folder"):
        warm_start.make(tmp_path, ["key_door"], steps=1, seed=0, habit=0.5)
    assert (tmp_path / "thesis.tex").exists()


def test_a_task_for_control_has_nothing_to_demonstrate(tmp_path):
    with pytest.raises(InputError, match="has no demonstrations in text"):
        warm_start.make(tmp_path / "tiny", ["gym:CartPole-v1"], steps=1, seed=0, habit=0.5)


def test_the_end_token_is_learned_as_an_input(make_policy):
    policy = make_policy()
    assert policy.model.get_input_embeddings().padding_idx is None


def test_the_same_seed_makes_the_same_model_to_the_bit(tmp_path):
    for name in ("one", "two"):
        warm_start.make(
            tmp_path / name, ["key_door:size=4"], steps=3, seed=5, habit=0.5, episodes=2, batch=4, shape=SHAPE
        )
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
