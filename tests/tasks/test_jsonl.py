"""Prompt files: what a line must hold, how it is split and verified, and what is said about a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks import JsonlTask, Split, make


def write(folder: Path, *lines: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def sums(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(count)]


GOOD = {"prompt": "2 + 3?", "answer": "5"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a" "answer": "b"}', "not JSON (Expecting ',' delimiter, column 16)"),
        ("[1, 2]", "not a JSON object"),
        ({"answer": "5"}, "prompt is missing"),
        ({"prompt": "a"}, "answer is missing"),
        ({"prompt": "  ", "answer": "5"}, "prompt must be text and not empty"),
        ({"prompt": "a", "answer": 5}, "answer must be text and not empty"),
        ({"prompt": [], "answer": "5"}, "prompt is an empty list"),
        (
            {"prompt": [{"role": "robot", "content": "a"}], "answer": "5"},
            "needs a role, one of system, user, assistant",
        ),
        ({"prompt": ["a"], "answer": "5"}, "a chat message needs a role"),
        ({"prompt": [{"role": "user"}], "answer": "5"}, "content is missing"),
        ({"prompt": "\ud800", "answer": "5"}, "prompt holds half of a surrogate pair"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_broken_line_is_named_with_path_number_and_reason(tmp_path: Path, line: object, reason: str) -> None:
    path = write(tmp_path, GOOD, "", line, GOOD)
    with pytest.raises(InputError) as caught:
        JsonlTask(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "caf\xe9", "answer": "x"}\n')
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        JsonlTask(str(path))


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert JsonlTask(str(path), test_share=0).size("train") == 1


def test_missing_empty_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        JsonlTask(write(tmp_path, "", "  "))
    with pytest.raises(InputError, match=r"cannot read .*missing.jsonl: No such file"):
        JsonlTask(str(tmp_path / "missing.jsonl"))
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        JsonlTask(str(tmp_path))
    with pytest.raises(InputError, match="needs a file: jsonl:PATH"):
        make("jsonl")


def test_duplicate_prompts_are_left_out_and_counted(tmp_path: Path) -> None:
    task = JsonlTask(write(tmp_path, *sums(50), *sums(20)))
    assert task.duplicates == 20
    assert task.size("train") + task.size("test") == 50


def test_splits_are_disjoint_and_do_not_depend_on_the_other_lines(tmp_path: Path) -> None:
    def prompts(task: JsonlTask, split: Split) -> set[str]:
        return {task.environment(split, index).reset().text for index in range(task.size(split))}

    whole = JsonlTask(write(tmp_path, *sums(1000)))
    train, test = prompts(whole, "train"), prompts(whole, "test")
    assert train.isdisjoint(test)
    # the standard error of a tenth of 1000 prompts is 9.5
    assert 60 <= len(test) <= 140
    half = JsonlTask(write(tmp_path, *reversed(sums(500))))
    assert prompts(half, "test") == {prompt for prompt in test if int(prompt.split()[2]) < 500}


def test_an_empty_split_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of its 1 prompts falls into the (train|test) split at test_share=0.1"):
        JsonlTask(write(tmp_path, GOOD))
    task = JsonlTask(write(tmp_path, GOOD), test_share=0)
    assert task.environment("train", 5).reset().text == "2 + 3?"
    with pytest.raises(InputError, match="leaves no test prompts"):
        task.environment("test", 0)


def test_chat_messages_become_one_text(tmp_path: Path) -> None:
    one = [{"role": "user", "content": "2 + 3?"}]
    several = [{"role": "system", "content": "Be brief."}, *one]
    task = JsonlTask(write(tmp_path, {"prompt": one, "answer": "5"}, {"prompt": several, "answer": "5"}), test_share=0)
    texts = [task.environment("train", index).reset().text for index in range(2)]
    assert texts == ["2 + 3?", "system: Be brief.\n\nuser: 2 + 3?"]


@pytest.mark.parametrize("verifier", ["exact", "contains", "number", "similar", "close", "near"])
def test_check_passes(tmp_path: Path, verifier: str) -> None:
    task = make(f"jsonl:{write(tmp_path, *sums(60))},verifier={verifier}")
    assert task.check(20, "train").solutions_accepted == 20
    assert task.check(5, "test").corruptions_rejected == 5


def test_a_users_function_is_given_the_response_and_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_verifier.py").write_text(
        "def half(response, record):\n"
        "    return 0.5 * (abs(int(response) - int(record['answer'])) < record['tolerance'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, {**GOOD, "tolerance": 2})
    task = make(f"jsonl:{path},verifier=python:my_verifier:half,test_share=0")
    close, far = task.environment("train", 0).step("6"), task.environment("train", 0).step("7")
    assert (close.reward, close.success, close.done) == (0.5, False, True)
    assert far.reward == 0
    with pytest.raises(ValueError, match="invalid literal"):
        task.environment("train", 0).step("six")


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("exakt", "unknown verifier 'exakt'; did you mean 'exact'?"),
        ("python:no_such_module_here:f", "cannot be loaded: No module named 'no_such_module_here'"),
        ("python:json:no_such_function", "cannot be loaded: module 'json' has no attribute"),
        ("python:", "cannot be loaded"),
        ("python:json:__doc__", "is not a function"),
    ],
)
def test_a_wrong_verifier_is_named(tmp_path: Path, verifier: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make(f"jsonl:{write(tmp_path, *sums(60))},verifier={verifier}")
    assert message in str(caught.value)


def test_an_answer_without_a_number_is_a_broken_line_for_the_number_verifier(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: answer 'five' holds no number"):
        JsonlTask(write(tmp_path, {"prompt": "2 + 3?", "answer": "five"}), verifier="number")


def test_unknown_options_and_values_out_of_range_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, *sums(60))
    with pytest.raises(InputError, match="unknown option of task 'jsonl' 'verifyer'; did you mean 'verifier'"):
        make(f"jsonl:{path},verifyer=exact")
    with pytest.raises(InputError, match="test_share='1' is not allowed; it should be less than 1"):
        make(f"jsonl:{path},test_share=1")


def test_equal_tasks_are_equal_and_hashable(tmp_path: Path) -> None:
    path = write(tmp_path, *sums(60))
    assert JsonlTask(path) == JsonlTask(path)
    assert hash(JsonlTask(path)) == hash(JsonlTask(path))


@given(text=st.text())
def test_any_text_is_a_legal_action(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), GOOD)
    for verifier in ("exact", "contains", "number"):
        assert JsonlTask(path, verifier, test_share=0).environment("train", 0).step(text).reward in (0.0, 1.0)


def test_graded_verifiers_pay_in_between_and_take_aliases(tmp_path: Path) -> None:
    lines = [{"prompt": f"Capital {number}?", "answer": "Paris", "aliases": ["Lutetia"]} for number in range(20)]
    environment = JsonlTask(write(tmp_path, *lines), verifier="similar", test_share=0).environment("train", 0)
    for text, reward in (("pariz", 0.8), ("lutetia", 1.0), ("rome", 0.0)):
        environment.reset()
        step = environment.step(text)
        assert (step.reward, step.success) == (pytest.approx(reward), reward == 1)


def test_aliases_that_are_no_list_of_text_are_a_broken_line(tmp_path: Path) -> None:
    for aliases, reason in (("Lutetia", "aliases must be a list of text"), ([3], "an alias must be text")):
        with pytest.raises(InputError, match=f"line 1: {reason}"):
            JsonlTask(write(tmp_path, {"prompt": "Capital?", "answer": "Paris", "aliases": aliases}))
