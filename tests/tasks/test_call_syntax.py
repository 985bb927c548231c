"""Calls as they are read off a syntax tree and compared: what is one, what is equal, and what is never run."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks.call_syntax import (
    CallError,
    Tool,
    WantedCall,
    read_calls,
    same_calls,
    same_value,
    written,
)
from stratagem.tasks.tool_calls import ToolCall

F = Tool(
    "f",
    "does it",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "default": "x"}},
        "required": ["a"],
    },
)
TOOLS = {"f": F, "g": Tool("g")}
GOLD = [WantedCall("f", {"a": [1], "b": ["x"]}), WantedCall("g")]


def right(text: str, wanted=GOLD, ordered: bool = False) -> bool:
    return same_calls(read_calls(text, TOOLS), wanted, TOOLS, ordered)


# ---- comparing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[f(a=1, b="x"), g()]', True),
        ('[g(), f(a=1, b="x")]', True),
        ("[f(a=1.0, b='x'), g()]", True),
        ("[f(1, 'x'), g()]", True),
        ("[f(b=' x ', a=1), g()]", True),
        ("[f(a=1), g()]", True),  # b is optional, and x its default
        ("[f(b='x'), g()]", False),
        ('[f(a=1, b="x", c=3), g()]', False),
        ('[f(a=1, b="X"), g()]', False),
        ('[f(a="1", b="x"), g()]', False),
        ('[f(a=True, b="x"), g()]', False),
        ('[f(a=1, b="x")]', False),
        ('[f(a=1, b="x"), g(), g()]', False),
        ('[f(a=1, b="x"), f(a=1, b="x")]', False),
        ("[]", False),
    ],
)
def test_calls_are_right_when_each_is_there_as_often_as_it_is_wanted(text, expected):
    assert right(text) == expected


def test_order_counts_only_where_it_is_asked_for():
    assert right("[f(a=1), g()]", ordered=True) and not right("[g(), f(a=1)]", ordered=True)


def test_an_argument_that_is_not_required_may_be_left_out_only_where_its_default_is_meant():
    other = [WantedCall("f", {"a": [1], "b": ["y"]})]
    assert right("[f(a=1, b='y')]", other) and not right("[f(a=1)]", other)
    silent = [WantedCall("f", {"a": [1]})]
    assert right("[f(a=1)]", silent) and right("[f(a=1, b='x')]", silent) and not right("[f(a=1, b='y')]", silent)
    assert not right("[g(a=1)]", [WantedCall("g", {})])


def test_any_of_the_values_that_are_listed_is_accepted_and_calls_share_them_out():
    either = [WantedCall("f", {"a": [1, 2]}), WantedCall("f", {"a": [1]})]
    # Taken greedily, the first call would use up what the second one needs.
    assert right("[f(a=1), f(a=2)]", either) and right("[f(a=2), f(a=1)]", either)
    assert not right("[f(a=2), f(a=2)]", either)


def test_without_calls_only_an_empty_list_is_right():
    assert right("[]", []) and not right("[g()]", [])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.0 + 1e-5, False),
        (10**400, 1.0, False),
        (10**400, 10**400, True),
        (2**53, 2**53 + 1, False),
        (True, 1, False),
        (True, True, True),
        (None, None, True),
        (None, 0, False),
        (" a ", "a", True),
        ([1, [2.0]], (1, [2]), True),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (float("nan"), float("nan"), False),
        (float("inf"), float("inf"), False),
    ],
)
def test_values_say_the_same(one, other, same):
    assert same_value(one, other) == same_value(other, one) == same


def test_an_infinite_literal_is_equal_to_nothing():
    assert read_calls("[f(a=1e999)]")[0].arguments["a"] == float("inf")
    assert not right("[f(a=1e999)]", [WantedCall("f", {"a": [float("inf")]})])


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f(a=1)",
        "[f(a=1)",
        "[f]",
        "[1]",
        "[f(a=1)] and more",
        "[f(**{'a': 1})]",
        "[f(*[1])]",
        "[f(1, a=1)]",
        "[f(1, 'x', 3)]",
        "[g(1)]",
        "[h(1)]",
        "[f(a=b)]",
        "[f(a=1+1)]",
        "[f(a=[x for x in (1,)])]",
        "[f(a={1: 2})]",
        "[f(a={**{}})]",
        "[f(a={'k': 1, 'k': 2})]",
        "[f(a={1, 2})]",
        "[f(a=b'x')]",
        "[f(a=1j)]",
        "[f(a=...)]",
        "[f(a=f'{1}')]",
        "[f(a=- -1)]",
        "[f(a=-True)]",
        "[f()()]",
        "[(lambda: 1)()]",
        "[f(a:=1)]",
        "[f(a=1\0)]",
        "[f(a=" + "9" * 10_000 + ")]",
        "[f(a=" + "[" * 3_000 + "]" * 3_000 + ")]",
        "[f(a=" + "-" * 9_000 + "1)]",
        "[f(a='" + "x" * 30_000 + "')]",
    ],
)
def test_what_is_no_list_of_calls_is_refused_without_another_exception(text):
    with pytest.raises(CallError):
        read_calls(text, TOOLS)


def test_nothing_in_a_call_is_run(monkeypatch):
    ran = []
    monkeypatch.setattr("builtins.print", lambda *_: ran.append(1))
    for text in ('[f(a=__import__("os"))]', "[f(a=print(1))]", "[f(a=(print)(1))]", "[f(a=[print()])]"):
        with pytest.raises(CallError):
            read_calls(text, TOOLS)
    before = set(sys.modules)
    assert read_calls("[print(a='x'), __import__(a='antigravity')]")[1].name == "__import__"
    assert not ran and "antigravity" not in set(sys.modules) - before


def test_names_may_have_dots_and_numbers_signs():
    (call,) = read_calls("[math.ops.add(a=-1, b=+2.5, c=None, d=(1, 'x'))]")
    assert call == ToolCall("math.ops.add", {"a": -1, "b": 2.5, "c": None, "d": [1, "x"]})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a\u00f1'\"\\\n ", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab'\"\\\n", max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["a", "b_2", "city"]), _VALUES))
def test_what_is_written_is_read_back(arguments):
    call = ToolCall("f", arguments)
    assert read_calls(f"[{written(call)}, {written(call)}]") == [call, call]


def test_a_signature_says_what_a_policy_must_know():
    assert F.signature == 'f(a: integer, b: string = "x") -- does it'
    place = {"properties": {"shelf": {"type": "integer"}}}
    tool = Tool("h", "", {"properties": {"n": {"type": "array", "items": {"type": "number"}}, "p": place},
                          "required": ["n", "p"]})  # fmt: skip
    assert tool.signature == "h(n: array of number, p: {shelf: integer})"
