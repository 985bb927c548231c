"""Attempts that follow one another: what each reads, what it is paid, and that no answer is given away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ImproveTask, RoutesTask, make
from stratagem.tasks.improve import DIFFER, IMPROVE
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


class Guess(Task):
    """A number from 0 to 9, scored by how near it is; the environment answers with ``told``."""

    name, description, max_new_tokens = "guess", "guess a number", 4

    def __init__(self, told: str = "not quite", system: str | None = None, weights=None) -> None:
        self.told, self.system = told, system
        if weights is not None:
            self.reward_names, self.reward_weights = ("near", "short"), weights

    def environment(self, split: Split, index: int) -> Environment:
        return _Guess(self, index % 10)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        yield str(index % 10)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        yield str((index + 1) % 10)


class _Guess(Environment):
    def __init__(self, task: Guess, number: int) -> None:
        self.task, self.number = task, number

    def reset(self) -> Observation:
        return Observation("Which number?", state_key("guess", self.number))

    def step(self, action: str) -> Step:
        near = 1 - abs(int(action) - self.number) / 10
        components = {"short": 1.0} if len(self.task.reward_names) > 1 else {}
        told = Observation(self.task.told.format(number=self.number), 0)
        return Step(told, near, done=True, success=near == 1, components=components)


def said(observation: Observation) -> list[str]:
    return [message["content"] for message in observation.opening]


def test_a_first_training_attempt_is_an_episode_of_the_task_to_the_letter():
    plain, ours = RoutesTask().environment("train", 3), make("improve:routes").environment("train", 3)
    assert ours.reset() == plain.reset()
    for route in ("north", next(RoutesTask().solution("train", 3)), "nonsense"):
        ours.reset(), plain.reset()
        mine, other = ours.step(route), plain.step(route)
        names = ("reward", "done", "truncated", "success", "components", "executed", "ran", "well_formed")
        assert [getattr(mine, name) for name in names] == [getattr(other, name) for name in names]
        assert mine.done


def test_an_attempt_behind_others_reads_them_and_what_they_scored_and_is_one_step():
    task = ImproveTask(Guess(system="Guess."), divergence=0.0)
    environment = task.after("train", 4, ["1", "6"])
    first = environment.reset()
    assert said(first) == ["Guess.", "Which number?", "1", "Score: 0.7. Answer again.", "6", f"Score: 0.8. {IMPROVE}"]
    assert [message["role"] for message in first.opening] == ["system", *["user", "assistant"] * 2, "user"]
    assert first.text == f"Score: 0.8. {IMPROVE}"
    step = environment.step("4")
    assert (step.reward, step.done, step.success) == (1.0, True, True)


def test_only_the_last_attempts_are_shown_and_the_question_stays():
    task = ImproveTask(Guess(), shown=2, divergence=0.0)
    texts = said(task.after("train", 4, ["1", "2", "3"]).reset())
    assert texts[0] == "Which number?" and texts[1::2] == ["2", "3"]


def test_states_are_as_different_as_what_is_read():
    task = ImproveTask(Guess(), shown=1, divergence=0.0)
    keys = [task.after("train", 4, attempts).reset().state_key for attempts in ([], ["1"], ["2", "1"], ["2"])]
    assert keys[1] == keys[2] and len(set(keys)) == 3


def test_a_test_episode_pays_its_best_attempt_and_ends_with_the_first_success():
    environment = ImproveTask(Guess(), attempts=5).environment("test", 4)
    environment.reset()
    steps = [environment.step(action) for action in ("1", "9", "6", "4")]
    assert [step.reward for step in steps] == pytest.approx([0.7, 0.0, 0.1, 0.2])
    assert [(step.done, step.success) for step in steps] == [(False, False)] * 3 + [(True, True)]
    assert [step.observation.context for step in steps] == [1, 2, 3, 4]


def test_without_a_verifier_a_test_episode_is_judged_by_its_last_attempt():
    environment = ImproveTask(Guess(), attempts=3, judged="last", feedback="none").environment("test", 4)
    environment.reset()
    steps = [environment.step(action) for action in ("4", "1", "6")]
    assert sum(step.reward for step in steps) == pytest.approx(0.8)
    assert [(step.done, step.success) for step in steps] == [(False, False), (False, False), (True, False)]
    assert said(steps[0].observation)[-1] == IMPROVE


def test_the_best_attempt_may_be_worth_less_than_nothing():
    environment = ImproveTask(Guess(), attempts=2).environment("test", 0)
    environment.reset()
    assert sum(environment.step(action).reward for action in ("30", "20")) == pytest.approx(-1.0)


def test_what_an_attempt_scored_is_its_return_by_the_weights_of_the_task():
    task = ImproveTask(Guess(weights=(1.0, 0.5)), divergence=0.0)
    assert said(task.after("train", 4, ["4"]).reset())[-1] == f"Score: 1.5. {IMPROVE}"
    environment = ImproveTask(Guess(weights=(1.0, 0.5)), attempts=2).environment("test", 4)
    environment.reset()
    step = environment.step("2")
    assert (step.reward, step.components) == (pytest.approx(1.3), {})


def test_what_the_environment_shows_is_feedback_unless_the_answer_stands_in_it():
    task = ImproveTask(Guess(), feedback="shown", divergence=0.0)
    assert said(task.after("train", 4, ["1"]).reset())[-1] == f"not quite {IMPROVE}"
    leaking = ImproveTask(Guess("It was {number}."), feedback="shown")
    with pytest.raises(ValueError, match="improve:guess: what an attempt is shown gives the answer away"):
        leaking.after("train", 4, ["1"]).reset()
    # What was found is no secret any more.
    assert "It was 4." in said(leaking.after("train", 4, ["4"]).reset())[-1]


def test_a_share_of_training_histories_asks_for_something_else_and_no_test_does():
    task = ImproveTask(Guess(), divergence=0.25)

    def asked(split: Split) -> list[bool]:
        return [said(task.after(split, n, ["1"]).reset())[-1].endswith(DIFFER) for n in range(400)]

    assert abs(sum(asked("train")) - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5
    assert asked("train") == asked("train") and not any(asked("test"))
    always = ImproveTask(Guess(), divergence=1.0)
    assert all(said(always.after("train", n, ["1"]).reset())[-1].endswith(DIFFER) for n in range(20))


def test_the_task_proves_itself():
    for text in ("improve:routes", "improve:routes,attempts=3,judged=last", "improve:proof:steps=2"):
        make(text).check(8)
        make(text).check(4, "test")


def test_options_reach_both_tasks():
    task = make("improve:routes,attempts=3,shown=1,feedback=none,judged=last,divergence=0,size=5")
    assert (task.attempts, task.shown, task.feedback, task.judged, task.divergence) == (3, 1, "none", "last", 0.0)
    assert task.of.size == 5 and task.max_turns == 3 and task.name == "improve:routes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("improve", "needs another task"),
        ("improve:key_door", "turns; an attempt is one turn"),
        ("improve:routes,attempts=0", "attempts = 0: must be at least 1"),
        ("improve:routes,attempts=many", "attempts = many: must be a number"),
        ("improve:routes,shown=0", "shown = 0"),
        ("improve:routes,feedback=gold", "feedback = 'gold': must be score, shown or none"),
        ("improve:routes,judged=first", "judged = 'first': must be best or last"),
        ("improve:routes,divergence=2", "divergence = 2.0: must be in"),
    ],
)
def test_wrong_options_are_named(text, message):
    with pytest.raises(InputError, match=message):
        make(text)


def test_other_tasks_have_no_attempts():
    with pytest.raises(NotImplementedError, match="'routes' has no attempts"):
        make("routes").after("train", 0, ["north"])
