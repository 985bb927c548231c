"""What an action answers, by task: equal answers are equal text, and an action may answer nothing."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from stratagem.tasks import registry
from stratagem.tasks.answers import ContainsText, ExactNumber, ExactText
from stratagem.tasks.task import answer_key


@pytest.mark.parametrize(
    ("verifier", "response", "answer"),
    [
        (ExactText(), "So the answer: Paris.", "paris"),
        (ExactText(), "\\boxed{ 12 }", "12"),
        (ExactText(), "  ", None),
        (ContainsText(), "It is Paris", "it is paris"),
        (ExactNumber(), "Answer: 1,000 euros", "1000"),
        (ExactNumber(), "it is 1e3", "1000"),
        (ExactNumber(), "no idea", None),
    ],
)
def test_a_verifier_reads_the_answer_it_compares(verifier, response, answer):
    assert verifier.answer(response) == answer


def test_the_calculator_answers_a_number_and_calls_answer_nothing():
    task = registry.make("calculator")
    assert task.answer("answer: 84") == task.answer(" Answer: it is 84.0") == "84"
    assert task.answer("calc: 12*7") is task.answer("84") is task.answer("answer: none") is None


@pytest.mark.parametrize("spec", ["sql", "python"])
def test_tasks_with_a_tool_answer_a_number_or_a_word_and_calls_answer_nothing(spec):
    task = registry.make(spec)
    assert task.answer("answer: 84") == task.answer(" Answer: it is 84.0") == "84"
    assert task.answer("answer: Ann.") == task.answer("ANSWER: 'ann'") == "ann"
    assert task.answer("query: select 84") is task.answer("run: print(84)") is task.answer("84") is None
    assert task.answer("answer:") is None


def test_a_file_of_prompts_answers_as_its_verifier_reads(tmp_path: Path):
    (tmp_path / "sums.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"1+{n}?", "answer": str(1 + n)}) for n in range(20))
    )
    task = registry.make(f"jsonl:{tmp_path / 'sums.jsonl'},verifier=number,test_share=0")
    assert task.answer("I say 3.0") == "3" and task.answer("nothing") is None


@pytest.mark.skipif(find_spec("math_verify") is None, reason="needs math-verify")
def test_a_mathematical_answer_is_taken_as_it_is_written():
    from stratagem.tasks.math_answers import MathAnswer

    assert MathAnswer().answer("thus \\boxed{x+1}") == "x+1"


def test_a_question_of_reasoning_gym_answers_what_is_tagged():
    pytest.importorskip("reasoning_gym")
    task = registry.make("rg:chain_sum")
    assert task.answer("<answer> 7 </answer>") == task.answer("answer: 7") == "7"
    assert task.answer("<answer></answer>") is None


def test_other_tasks_answer_with_all_of_the_text():
    task = registry.make("key_door")
    assert task.answer(" go north\n") == "go north" and task.answer(" \n") is None


def test_keys_of_answers_are_stable_and_not_negative():
    keys = [answer_key(n) for n in range(200)]
    assert len(set(keys)) == 200 and min(keys) >= 0
    assert answer_key("84") == answer_key("84") != answer_key("85")
    assert answer_key(None) == -1
