"""OpenEnv environments, on a small real one in this process and behind a server on the loopback address."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.tasks.openenv import OpenEnvTask, from_spec

core = pytest.importorskip("openenv.core.env_server.interfaces", reason="needs the extra 'environments'")
types = pytest.importorskip("openenv.core.env_server.types", reason="needs the extra 'environments'")


class Say(types.Action):  # type: ignore[misc, name-defined]
    message: str


class Heard(types.Observation):  # type: ignore[misc, name-defined]
    text: str
    count: int = 0


class Password(core.Environment):  # type: ignore[misc, name-defined]
    """The first message names the password's digit; saying it ends the episode with reward 1."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Heard:
        self.digit, self.count = str((seed or 0) % 10), 0
        return Heard(text=f"say {self.digit}")

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Heard:
        self.count += 1
        right = action.message == self.digit
        return Heard(text=f"heard {action.message}", count=self.count, reward=float(right), done=right)

    @property
    def state(self) -> Any:
        return types.State(step_count=self.count)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    http_server = pytest.importorskip("openenv.core.env_server.http_server")
    application = http_server.create_fastapi_app(Password, Say, Heard, max_concurrent_envs=4)
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 20
    while not server.started and time.monotonic() < limit:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


def converse(task: OpenEnvTask) -> None:
    environment = task.environment("test", 3)  # seed 7
    try:
        assert environment.reset().text == "say 7"
        wrong, right = environment.step("6"), environment.step("7")
        assert (wrong.observation.text, wrong.reward, wrong.done) == ("heard 6", 0.0, False)
        assert (right.reward, right.done, right.success) == (1.0, True, True)
    finally:
        environment.close()


def test_an_environment_in_this_process_is_played() -> None:
    converse(OpenEnvTask.in_process(Password, Say, observation="text"))


def test_an_environment_behind_a_server_is_played_and_its_text_fields_are_found(address: str) -> None:
    converse(from_spec(address, {"timeout": "20"}))


def test_two_sessions_of_one_server_do_not_disturb_each_other(address: str) -> None:
    task = from_spec(address, {})
    one, two = task.environment("train", 1), task.environment("train", 2)
    try:
        assert (one.reset().text, two.reset().text) == ("say 2", "say 4")
        assert one.step("2").success and not two.step("2").done
    finally:
        one.close()
        two.close()


def test_without_a_named_field_the_policy_reads_the_whole_observation() -> None:
    environment = OpenEnvTask.in_process(Password, Say).environment("train", 1)
    assert environment.reset().text == '{"count": 0, "text": "say 2"}'


def test_a_server_that_is_not_there_is_wrong_input() -> None:
    with pytest.raises(InputError, match="no OpenEnv server answers"):
        from_spec("http://127.0.0.1:9", {"timeout": "2"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "mesage"}, "action field 'mesage' does not exist; text fields: message"),
        ({"observation": "words"}, "observation field 'words' does not exist; text fields: text"),
        ({"fields": "x"}, "unknown option"),
        ({"timeout": "soon"}, "timeout='soon'"),
        ({"max_turns": "-1"}, "max_turns='-1'"),
    ],
)
def test_wrong_options_are_refused_with_one_line(address: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(address, options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("argument", [None, "localhost", "ftp://x"])
def test_an_address_is_needed(argument: str | None) -> None:
    with pytest.raises(InputError, match="needs the http address"):
        from_spec(argument, {})
