"""Problems led part of the way: what is shown, what is judged, what must not be given away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem import recipes
from stratagem import run as runs
from stratagem.cli.app import run as command
from stratagem.errors import InputError
from stratagem.sampling import Guided, Prefix
from stratagem.tasks import CalculatorTask, Guidance, GuidedTask, KeyDoorTask, ProofTask, make
from stratagem.tasks.guided import INSTRUCTION, TrialTask, gives_away, solution_steps
from stratagem.tasks.mixture import Mixture
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


class Sum(Environment):
    """One turn; right when the text ends in the sum. It earns what earlier turns earn, too."""

    def __init__(self, index: int) -> None:
        self.index = index

    def reset(self) -> Observation:
        return Observation(f"What is {self.index} and 40?", state_key(self.index))

    def step(self, action: str) -> Step:
        right = action.endswith(f"so the answer is {self.index + 40}")
        return Step(self.reset(), float(right), done=True, success=right, turn_rewards=[float(right)])


@dataclass
class Sums(Task):
    """Solutions of four steps; problem 3 has none."""

    name, description, max_new_tokens, max_turns = "sums", "add", 8, 1

    def environment(self, split: Split, index: int) -> Environment:
        return Sum(index)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        if index == 3:
            raise NotImplementedError
        return iter([f"We add. Take ${index} + 4 \\cdot 10$.\nThat is easy.\nso the answer is {index + 40}"])

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([f"We add. Take ${index} + 4 \\cdot 10$.\nThat is easy.\nso the answer is {index}"])

    def answer(self, text: str) -> str | None:
        _, found, number = text.rpartition("the answer is ")
        return number if found else None


# ---- steps and answers ----------------------------------------------------------------------------------------------


def test_a_solution_is_cut_behind_lines_and_sentences_but_not_inside_formulas():
    text = "Let $a. b$ be. Then\n\n\\frac{1. 2}{3} is it! So 3.5; and\nthat"
    steps = ["Let $a. b$ be. ", "Then\n\n", "\\frac{1. 2}{3} is it! ", "So 3.5; ", "and\n", "that"]
    assert solution_steps(text) == steps
    assert solution_steps("one") == ["one"] and solution_steps("") == []
    assert solution_steps("a {open.\nb} c.\nd") == ["a {open.\nb} c.\n", "d"]


@given(st.text(alphabet="ab .\n{}$\\;", max_size=40))
def test_the_steps_of_a_text_are_the_text(text):
    steps = solution_steps(text)
    assert "".join(steps) == text and all(steps)


def test_a_prefix_that_says_the_answer_gives_it_away():
    solution = "First. so the answer is 42"
    for prefix, leaks in {
        "First. so the answer is 42": True,
        "We get 42 early.": True,
        "We get 142 and 42.5x early.": False,
        "First.": False,
        "so the answer is 41": False,
    }.items():
        assert gives_away(Sums(), "What is 2 and 40?", prefix, solution) is leaks
    # What the question says itself is no secret, unless it is said as the answer.
    assert not gives_away(Sums(), "Is it 42?", "Perhaps 42.", solution)
    assert gives_away(Sums(), "Is it 42?", "the answer is 42", solution)


# ---- the task -------------------------------------------------------------------------------------------------------


def test_a_solution_of_one_turn_is_shown_and_judged_with_what_follows():
    task = GuidedTask(Sums(), share=0.5)
    environment = task.environment("train", 2 * 7)
    shown = environment.reset()
    assert shown.text == f"What is 7 and 40?\n\n{INSTRUCTION}\nWe add. Take $7 + 4 \\cdot 10$."
    assert environment.step("so the answer is 47") == Step(
        Sum(7).reset(), 1.0, done=True, success=True, components={"guided": 1.0}, turn_rewards=(1.0,)
    )
    plain = task.environment("train", 2 * 7 + 1)
    assert plain.reset().text == "What is 7 and 40?"
    assert plain.step("so the answer is 4").components == {}
    assert (task.reward_names, task.reward_weights) == (("reward", "guided"), (1.0, 0.0))


def test_no_length_gives_the_answer_away():
    task = GuidedTask(Sums(), share=1.0)
    assert task.lengths(7) == [1, 2, 3]
    whole = GuidedTask(Sums(), Guidance("sums", {7: Prefix(4, True)}))
    with pytest.raises(InputError, match="a prefix of 4 of 4 steps is all"):
        whole.environment("train", 0)

    class Blabbing(Sums):
        def solution(self, split: Split, index: int) -> Iterator[str]:
            return iter([f"It is {index + 40}. Why?\nso the answer is {index + 40}"])

    assert GuidedTask(Blabbing(), share=1.0).lengths(7) == []
    with pytest.raises(InputError, match="give the answer away"):
        GuidedTask(Blabbing(), Guidance("sums", {7: Prefix(1, True)})).environment("train", 0)
    # Without lengths of its own such a problem is not led.
    assert GuidedTask(Blabbing(), share=1.0).environment("train", 14).reset().text == "What is 7 and 40?"


def test_a_problem_without_a_solution_is_not_led():
    environment = GuidedTask(Sums()).environment("train", 6)
    assert environment.reset().text == "What is 3 and 40?"
    assert environment.step("so the answer is 43").components == {}


def test_in_turns_the_conversation_so_far_is_the_prompt():
    of = KeyDoorTask()
    task = GuidedTask(of, share=0.25)
    actions = list(of.solution("train", 5))
    led = -(-len(actions) // 4)
    environment, plain = task.environment("train", 10), of.environment("train", 5)
    shown, seen = environment.reset(), [plain.reset()]
    seen += [plain.step(action).observation for action in actions[:led]]
    said = [message["content"] for message in shown.opening]
    expected = [of.system]
    for observation, action in zip(seen, actions, strict=False):
        expected += [observation.text, action]
    assert said == expected[: 2 * led + 2]
    assert [message["role"] for message in shown.opening[:4]] == ["system", "user", "assistant", "user"]
    assert shown.state_key == seen[-1].state_key
    for number, action in enumerate(actions[led:]):
        ours, theirs = environment.step(action), plain.step(action)
        assert (ours.reward, ours.done, ours.success) == (theirs.reward, theirs.done, theirs.success)
        assert ours.components.get("guided", 0.0) == float(number == 0)
    assert ours.success


def test_turns_that_were_led_are_turns_that_are_gone():
    of = KeyDoorTask(max_turns=20)
    environment = GuidedTask(of, Guidance("key_door", {5: Prefix(4, True)})).environment("train", 0)
    environment.reset()
    steps = [environment.step("nothing") for _ in range(16)]
    assert [step.done for step in steps] == [False] * 15 + [True]
    assert steps[-1].truncated and not steps[-1].success


def test_the_last_steps_are_left_out_until_the_rest_fits():
    task = GuidedTask(Sums(), share=0.75, longest=20)
    assert task.environment("train", 14).reset().text.endswith(f"{INSTRUCTION}\nWe add.")
    assert GuidedTask(Sums(), share=0.75, longest=3).environment("train", 14).reset().text == "What is 7 and 40?"


@pytest.mark.parametrize("of", [KeyDoorTask(), CalculatorTask(), ProofTask(), Sums()])
def test_a_guided_task_proves_its_verifier(of: Task):
    task = GuidedTask(of)
    if isinstance(of, Sums):
        task = GuidedTask(of, Guidance("sums", {n: Prefix(1, True) for n in (5, 6, 8)}))
    report = task.check(episodes=6)
    assert (report.solutions_accepted, report.corruptions_rejected) == (6, 6)


def test_test_episodes_are_never_led():
    of = KeyDoorTask()
    assert GuidedTask(of).environment("test", 4).reset() == of.environment("test", 4).reset()


# ---- guidance -------------------------------------------------------------------------------------------------------


def test_hard_problems_take_the_place_of_all(tmp_path: Path):
    found = Guidance("sums", {4: Prefix(0, True), 7: Prefix(1, True), 3: Prefix(0, False), 9: Prefix(2, False)})
    found.save(tmp_path / "prefixes.json")
    assert Guidance.load(tmp_path / "prefixes.json") == found
    assert found.hard == (7, 3, 9)
    assert found.counts == {"easy": 1, "led": 2, "unsolved": 1, "without_solution": 1}
    task = GuidedTask(Sums(), found)
    first = [task.environment("train", index).reset().text.split("?")[0] for index in range(8)]
    assert first == [f"What is {number} and 40" for number in (7, 7, 3, 3, 9, 9, 7, 7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "is not what stratagem guide writes"),
        (json.dumps({"task": "sums"}), "is not what stratagem guide writes"),
        (json.dumps({"task": "sums", "prefixes": [{"problem": 1, "length": -1, "solved": True}]}), "length -1"),
        (json.dumps({"task": "sums", "prefixes": [{"problem": 1, "length": 1, "solved": 2}]}), "solved 2"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "prefixes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Guidance.load(path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("guided", "needs another task"),
        ("guided:lab:prompts", "is not played in text"),
        ("guided:key_door,share=2", "share = 2"),
        ("guided:key_door,share=much", "share=much: must be a number"),
        ("guided:key_door,longest=0", "longest = 0"),
        ("guided:key_door,prefixes=nowhere.json", "cannot be read"),
        ("guided:key_door,colour=red", "unknown option"),
        ("guided:guided:key_door", "already has a reward"),
    ],
)
def test_wrong_specifications_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make(spec)


def test_a_task_is_made_with_the_options_of_the_other():
    task = make("guided:key_door:size=8,max_turns=40,share=0.5")
    assert (task.name, task.max_turns, task.share) == ("guided:key_door", 40, 0.5)


def test_what_cannot_be_guided_is_refused():
    with pytest.raises(InputError, match="made of several"):
        GuidedTask(Mixture([KeyDoorTask()]))
    with pytest.raises(InputError, match="no problem of its prefixes is hard"):
        GuidedTask(Sums(), Guidance("sums", {1: Prefix(0, True)}))


def test_a_trial_leads_each_problem_as_far_as_is_tried():
    task = TrialTask(KeyDoorTask())
    task.trials = ((3, 0), (3, 2))
    assert task.environment("train", 0).reset().opening == ()
    assert len(task.environment("train", 1).reset().opening) == 6


# ---- with a model ---------------------------------------------------------------------------------------------------


def test_the_prompt_holds_what_a_group_is_led_by_and_the_loss_does_not(tmp_path: Path):
    request = runs.Request("", "guided:key_door", runs.TINY, precision="float32")
    world = runs.build_world(request, make("guided:key_door"), 1000)
    try:
        world.serve(0)
        got = world.collect(Guided(prompts_per_step=4, group_size=2), 0)
        x = got.x
        assert x.task_id.tolist() == [0, 1, 2, 3]
        assert x.named_reward("guided").tolist() == [1, 1, 0, 0] * 2
        assert set(got.metrics) >= {"success/guided", "success/unguided"}
        read = x.turn_observation_length[x.trajectory_of_turn.first()]
        assert (read[:2] > read[2:4]).all()
        recipe = recipes.pope()
        x = recipe.prepare(x)
        with torch.no_grad():
            torch.testing.assert_close(world.policy(x).logp, x.behavior_logp, atol=1e-4, rtol=1e-3)
        with pytest.raises(InputError, match="train on guided:key_door"):
            runs.build_world(request, KeyDoorTask(), 1000).collect(Guided(), 0)
    finally:
        world.close()


def test_the_command_finds_how_far_problems_have_to_be_led(tmp_path: Path, capsys: Any):
    out = tmp_path / "prefixes.json"
    arguments = ["guide", "--task", "key_door", "--out", str(out), "--problems", "3", "--samples", "1", "--tries", "2"]
    assert command([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = Guidance.load(out)
    assert list(found.prefixes) == [0, 1, 2]
    assert said["easy"] + said["led"] + said["without_solution"] == 3
    assert command([*arguments, "--search", "guess"]) == 2


def test_only_text_can_be_led():
    with pytest.raises(InputError, match="is not played in text"):
        runs.guide("lab:prompts")
    with pytest.raises(InputError, match="tries = 0"):
        runs.guide("key_door", tries=0)
