"""Questions in four formats: valid variants, a gold answer of each, and no letter that is right more often."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.tasks import registry
from stratagem.tasks.formats import FORMATS, FormatsTask, same_answer, valid_mask, valid_options, well_formed
from stratagem.tasks.task import Environment, Split, Task


@pytest.fixture
def task() -> FormatsTask:
    made = registry.make("formats:calculator,max_turns=1,terms=2")
    assert isinstance(made, FormatsTask)
    return made


def play(task: FormatsTask, index: int, action: str, split: Split = "train") -> Any:
    environment = task.environment(split, index)
    environment.reset()
    return environment.step(action)


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [("12", "12.0", True), ("12", "24/2", True), ("-3", "3", False), ("1,000", "1e3", True), ("Paris", "paris.", True),
     ("room 12", "12", False), ("1/3", "0.333", False)],
)  # fmt: skip
def test_answers_are_the_same_by_number_or_by_text(first, second, equal):
    assert same_answer(first, second) == equal


def test_options_are_valid_with_one_right_one_and_no_two_alike():
    assert valid_options(["12", "7", "9", "5"], "12", 4)
    assert not valid_options(["12", "7", "12.0", "5"], "12", 4)
    assert not valid_options(["10", "7", "9", "5"], "12", 4)
    assert not valid_options(["12", "7", "7.0", "5"], "12", 4)
    assert not valid_options(["12", "7", "9"], "12", 4)


def test_a_mask_has_the_shape_of_the_answer_and_hides_something():
    assert valid_mask("1_", "12") and valid_mask("__", "12") and valid_mask("3_/_7", "32/17")
    assert not valid_mask("12", "12") and not valid_mask("1__", "12") and not valid_mask("2_", "12")
    assert valid_mask("P___s", "Paris") and not valid_mask("__/17", "-2/17") and not valid_mask("", "")


def test_every_format_asks_the_question_and_has_a_gold_of_its_own(task: FormatsTask):
    for question in range(5):
        value = next(task.of.solution("train", question)).removeprefix("answer: ")
        golds = []
        for level, count in enumerate((4, 10, 0, 0)):
            number, variant = task.variant("train", 4 * question + level)
            assert number == question and variant.format == level and len(variant.options) == count
            text = task.environment("train", 4 * question + level).reset().text
            assert task.of.environment("train", question).reset().text in text
            golds.append(variant.gold)
            if count:
                assert valid_options(variant.options, value, count)
                assert variant.options["ABCDEFGHIJ".index(variant.gold)] == value
                assert all(option in text for option in variant.options)
        assert golds[2:] == [value, value]
        mask = task.variant("train", 4 * question + 2)[1].mask
        assert (
            mask is not None
            and valid_mask(mask, value)
            and mask in task.environment("train", 4 * question + 2).reset().text
        )
        # After a promotion the old gold is wrong.
        assert not play(task, 4 * question + 3, f"answer: {golds[0]}").success
        assert not play(task, 4 * question, f"answer: {value}").success


def test_the_checks_of_a_task_hold_in_both_splits(task: FormatsTask):
    assert task.check(12).solutions_accepted == 12
    assert task.check(4, "test").corruptions_rejected == 4
    for index in range(3):
        assert task.variant("test", index) == (index, task.variant("test", index)[1])
        assert task.variant("test", index)[1].format == 3


def test_form_is_paid_beside_the_answer(task: FormatsTask):
    gold = task.variant("train", 0)[1].gold
    assert task.reward_names == ("reward", "format") and task.reward_weights == (1.0, 0.2)
    for action, right, formed in (
        (f"answer: {gold}", True, 1),
        (f"\\boxed{{{gold}}}", True, 1),
        (f"answer: ({gold.lower()})", True, 1),
        (gold, True, 0),
        (f"answer: Z\nanswer: {gold}", True, 0),
        ("answer: 5", False, 1),
        ("", False, 0),
    ):
        step = play(task, 0, action)
        assert (step.success, step.reward, step.components["format"], step.done) == (right, float(right), formed, True)
    assert well_formed("so \\boxed{4} 123456789") and not well_formed("so \\boxed{4} 1234567890")


def test_no_letter_is_right_more_often_and_the_order_follows_from_the_seed(task: FormatsTask):
    golds = Counter(task.variant("train", 4 * question)[1].gold for question in range(400))
    assert set(golds) == set("ABCD") and max(golds.values()) < 135
    again = FormatsTask(task.of)
    other = FormatsTask(task.of, seed=1)
    variants = [[made.variant("train", 4 * q)[1] for q in range(20)] for made in (task, again, other)]
    assert variants[0] == variants[1] != variants[2]


def test_a_question_without_enough_other_answers_has_fewer_formats(tmp_path: Path):
    lines = [json.dumps({"prompt": f"Is {n} even?", "answer": "yes" if n % 2 == 0 else "no"}) for n in range(40)]
    path = tmp_path / "even.jsonl"
    path.write_text("\n".join(lines))
    task = registry.make(f"formats:jsonl:{path},test_share=0.2")
    assert isinstance(task, FormatsTask)
    # Two answers there are, and one more letter: no four, no ten.
    assert task.available(2) == (2, 3, 6, 7)
    assert [task.variant("train", index)[1].format for index in range(4)] == [2, 2, 2, 3]
    assert task.start_states("train") == 4 * task.of.start_states("train")
    assert task.start_states("test") == task.of.start_states("test")
    assert task.check(6).episodes == 6


def test_text_answers_are_offered_beside_those_of_other_questions(tmp_path: Path):
    lines = [json.dumps({"prompt": f"Word {n}?", "answer": f"word{chr(97 + n)}"}) for n in range(24)]
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(lines))
    task = registry.make(f"formats:jsonl:{path},test_share=0.1")
    assert isinstance(task, FormatsTask)
    _, variant = task.variant("train", 1)
    assert len(variant.options) == 10 and all(option.startswith("word") for option in variant.options)


def test_what_cannot_have_formats_says_why():
    with pytest.raises(InputError, match=r"task formats:calculator: max_turns = 4: must be 1"):
        registry.make("formats:calculator")
    with pytest.raises(InputError, match="needs another task, such as formats:calculator,max_turns=1"):
        registry.make("formats")
    with pytest.raises(InputError, match="already has a reward 'format'"):
        FormatsTask(FormatsTask(_Formed()))
    with pytest.raises(InputError, match=r"format_reward = -1\.0: must be at least 0"):
        FormatsTask(_Formed(), -1.0)
    with pytest.raises(InputError, match="format_reward and format_seed must be numbers"):
        registry.make("formats:calculator,max_turns=1,format_seed=x")


class _Formed(Task):
    name, description = "formed", "one question"

    def environment(self, split: Split, index: int) -> Environment:
        raise NotImplementedError

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["1"])

    corrupted = solution


def test_there_are_four_formats():
    assert FORMATS == ("four_choice", "ten_choice", "fill_in", "open")
