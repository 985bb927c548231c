"""Helpers by name, functions, local models, and what is counted when one is down."""

from __future__ import annotations

import logging

import pytest

from stratagem.errors import InputError
from stratagem.helpers import (
    Counted,
    Endpoint,
    HelperError,
    LocalModel,
    Question,
    Recording,
    Reply,
    Scripted,
    Wording,
    helper,
)


def shout(messages, seed):
    text = messages[-1]["content"]
    if text == "raise":
        raise KeyError("nothing\nhere")
    return 3 if text == "number" else f"{text.upper()}{seed}"


def test_a_function_answers_and_what_it_raises_fails_its_own_question():
    made = Scripted(shout, "shout")
    good, raised, number = made.ask([Question.of("hi", 2), Question.of("raise"), Question.of("number")])
    assert good == Reply("HI2")
    assert raised == Reply(None, "shout raised KeyError: 'nothing\\nhere'")
    assert number == Reply(None, "shout returned int instead of text")
    with pytest.raises(HelperError, match="shout raised KeyError"):
        raised.required()


def test_an_endpoint_takes_its_options_from_its_name():
    made = helper("endpoint:http://127.0.0.1:9/v1/#org/small:free;temperature=0.9;top_p=0.18;timeout=2;key=MY_KEY")
    assert isinstance(made.helper, Endpoint)
    assert (made.helper.address, made.helper.model) == ("http://127.0.0.1:9/v1", "org/small:free")
    assert (made.helper.wording.temperature, made.helper.wording.top_p) == (0.9, 0.18)
    assert (made.helper.timeout, made.helper.key) == (2.0, "MY_KEY")
    assert made.name == "endpoint:http://127.0.0.1:9/v1/#org/small:free"


def test_equal_names_are_one_helper_and_a_model_is_not_read_before_it_is_asked():
    spec = "model:/no/such/model;max_tokens=8"
    assert helper(spec) is helper(spec)
    with pytest.raises(InputError, match="/no/such/model: no such folder"):
        helper(spec).ask_one(Question.of("hi"))


def test_any_helper_can_be_recorded_and_replayed_by_name(tmp_path, server):
    path = tmp_path / "answers.jsonl"
    spec = f"endpoint:{server.address}#small;record={path}"
    assert helper(spec).ask_one(Question.of("hi", 1)).text == "HI 1"
    asked = len(server.requests)
    # Somewhere else, the same model is the same helper.
    replay = helper(f"endpoint:http://127.0.0.1:9/v1#small;record={path};mode=replay")
    assert isinstance(replay.helper, Recording)
    assert replay.ask_one(Question.of("hi", 1)).text == "HI 1"
    assert replay.ask_one(Question.of("hi", 2)).text is None
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("endpont:http://h/v1#m", "unknown kind of helper 'endpont'; did you mean 'endpoint'"),
        ("http://h/v1#m", "is malformed; write endpoint:ADDRESS#MODEL"),
        ("small", "is malformed"),
        ("model:", "is malformed"),
        ("endpoint:http://h/v1", "names no model"),
        (
            "endpoint:http://h/v1#m;tempreature=1",
            "option of a helper 'tempreature'; did you mean 'temperature'",
        ),
        ("endpoint:http://h/v1#m;temperature", "'temperature' is no option; write option=value"),
        ("endpoint:http://h/v1#m;timeout=1;timeout=2", "option 'timeout' is given twice"),
        ("endpoint:http://h/v1#m;top_p=0", "top_p='0' is not allowed; it should be greater than 0"),
        ("model:tiny;seeded=false", "unknown option of a helper 'seeded'"),
        ("model:tiny;mode=replay", "mode needs record=PATH"),
        ("python:os", "write python:module:function"),
        ("python:os:nothing", "has no attribute 'nothing'"),
        ("python:no_such_module:f", "No module named 'no_such_module'"),
        ("python:os:name", "name of os cannot be called"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(spec, said):
    with pytest.raises(InputError) as caught:
        helper(spec)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_failures_are_counted_and_logged_once_and_then_every_hundredth(caplog):
    made = Counted(Scripted(shout, "shout"), "shout")
    with caplog.at_level(logging.WARNING, "stratagem.helpers"):
        for _ in range(101):
            made.ask([Question.of("raise"), Question.of("fine")])
    assert (made.asked, made.failed) == (202, 101)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "helper shout: 1 of 1 questions failed",
        "helper shout: 100 of 199 questions failed",
    ]


def test_a_local_model_answers_a_batch_as_it_answers_one_by_one():
    made = LocalModel("tiny", Wording(temperature=1.0, max_tokens=6))
    questions = [Question.of(text, seed) for text, seed in (("go north", 1), ("go north", 2), ("take the key", 3))]
    batch = made.ask(questions)
    assert batch == [made.ask([question])[0] for question in questions]
    assert all(reply.text is not None for reply in batch)
    assert batch[0] != batch[1]
    greedy = LocalModel("tiny", Wording(max_tokens=6))
    assert len({greedy.ask([Question.of("go north", seed)])[0].text for seed in range(4)}) == 1


def test_a_question_that_fills_the_models_context_fails_alone():
    made = LocalModel("tiny", Wording(max_tokens=4))
    long, short = made.ask([Question.of("key " * 20_000), Question.of("key")])
    assert long == Reply(None, "the question fills the model's context") and short.text is not None
    none, short = made.ask([Question(()), Question.of("key")])
    assert none.text is None and "at least one message" in str(none.failure) and short.text is not None


def test_a_policy_in_this_process_is_not_changed_by_being_asked():
    made = LocalModel("tiny", Wording(max_tokens=2))
    made.ask([Question.of("hi")])
    engine, _ = made._served
    assert not any(parameter.requires_grad for parameter in engine._model.parameters())
