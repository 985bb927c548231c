"""Environments of the verifiers library, on small real ones written here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stratagem.errors import InputError
from stratagem.tasks.verifiers import from_spec

pytest.importorskip("verifiers.v1", reason="needs the extra 'environments' with verifiers 0.4 or newer")

SINGLE = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    answer: str

class Sum(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward
    async def right(self, trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.5)
    async def brief(self, trace) -> float:
        return float(len(trace.last_reply) <= 2)

class Config(vf.TasksetConfig):
    count: int = 40

class Sums(vf.Taskset[Sum, Config]):
    def load(self):
        for number in range(self.config.count):
            data = Data(prompt=f"{number} + 1 =", answer=str(number + 1), system_prompt="Add.")
            yield Sum(data, self.config.task)

__all__ = ["Sums"]
"""

MULTI = """
import itertools
import verifiers.v1 as vf

class Data(vf.TaskData):
    secret: int

class Guess(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward
    async def found(self, trace) -> float:
        return float(trace.last_reply == str(self.data.secret))

class Guesses(vf.Taskset[Guess, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        for number in itertools.count():
            yield Guess(Data(prompt=f"Game {number}. Guess 0 to 9.", secret=number % 10), self.config.task)

class Config(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(max_turns=3)

class Game(vf.Env[Config]):
    async def run(self, task, agents):
        async with agents.player.interaction(task) as exchange:
            segment = await exchange.turn()
            while not segment.terminated and segment.last_reply != str(task.data.secret):
                segment = await exchange.turn("Wrong.")

__all__ = ["Guesses", "Game"]
"""

BOXED = SINGLE.replace("    @vf.reward\n", "    NEEDS_CONTAINER = True\n\n    @vf.reward\n", 1)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = {"stratagem_sums": SINGLE, "stratagem_guesses": MULTI, "stratagem_boxed": BOXED}
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in modules:
        sys.modules.pop(name, None)


def test_a_single_turn_ends_with_the_weighted_rewards_and_their_components() -> None:
    task = from_spec("stratagem-sums", {})
    assert task.reward_names == ("reward", "brief", "right")
    assert task.reward_weights == (1.0, 0.0, 0.0), "the reward is the weighted sum of the others already"
    environment = task.environment("train", 0)
    system, question = environment.reset().text.split("\n\n")
    assert system == "Add."
    step = environment.step(str(int(question.split()[0]) + 1))
    assert (step.reward, step.done, step.success) == (1.5, True, True)
    assert step.components == {"right": 1.0, "brief": 0.5}
    environment.close()


def test_a_wrong_answer_keeps_what_it_earned_and_is_no_success() -> None:
    environment = from_spec("stratagem-sums", {}).environment("test", 0)
    environment.reset()
    step = environment.step("a long wrong answer")
    assert (step.reward, step.done, step.success, step.components) == (0.0, True, False, {"right": 0.0, "brief": 0.0})
    environment.close()


def test_a_multi_turn_environment_talks_until_it_is_content() -> None:
    environment = from_spec("stratagem-guesses", {}).environment("train", 0)
    secret = int(environment.reset().text.split()[1].rstrip(".")) % 10
    wrong = environment.step(str((secret + 1) % 10))
    assert (wrong.observation.text, wrong.done, wrong.reward) == ("Wrong.", False, 0.0)
    right = environment.step(str(secret))
    assert (right.done, right.reward, right.success) == (True, 1.0, True)
    environment.close()


def test_the_turn_limit_of_a_seat_ends_the_episode() -> None:
    environment = from_spec("stratagem-guesses", {}).environment("train", 0)
    environment.reset()
    steps = [environment.step("nothing") for _ in range(3)]
    assert [step.done for step in steps] == [False, False, True] and not steps[-1].success
    environment.close()


def test_an_episode_may_be_abandoned_or_never_begun() -> None:
    task = from_spec("stratagem-guesses", {})
    begun, never = task.environment("train", 0), task.environment("train", 1)
    begun.reset()
    begun.close()
    never.close()


def test_no_task_is_in_both_splits_and_a_finite_taskset_starts_again() -> None:
    task = from_spec("stratagem-sums", {})
    seen: dict[str, set[str]] = {}
    for split in ("train", "test"):
        environments = [task.environment(split, index) for index in range(40)]  # type: ignore[arg-type]
        seen[split] = {environment.reset().text for environment in environments}
        for environment in environments:
            environment.close()
    assert len(seen["train"]) + len(seen["test"]) == 40 and not seen["train"] & seen["test"]


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        (None, {}, "needs the id"),
        ("stratagem-absent", {}, "not found"),
        ("stratagem-sums", {"cuont": "3"}, "did you mean 'count'"),
        ("stratagem-sums", {"count": "many"}, "valid integer"),
        ("stratagem-sums", {"max_turns": "0"}, "max_turns='0'"),
        ("stratagem-boxed", {}, "needs a container"),
    ],
)
def test_wrong_specifications_are_refused_with_one_line(
    argument: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        from_spec(argument, options)
    assert "\n" not in str(refusal.value)
