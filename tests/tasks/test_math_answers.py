"""Mathematical answers are graded in a process that is killed when it takes too long and started again."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stratagem.errors import InputError
from stratagem.tasks import JsonlTask
from stratagem.tasks.math_answers import MathAnswer

needs_math_verify = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="needs math-verify")


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathAnswer]:
    verifier = MathAnswer(seconds=20.0)
    yield verifier
    verifier.close()


@needs_math_verify
@pytest.mark.parametrize(
    ("answer", "response", "score"),
    [
        (r"\frac{1}{2}", r"so it is \boxed{0.5}", 1.0),
        (r"\frac{1}{2}", r"\boxed{\frac{2}{4}}", 1.0),
        ("$x^2 - 1$", "$(x-1)(x+1)$", 1.0),
        ("3", "The answer is 4.", 0.0),
        ("3", "no idea", 0.0),
        ("3", "", 0.0),
    ],
)
def test_grades(verifier: MathAnswer, answer: str, response: str, score: float) -> None:
    assert verifier.score(response, {"prompt": "?", "answer": answer}) == score


@needs_math_verify
def test_a_reference_that_is_no_mathematics_is_an_error_and_not_a_zero(verifier: MathAnswer) -> None:
    with pytest.raises(ValueError, match=r"reference answer '\$ \$' cannot be graded"):
        verifier.score("3", {"prompt": "?", "answer": "$ $"})


@needs_math_verify
def test_an_answer_that_takes_too_long_is_killed_and_the_next_one_graded() -> None:
    verifier = MathAnswer(seconds=20.0)
    endless = {"prompt": "?", "answer": "7"}
    assert verifier.score("7", endless) == 1
    verifier.seconds = 0.5
    started = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"longer than 0\.5 s"):
        verifier.score(r"\boxed{9^{9^{9^{9}}} - \sum_{k=1}^{10000000} \sin(k)^{k!}}", endless)
    assert time.perf_counter() - started < 8
    verifier.seconds = 20.0
    assert verifier.score("7", endless) == 1
    verifier.close()


@needs_math_verify
def test_check_passes(tmp_path: Path) -> None:
    path = tmp_path / "mathematics.jsonl"
    lines = [{"prompt": f"{n}/3?", "answer": rf"\frac{{{n}}}{{3}}"} for n in range(1, 40)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert JsonlTask(str(path), "math").check(5).corruptions_rejected == 5


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'stratagem\[math\]'"):
        MathAnswer()
