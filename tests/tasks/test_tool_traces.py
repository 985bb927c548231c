"""Recorded solutions: which are good enough to be imitated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stratagem.tasks.tool_traces import Trace, all_ran, has_substance, is_formed, is_slight, kept, programs, repeats

LONG = "\n".join(f"x{n} = {n}" for n in range(6))
TEXT = f"<think>first\n```python\n{LONG}\n```\n```output\n5\n```</think>so \\boxed{{5}}"
GOOD = Trace("p", TEXT, (True,), right=True)


def test_programs_are_those_in_fences_of_python():
    assert programs("```python\na\n``` ```output\nb\n``` ``` python\nc\n```") == ["\na\n", "\nc\n"]


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("<think>", ""),
        TEXT.replace("\\boxed{5}", "\\boxed{ }"),
        TEXT.replace("\\boxed{5}", "5"),
        TEXT.replace("```python", "```"),
        TEXT + "<think>again</think>",
    ],
)
def test_a_solution_out_of_form_is_left_out(text):
    assert is_formed(GOOD) and not is_formed(replace(GOOD, text=text))


def test_repetition_counts_equal_stretches():
    assert not repeats("ab" * 20, length=20, most=20) and repeats("ab" * 31, length=20, most=20)
    assert not repeats("", 20, 20) and not repeats("abc", 20, 0)


def test_short_programs_are_slight_and_some_of_them_are_forgiven():
    assert is_slight("a\n\n# b\nc\nd\ne\nf") and not is_slight("a\nb\nc\nd\ne\nf")
    slight, sound = "```python\na\n```", f"```python\n{LONG}\n```"
    # Of five programs two may be slight, of one ceil(0.4) = 1.
    assert has_substance(replace(GOOD, text=slight * 2 + sound * 3))
    assert not has_substance(replace(GOOD, text=slight * 3 + sound * 2))
    assert has_substance(replace(GOOD, text=slight))


def test_one_good_solution_of_each_problem_is_kept():
    wrong, failed = replace(GOOD, right=False), replace(GOOD, ran=(True, False))
    assert all_ran(GOOD) and not all_ran(failed)
    other, second = replace(GOOD, problem="q"), replace(GOOD, text=TEXT + "!")
    assert kept([wrong, failed, GOOD, other, second], 1000, least=10)[1] == other
    drawn = {kept([GOOD, second], seed, least=10)[0].text for seed in range(1000, 1020)}
    assert drawn == {GOOD.text, second.text}
    assert kept([GOOD], 1000) == [] and kept([], 1000) == []
    assert kept([replace(GOOD, text=TEXT + "no " * 200)], 1000, least=10) == []
