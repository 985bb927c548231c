"""Oracles that read text inside a run: what they are shown, who is down, and runs that go on."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from stratagem.errors import BrokenRunError, InputError
from stratagem.language.readers import texts_of
from stratagem.preferences import HumanLabels, Judge
from stratagem.readings import reading_of
from stratagem.sampling import Rollouts, Windows

Asked = list[tuple[str, str, str]]
_SHOWN = re.compile(r"\[Question\]\n(.*?)\n\n\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*)", re.DOTALL)


def shown(text: str) -> tuple[str, str, str]:
    """Prompt and both answers, as a judge was asked about them."""
    found = _SHOWN.search(text)
    assert found is not None
    return found[1], found[2], found[3]


def favours(first: str, second: str) -> str:
    """The verdict of a judge who likes many different letters."""
    better = len(set(first)) - len(set(second))
    return "[[A]]" if better > 0 else "[[B]]" if better < 0 else "[[C]]"


class Judging:
    """A judge as a function: what it was asked, and what it says."""

    def __init__(self) -> None:
        self.asked: Asked = []
        self.says: Callable[[str, str, str], str] = lambda prompt, first, second: favours(first, second)

    def __call__(self, messages: Sequence[Mapping[str, str]], seed: int) -> str:
        question = shown(messages[-1]["content"])
        self.asked.append(question)
        return self.says(*question)


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Judging:
    """Who answers as ``python:judging:judge``."""
    from stratagem.helpers import named

    module, judge = ModuleType("judging"), Judging()
    module.judge = judge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "judging", module)
    named.helper.cache_clear()
    return judge


PYTHON = Judge("python:judging:judge")
SMALL = Rollouts(prompts_per_step=2, group_size=3)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_a_batch_is_read_in_one_call_pair_by_pair_in_both_orders(judging: Judging, make_world: Any) -> None:
    world = make_world()
    world.read_by([PYTHON])
    collected = world.collect(SMALL, 0)
    x = collected.x
    texts = [*dict.fromkeys(judging.asked)]
    assert sorted(texts) == sorted((prompt, second, first) for prompt, first, second in texts)
    assert len(texts) == len(judging.asked) <= 2 * 2 * 3
    assert {prompt for prompt, _, _ in texts} <= {f"topic {number}" for number in range(5)}
    assert collected.metrics["readings/asked"] == 6 and collected.metrics["readings/failed"] == 0
    first, second = x.group_of_trajectory.pairs()
    said = PYTHON(x, first, second)
    assert torch.equal(said, 1 - PYTHON(x, second, first)) and set(said.tolist()) <= {0.0, 0.5, 1.0}


def test_nobody_reads_where_no_part_asks_for_it(judging: Judging, make_world: Any) -> None:
    x = make_world().collect(SMALL, 0).x
    assert x.reading is None and x.readers == () and not judging.asked


def test_an_episode_of_several_turns_is_shown_as_it_went() -> None:
    from stratagem.language.episodes import Episode, Turn
    from stratagem.tasks.task import Observation

    def turn(seen: Observation, text: str) -> Turn:
        return Turn(seen, [1], [2], None, text)

    one = Episode(0, 0, 0, [turn(Observation("2 + 3?", 0), "5")])
    assert texts_of(one) == ("2 + 3?", "5")
    one.turns.append(turn(Observation("sure?", 1), "yes"))
    assert texts_of(one) == ("2 + 3?", "assistant: 5\n\nuser: sure?\n\nassistant: yes")
    opened = Observation("", 0, opening=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}))
    assert texts_of(Episode(0, 0, 0, [turn(opened, "Hi")])) == ("Be brief.\n\nHi", "Hi")


def test_responses_that_run_on_cannot_be_read(judging: Judging, make_world: Any) -> None:
    world = make_world()
    world.read_by([PYTHON])
    with pytest.raises(InputError, match=r"sampler windows: .* run on across batches"):
        world.collect(Windows(), 0)


# ---- in a run -------------------------------------------------------------------------------------------------------


def judged(small: Callable[..., Any], preference: Any = PYTHON, **values: Any) -> Any:
    return small("sppo", advantage__preference=preference, sampler__prompts_per_step=2, **values)


def test_self_play_learns_what_a_judge_likes(judging: Judging, make_trainer: Any, small: Any) -> None:
    changes = {"objective__gain": 5.0, "optimization__learning_rate": 5e-3, "sampler__group_size": 8}
    trainer = make_trainer(judged(small, **changes), steps=12)
    letters = []
    for _ in range(12):
        judging.asked.clear()
        trainer.step()
        letters.append(sum(len(set(first)) for _, first, _ in judging.asked) / len(judging.asked))
    assert sum(letters[-3:]) > sum(letters[:3])


@pytest.mark.parametrize("within", [False, True])
def test_a_run_goes_on_as_if_it_had_not_stopped(
    within: bool, judging: Judging, make_trainer: Any, make_world: Any, small: Any, stopped_and_resumed: Any
) -> None:
    recipe = judged(small)
    whole = make_trainer(recipe, "whole", steps=3)
    whole.run()
    broken = make_trainer(recipe, "broken", steps=3)
    resumed = stopped_and_resumed(broken, make_world(), 1, within)
    one, other = (trainer.run_directory.rows("metrics.jsonl") for trainer in (whole, resumed))
    assert [row["loss"] for row in one] == [row["loss"] for row in other]
    for mine, theirs in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_batches_in_pieces_and_epochs_ask_no_one_twice(judging: Judging, make_trainer: Any, small: Any) -> None:
    trainer = make_trainer(judged(small, optimization__microbatch_tokens=64, optimization__epochs=3))
    trainer.step()
    assert len(set(judging.asked)) == len(judging.asked)


def test_a_task_without_text_has_nothing_to_read(small: Any, tmp_path: Path) -> None:
    from stratagem.lab.games import GAMES
    from stratagem.lab.world import LabTask, LabWorld
    from stratagem.training.loop import Settings, Trainer
    from stratagem.training.run_directory import RunDirectory

    world = LabWorld(LabTask(next(iter(GAMES.values()))), 0)
    with pytest.raises(InputError, match=r"judge reads text, and lab:\S+ has none; a language task does"):
        Trainer(judged(small), world, RunDirectory.create(tmp_path / "run"), Settings())


def test_a_judge_must_be_named_before_a_run_begins(make_trainer: Any, small: Any) -> None:
    with pytest.raises(InputError, match=r"judge\.helper: names nobody who is asked"):
        make_trainer(judged(small, Judge()))
    with pytest.raises(InputError, match=r"No module named .nowhere."):
        make_trainer(judged(small, Judge("python:nowhere:judge")), "other")


# ---- a judge that is down -------------------------------------------------------------------------------------------


def test_what_a_judge_does_not_answer_is_lost_and_counted(judging: Judging, make_trainer: Any, small: Any) -> None:
    def half(prompt: str, first: str, second: str) -> str:
        if len(first) % 2 or len(second) % 2:
            raise ConnectionError("refused")
        return favours(first, second)

    judging.says = half
    trainer = make_trainer(judged(small, sampler__group_size=6), steps=2)
    with pytest.warns(UserWarning, match=r"judge-\w+: said nothing of \d+ of \d+ trajectories"):
        rows = [trainer.step() for _ in range(2)]
    failed = sum(row["readings/failed"] for row in rows)
    assert 0 < failed < sum(row["readings/asked"] for row in rows)
    ledger = trainer.run_directory.rows("episodes.jsonl")
    assert sum(last - first + 1 for row in ledger for first, last in row["left_out"].get("failed", [])) == failed
    assert all(row["batch/trajectories"] <= 12 - row["readings/failed"] for row in rows)


def test_a_judge_that_is_gone_ends_the_run(judging: Judging, make_trainer: Any, small: Any) -> None:
    judging.says = lambda prompt, first, second: "I would rather not say."
    trainer = make_trainer(judged(small), steps=10)
    with pytest.warns(UserWarning), pytest.raises(BrokenRunError, match="no episode of 3 batches in a row was of use"):
        trainer.run()


# ---- labels ---------------------------------------------------------------------------------------------------------


def test_labels_of_people_are_found_in_any_task(make_world: Any, tmp_path: Path) -> None:
    world = make_world()
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"prompt": "topic 0", "chosen": "nobody says this", "rejected": "nor this"}))
    labels = HumanLabels(str(path), unlabelled="lose")
    world.read_by([labels])
    with pytest.warns(UserWarning, match="said nothing of 6 of 6"):
        assert world.collect(SMALL, 1).x is None
    world.read_by([HumanLabels(str(path), unlabelled="tie")])
    x = world.collect(SMALL, 2).x
    assert bool((reading_of(HumanLabels(str(path), unlabelled="tie"), x) == 0.5).all())
    world.read_by([HumanLabels(str(path))])
    with pytest.raises(InputError, match=r"has no label of .* as answers to 'topic \d'"):
        world.collect(SMALL, 3)


# ---- over the wire --------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    asked: int = 0

    @property
    def spec(self) -> str:
        return f"endpoint:http://127.0.0.1:{self.server_address[1]}/v1#judge;timeout=5"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        _, first, second = shown(body["messages"][-1]["content"])
        answer = {"choices": [{"message": {"content": f"Because. {favours(first, second)}"}}]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "STRATAGEM_HELPER_KEY"):
        monkeypatch.delenv(name, raising=False)
    running = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def test_the_command_line_trains_by_a_judge_behind_an_address(
    server: _Server, tmp_path: Path, model_folder: Path
) -> None:
    from stratagem.cli.app import run

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": f"say {word}", "answer": "x"}) for word in "abcdefgh"))
    record, out = tmp_path / "judge.jsonl", tmp_path / "run"
    changes = {
        "advantage.preference": "judge",
        "advantage.preference.helper": f"{server.spec};record={record}",
        "sampler.prompts_per_step": 2,
        "sampler.group_size": 3,
    }
    given = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    options = ["--model", str(model_folder), "--out", str(out), "--steps", "2", "--episodes", "2", *given]
    assert run(["train", "sppo", "--task", f"jsonl:{prompts},max_new_tokens=6", *options]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["readings/asked"] for row in rows] == [6.0, 6.0] and server.asked > 0
    asked = server.asked
    assert run(["train", "--resume", str(out), "--steps", "3"]) == 0
    assert server.asked > asked and len(record.read_text().splitlines()) == server.asked
