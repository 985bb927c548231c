"""The function_calls task: form, calls, requests of every category, and where the thought of a turn lies."""

from __future__ import annotations

from random import Random

import pytest

from stratagem.errors import InputError
from stratagem.spans import Span
from stratagem.tasks import FunctionCallsTask, make
from stratagem.tasks.call_data import call_problem
from stratagem.tasks.call_syntax import WantedCall, read_calls
from stratagem.tasks.call_tools import TOOLS, ask
from stratagem.tasks.function_calls import (
    CATEGORIES,
    FunctionCallsEnvironment,
    Request,
    well_formed,
)

ALARM = WantedCall("set_alarm", {"hour": [7], "minute": [0]})
SONG = WantedCall("play_song", {"title": ["Blue Hour"], "volume": [5]})
TWO = Request("parallel", "Wake me at 7:00. Play Blue Hour.", ("play_song", "set_alarm", "translate"), (ALARM, SONG))
NONE = Request("none", "Wake me at 7:00.", ("play_song",), ())
TASK = FunctionCallsTask()


def played(request: Request, action: str):
    environment = FunctionCallsEnvironment(request)
    environment.reset()
    return environment.step(action)


# ---- reward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "formed", "right"),
    [
        ("<think>two</think>[set_alarm(hour=7), play_song(title='Blue Hour')]", True, True),
        ("<think>two</think>\n[play_song('Blue Hour', 5), set_alarm(7, 0)]\n", True, True),
        ("<think></think>[set_alarm(hour=7), play_song(title='Blue Hour')]", True, True),
        ("<think>two</think>[set_alarm(hour=7)]", True, False),
        ("<think>two</think>[set_alarm(hour=7), play_song(title='Blue Hour'), translate()]", True, False),
        ("<think>two</think>[]", True, False),
        ("<think>two</think>I cannot do that.", True, False),
        ("<think>two[set_alarm(hour=7), play_song(title='Blue Hour')]", False, False),
        ("[set_alarm(hour=7), play_song(title='Blue Hour')]", False, True),
        ("so <think>two</think>[set_alarm(hour=7), play_song(title='Blue Hour')]", False, True),
        ("<think>a</think><think>b</think>[set_alarm(hour=7), play_song(title='Blue Hour')]", False, False),
        ("<think>two</think>[set_alarm(hour=7), play_song(title='Blue Hour')] done", False, False),
        ("<think>two</think>[set_alarm(hour=7), play_song(title=__import__('os'))]", False, False),
        ("<think>two</think>", False, False),
        ("", False, False),
    ],
)
def test_the_reward_is_all_or_nothing(action, formed, right):
    step = played(TWO, action)
    assert step.done and step.success == (formed and right)
    assert step.reward == float(formed and right)
    assert step.components == {"format": float(formed), "calls": float(right)}
    assert step.well_formed == formed == well_formed(action)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("[]", True), ("No tool can wake you.", True), ("[play_song(title='Blue Hour')]", False),
     ("play_song(title='Blue Hour')", False), ("[play_song(", False), ("", False)],
)  # fmt: skip
def test_where_no_tool_fits_no_call_is_right(answer, right):
    assert played(NONE, f"<think>none</think>{answer}").reward == float(right)


# ---- requests -------------------------------------------------------------------------------------------------------


def test_there_are_twelve_tools_and_their_own_requests_fit_their_schemas():
    assert len(TOOLS) == 12
    for name, tool in TOOLS.items():
        for seed in range(10):
            asked = ask(name, Random(seed))
            (call,) = read_calls(f"[{asked.call.written()}]", TOOLS)
            assert call_problem(call, tool) is None
            assert set(asked.call.arguments) == set(tool.properties)


@pytest.mark.parametrize("index", range(24))
def test_requests_are_of_their_category(index):
    request = TASK.request("train", index)
    assert request.category == CATEGORIES[index % 4]
    called = {call.name for call in request.calls}
    assert called <= set(request.tools) and len(set(request.tools)) == len(request.tools)
    counts = {"single": (1, 1), "multiple": (1, 4), "none": (0, 3)}
    if request.category == "parallel":
        assert len(request.calls) in (2, 3) and len(request.tools) == 3 + len(called)
    else:
        assert (len(request.calls), len(request.tools)) == counts[request.category]


def test_the_same_number_is_the_same_request_and_splits_share_none():
    assert TASK.request("train", 5) == TASK.request("train", 5)
    train, test = ({TASK.request(split, index).text for index in range(60)} for split in ("train", "test"))
    assert len(train) > 50 and not train & test


@pytest.mark.parametrize("category", ["mixed", *CATEGORIES])
def test_solutions_are_accepted_and_corrupted_ones_are_not(category):
    for split in ("train", "test"):
        assert make(f"function_calls:category={category}").check(16, split).solutions_accepted == 16


def test_the_observation_shows_every_tool_that_is_offered_and_the_request():
    text = FunctionCallsEnvironment(TWO).reset().text
    assert text.endswith(f"Request: {TWO.text}")
    assert [TOOLS[name].signature for name in TWO.tools] == text.split("\n\n")[0].splitlines()[1:]


@pytest.mark.parametrize("options", ["category=both", "distractors=10", "max_new_tokens=0", "tools=3"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="function_calls"):
        make(f"function_calls:{options}")


# ---- thoughts and answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("<think>so so</think>[f()]", "so so", "[f()]"),
        ("  <think>so</think> no tool", "so", " no tool"),
        ("<think>never closed [f()]", "never closed [f()]", None),
        ("[f()]", None, "[f()]"),
        ("</think>[f()]", None, "</think>[f()]"),
        ("<think></think>", None, None),
        ("", None, None),
    ],
)
def test_the_thought_of_a_turn_is_found(text, thought, action):
    parts = {span: text[slice(*place)] for span, place in TASK.plan(text).parts.items()}
    assert (parts.get(Span.THINK), parts.get(Span.ACTION)) == (thought, action)
    assert not TASK.plan(text).switches


def test_tokens_of_thoughts_are_labelled_in_a_batch(make_world):
    from stratagem.sampling import Rollouts

    x = make_world(FunctionCallsTask(max_new_tokens=8)).collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    assert set(x.span.tolist()) <= {int(Span.NONE), int(Span.ACTION), int(Span.THINK)}


def test_answers_agree_when_their_calls_do():
    one = TASK.answer("<think>a</think>[set_alarm(7, 0), play_song(title='Blue Hour')]")
    other = TASK.answer("<think>b</think>[play_song(title='Blue Hour'), set_alarm(hour=7, minute=0)]")
    assert one == other is not None
    assert TASK.answer("<think>b</think>[") is None
    assert TASK.answer("<think>b</think>[]") == "[]"
