"""A helper behind HTTP: what is sent, what comes back, and every way in which a server can fail."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.helpers import Endpoint, Question, Wording

from .conftest import Handler, Server, answers


def endpoint(server: Server, **options: Any) -> Endpoint:
    options = {"timeout": 0.3, "backoff": 0.01, "deadline": 3.0, "retries": 2, **options}
    return Endpoint(server.address, "small", **options)


def asked(helper: Endpoint, text: str = "hello") -> str:
    """The failure of one question, which is one line."""
    [reply] = helper.ask([Question.of(text)])
    assert reply.text is None and reply.failure is not None and "\n" not in reply.failure
    return reply.failure


def status(code: int, content: bytes = b"", **headers: str):
    return lambda handler, body: handler.reply(code, content, **headers)


def hangs(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.closing.wait(5)


def drips(handler: Handler, body: dict[str, Any]) -> None:
    """Says at once that an answer is coming, and sends a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        if handler.server.closing.wait(0.05):
            return
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def breaks_off(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    hangs_up(handler, body)


def test_the_request_holds_model_messages_sampling_and_seed(server, monkeypatch):
    monkeypatch.setenv("STRATAGEM_HELPER_KEY", "secret-key")
    helper = endpoint(server, wording=Wording(temperature=0.9, top_p=0.18, max_tokens=17))
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "what is 2+2?"})
    [reply] = helper.ask([Question(messages, seed=2**40 + 5)])
    assert reply.text == "WHAT IS 2+2? 5"
    [(path, body, headers)] = server.requests
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret-key"
    assert body == {
        "model": "small",
        "messages": [dict(message) for message in messages],
        "temperature": 0.9,
        "top_p": 0.18,
        "max_tokens": 17,
        "seed": 5,
    }


def test_without_the_variable_no_key_is_sent_and_an_unseeded_helper_sends_no_seed(server):
    [reply] = endpoint(server, wording=Wording(seeded=False)).ask([Question.of("hi", 3)])
    assert reply.text == "HI None"
    [(_, body, headers)] = server.requests
    assert "Authorization" not in headers and "seed" not in body


def test_replies_come_in_the_order_of_the_questions_whoever_is_answered_first(server):
    def slow_first(handler: Handler, body: dict[str, Any]) -> None:
        if body["messages"][-1]["content"] == "0":
            time.sleep(0.15)
        answers(handler, body)

    server.does(slow_first)
    replies = endpoint(server, timeout=2).ask([Question.of(str(n), n) for n in range(6)])
    assert [reply.text for reply in replies] == [f"{n} {n}" for n in range(6)]


@pytest.mark.parametrize("trouble", [status(500), status(503), status(429), hangs_up, breaks_off, hangs])
def test_what_may_pass_is_tried_again(server, trouble):
    server.does(trouble, trouble, answers)
    [reply] = endpoint(server).ask([Question.of("again", 1)])
    assert reply.text == "AGAIN 1" and len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (status(500, b"out of memory"), "status 500: out of memory"),
        (hangs, "no answer within 0.3 s"),
        (drips, "no answer within 0.3 s"),
        (hangs_up, "connection broke"),
        (breaks_off, "connection broke"),
    ],
)
def test_tries_are_bounded_and_the_last_one_is_told(server, trouble, said):
    server.does(trouble)
    begun = time.monotonic()
    failure = asked(endpoint(server, retries=1))
    assert said in failure and f"{server.address}, model small" in failure
    assert len(server.requests) == 2 and time.monotonic() - begun < 2.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error": {"message": "the model small does not exist", "code": 404}}', "the model small does not exist"),
        (b'{"detail": "no\\n such route"}', "no such route"),
        (b'{"message": "wrong"}', "wrong"),
        (b"<html>not here</html>", "<html>not here</html>"),
        (b"", "Not Found"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_not_tried_again(server, content, said):
    server.does(status(404, content))
    assert f"status 404: {said}" in asked(endpoint(server))
    assert len(server.requests) == 1


def test_a_redirection_is_not_followed(server):
    server.does(status(307, b"", Location="http://127.0.0.1:9/elsewhere"))
    assert "status 307" in asked(endpoint(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        b"[" * 5000,
        b"\xff\xfe",
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure(server, content):
    server.does(status(200, content))
    assert "holds no choices[0].message.content" in asked(endpoint(server))
    assert len(server.requests) == 1


def test_content_that_is_no_text_is_a_failure(server):
    server.does(status(200, json.dumps({"choices": [{"message": {"content": None}}]}).encode()))
    assert "NoneType instead of text" in asked(endpoint(server))


def test_an_answer_without_an_end_is_cut(server):
    server.does(status(200, b"x" * (4 * 2**20 + 1)))
    assert "longer than 4194304 bytes" in asked(endpoint(server, timeout=3))


def test_nobody_there_is_told(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    helper = Endpoint(address, "small", retries=1, backoff=0.01, timeout=0.5)
    assert "cannot connect" in asked(helper)


def test_the_deadline_bounds_all_tries_and_what_a_server_asks_to_wait(server):
    server.does(status(429, b"slow down", Retry_After="60"))
    begun = time.monotonic()
    assert "slow down" in asked(endpoint(server, retries=20))
    assert len(server.requests) == 1 and time.monotonic() - begun < 1
    server.does(hangs)
    begun = time.monotonic()
    asked(endpoint(server, retries=20, deadline=0.7))
    assert time.monotonic() - begun < 1.6


def test_a_server_that_is_gone_costs_one_try_a_question_until_it_is_back(server):
    server.does(status(500))
    helper = endpoint(server, retries=2)
    for _ in range(3):
        asked(helper)
    assert len(server.requests) == 9
    asked(helper)
    assert len(server.requests) == 10
    server.does(answers)
    assert helper.ask([Question.of("hi")])[0].text is not None
    before = len(server.requests)
    server.does(status(500))
    asked(helper)
    assert len(server.requests) == before + 3


def test_a_key_is_in_no_message_and_in_no_identity(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "very-secret")
    server.does(status(401, b'{"error": {"message": "Incorrect API key provided: very-secret"}}'))
    helper = endpoint(server, key="MY_KEY")
    failure = asked(helper)
    assert "Incorrect API key provided: ***" in failure and "very-secret" not in failure
    assert "very-secret" not in f"{helper!r} {helper.identity}"


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:0/v1", "http://host:x/v1", "http://host/v1?a=b"],
)
def test_a_malformed_address_is_refused_when_the_helper_is_made(address):
    with pytest.raises(InputError, match="is malformed; write http://HOST"):
        Endpoint(address, "small")


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(InputError) as caught:
        Endpoint("http://me:hunter2@host/v1", "small")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout=0 is not allowed"),
        ({"retries": -1}, "retries=-1 is not allowed"),
        ({"deadline": float("nan")}, "deadline=nan is not allowed"),
        ({"parallel": 0}, "parallel=0 is not allowed"),
        ({"key": "sk-abc"}, "key is no name of an environment variable"),
        ({"model": ""}, "model='' is not allowed"),
    ],
)
def test_an_option_out_of_range_is_named(options, said):
    with pytest.raises(InputError, match=said):
        Endpoint(**{"address": "http://host/v1", "model": "small", **options})
