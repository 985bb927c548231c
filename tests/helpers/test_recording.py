"""Recorded answers: what is asked again and what is not, across modes, processes and interruptions."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.helpers import Question, Recording, Reply, request_key


class Counting:
    """Numbers its answers; a question that says so fails."""

    def __init__(self, first: int = 0, **identity: Any) -> None:
        self.identity: Mapping[str, Any] = {"kind": "counting", "model": "a", "temperature": 0.5, **identity}
        self.asked: list[Question] = []
        self.first = first

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        self.asked += questions
        numbers = range(self.first + len(self.asked) - len(questions), self.first + len(self.asked))
        return [
            Reply(None, "down") if "fail" in question.messages[0]["content"] else Reply(f"answer {number}")
            for number, question in zip(numbers, questions, strict=True)
        ]


def texts(helper: Recording, *questions: str | Question) -> list[str | None]:
    return [r.text for r in helper.ask([q if isinstance(q, Question) else Question.of(q) for q in questions])]


def test_what_was_asked_once_is_not_asked_again_by_the_next_process_either(tmp_path):
    helper, path = Counting(), tmp_path / "deep" / "answers.jsonl"
    recording = Recording(helper, path)
    assert texts(recording, "a", "b", "a") == ["answer 0", "answer 1", "answer 0"]
    assert texts(recording, "b", "c") == ["answer 1", "answer 2"]
    assert len(helper.asked) == 3
    later = Counting(100)
    assert texts(Recording(later, path), "c", "a") == ["answer 2", "answer 0"]
    assert later.asked == []


def test_replay_never_asks_and_what_is_missing_is_a_failure(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts(Recording(Counting(), path), "a")
    helper = Counting()
    replay = Recording(helper, path, "replay")
    known, missing = replay.ask([Question.of("a"), Question.of("b")])
    assert known.text == "answer 0" and helper.asked == []
    assert (
        missing.text is None and missing.failure == f"recording {path}: no answer to this question, and mode is replay"
    )


def test_refresh_asks_everything_once_more_and_its_answers_stand(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts(Recording(Counting(), path), "a", "b")
    helper = Counting(50)
    assert texts(Recording(helper, path, "refresh"), "a") == ["answer 50"]
    refreshing = Recording(helper, path, "refresh")
    assert texts(refreshing, "a", "a") == ["answer 51", "answer 51"]
    assert texts(refreshing, "a") == ["answer 51"]
    assert texts(Recording(Counting(99), path, "replay"), "a", "b") == ["answer 51", "answer 1"]


def test_failures_are_not_kept(tmp_path):
    helper, path = Counting(), tmp_path / "answers.jsonl"
    recording = Recording(helper, path)
    [reply] = recording.ask([Question.of("fail")])
    assert reply == Reply(None, "down") and path.read_text() == ""
    recording.ask([Question.of("fail"), Question.of("a")])
    assert len(helper.asked) == 3 and len(path.read_text().splitlines()) == 1


def test_the_key_depends_on_helper_messages_and_seed_and_on_nothing_else():
    question = Question.of("a", 1)
    keys = {
        request_key({"model": "a", "temperature": 0.5}, question),
        request_key({"model": "b", "temperature": 0.5}, question),
        request_key({"model": "a", "temperature": 0.6}, question),
        request_key({"model": "a", "temperature": 0.5}, Question.of("a", 2)),
        request_key({"model": "a", "temperature": 0.5}, Question.of("b", 1)),
        request_key({"model": "a", "temperature": 0.5}, Question(({"role": "system", "content": "a"},), 1)),
    }
    assert len(keys) == 6
    same = Question(({"content": "a", "role": "user"},), 1)
    assert request_key({"temperature": 0.5, "model": "a"}, same) in keys


def test_an_unfinished_line_is_passed_over_and_the_next_answer_is_a_line_of_its_own(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts(Recording(Counting(), path), "a", "b")
    whole = path.read_bytes()
    for cut in (1, 10, len(whole.splitlines()[1])):
        path.write_bytes(whole[:-cut])
        helper = Counting(7)
        assert texts(Recording(helper, path), "a", "b") == ["answer 0", "answer 7"]
        after = Recording(Counting(99), path, "replay")
        assert texts(after, "a", "b") == ["answer 0", "answer 7"]
        # Without its end alone the line can still be read.
        assert after.damaged == (cut > 1)


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"key": "k"}', '{"key": 1, "text": "a"}', '{"key": "k", "text": 3}']
)
def test_a_line_that_is_no_answer_is_counted(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{line}\n\n")
    assert Recording(Counting(), path).damaged == 1


def test_a_line_tells_a_person_what_was_asked(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts(Recording(Counting(), path), Question.of("naïve?\n", 4))
    entry = json.loads(path.read_text())
    assert entry["text"] == "answer 0"
    assert entry["request"]["messages"] == [{"role": "user", "content": "naïve?\n"}]
    assert entry["request"]["seed"] == 4 and entry["request"]["helper"]["model"] == "a"


def test_the_first_answer_of_two_processes_is_the_answer_of_both(tmp_path):
    path = tmp_path / "answers.jsonl"
    first, second = Recording(Counting(), path), Recording(Counting(100), path)
    assert texts(first, "a") == ["answer 0"]
    assert texts(second, "a", "b") == ["answer 0", "answer 100"]
    assert texts(first, "b") == ["answer 100"]

    class Slow(Counting):
        """Another process has its answer while this one is still waiting for its own."""

        def ask(self, questions: Sequence[Question]) -> list[Reply]:
            texts(second, "c")
            return super().ask(questions)

    assert texts(Recording(Slow(500), path), "c") == ["answer 101"]


def _write(path: str, number: int) -> None:
    recording = Recording(Counting(1000 * number), path)
    for question in range(20):
        texts(recording, f"{question} {'x' * 3000}", f"own {number} {question}")


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(str(path), number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    lines = path.read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 20 + 3 * 20
    assert Recording(Counting(), path, "replay").damaged == 0


def test_a_process_killed_in_the_middle_leaves_a_recording_that_goes_on(tmp_path):
    path = tmp_path / "answers.jsonl"
    code = (
        "import os, sys\n"
        "from stratagem.helpers import Question, Recording, Reply\n"
        "class Dying:\n"
        "    identity = {'kind': 'counting', 'model': 'a', 'temperature': 0.5}\n"
        "    def ask(self, questions):\n"
        "        if questions[0].messages[0]['content'] == 'b': os._exit(9)\n"
        "        return [Reply('kept') for _ in questions]\n"
        f"recording = Recording(Dying(), {str(path)!r})\n"
        "recording.ask([Question.of('a')])\n"
        "recording.ask([Question.of('b')])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
    assert texts(Recording(Counting(), path), "a", "b") == ["kept", "answer 0"]


def test_bad_paths_and_modes_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="unknown mode of a recording 'replya'; did you mean 'replay'"):
        Recording(Counting(), tmp_path / "a.jsonl", "replya")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such file to replay from"):
        Recording(Counting(), tmp_path / "none.jsonl", "replay")
    with pytest.raises(InputError, match="Is a directory"):
        Recording(Counting(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"recording .*file/a\.jsonl"):
        Recording(Counting(), tmp_path / "file" / "a.jsonl")
