"""Data for function calling: what rules mend and drop, and when judge and rules agree."""

from __future__ import annotations

import json

import pytest

from stratagem.errors import InputError
from stratagem.tasks.call_data import by_rule, call_problem, prepare_calls, prepare_file, read_tools
from stratagem.tasks.call_syntax import CallError
from stratagem.tasks.tool_calls import ToolCall

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string", "default": "x"}},
    "required": ["a"],
}
F = {"name": "f", "description": "does it", "parameters": SCHEMA}


def row(calls: str, **fields) -> dict:
    return {"question": "do it", "tools": [F], "calls": calls, **fields}


def content(judged):
    return judged


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "mended"),
    [
        ("[f(1)]", "[f(a=1)]"),
        ("[f(1, 'y')]", "[f(a=1, b='y')]"),
        ('[ f( a = "3" ) ]', "[f(a=3)]"),
        ("[]", "[]"),
    ],
)
def test_rules_bring_calls_into_one_form(calls, mended):
    assert by_rule(row(calls, source="web")) == row(mended, source="web")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"calls": "[f(a=1"}, "cannot be parsed"),
        ({"calls": "[f(a=open('x'))]"}, "cannot be parsed"),
        ({"calls": "[g()]"}, "not among those given"),
        ({"calls": "[f()]"}, "do not fit"),
        ({"calls": "[f(a='one')]"}, "do not fit"),
        ({"calls": "[f(a=1, c=2)]"}, "do not fit"),
        ({"calls": 3}, "must be text"),
        ({"question": " "}, "must be text"),
        ({"tools": "f"}, "must be a list"),
        ({"tools": [F, F]}, "each name once"),
        ({"tools": [{"name": "f", "parameters": {"type": "whole"}}]}, "not sound"),
    ],
)
def test_what_no_rule_can_mend_is_named(bad, reason):
    with pytest.raises(CallError, match=reason):
        by_rule(row("[f(a=1)]") | bad)


def test_arguments_are_checked_by_their_schema():
    tool = read_tools([F])["f"]
    assert call_problem(ToolCall("f", {"a": 1}), tool) is None
    assert "'a' is a required property" in call_problem(ToolCall("f", {"b": "y"}), tool)
    assert "is not of type 'integer'" in call_problem(ToolCall("f", {"a": "1"}), tool)
    assert "unexpected" in call_problem(ToolCall("f", {"a": 1, "c": 1}), tool)


# ---- judge and rules ------------------------------------------------------------------------------------------------


def test_a_content_judge_leaves_what_the_rules_find_right():
    prepared = prepare_calls([row("[f(a=1)]"), row("[f(2)]"), row("[g()]"), row("[f(")], content)
    assert [kept["calls"] for kept in prepared.rows] == ["[f(a=1)]", "[f(a=2)]"]
    assert prepared.corrected == 1
    assert prepared.dropped == {"a tool is not among those given": 1, "calls cannot be parsed": 1}


def test_what_the_judge_corrects_is_judged_and_checked_again():
    asked = []

    def judge(given):
        asked.append(given["calls"])
        return {**given, "calls": "[f('2')]"} if given["calls"] == "[f(a=1)]" else given

    prepared = prepare_calls([row("[f(a=1)]")], judge)
    assert [kept["calls"] for kept in prepared.rows] == ["[f(a=2)]"] and prepared.corrected == 1
    assert asked == ["[f(a=1)]", "[f(a=2)]", "[f(a=2)]"], "corrected, then unchanged, then the last word"


def test_what_the_judge_drops_or_never_settles_on_is_dropped():
    def restless(given):
        return {**given, "question": f"{given['question']}!"}

    assert prepare_calls([row("[f(a=1)]")], lambda given: None).dropped == {"the judge dropped it": 1}
    assert prepare_calls([row("[f(a=1)]")], restless, rounds=2).dropped == {"the judge was not content in the end": 1}
    assert prepare_calls([], content).rows == []
    with pytest.raises(InputError, match="rounds = 0"):
        prepare_calls([], content, rounds=0)


def test_files_of_lines_are_read_and_written(tmp_path):
    source, target = tmp_path / "raw.jsonl", tmp_path / "clean.jsonl"
    source.write_text("\n".join(json.dumps(entry) for entry in (row("[f(1)]"), row("[h()]"))))
    assert len(prepare_file(source, target, content).rows) == 1
    assert [json.loads(line) for line in target.read_text().splitlines()] == [row("[f(a=1)]")]
    source.write_text('{"question": "a"}\n[1]\n')
    with pytest.raises(InputError, match=r"raw\.jsonl, line 2: is no JSON object"):
        prepare_file(source, target, content)
    with pytest.raises(InputError, match="cannot be read"):
        prepare_file(tmp_path / "none.jsonl", target, content)
